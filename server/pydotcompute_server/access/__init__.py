"""Who is calling, and what they may do. The rest of the daemon knows this folder only as a step of its calls."""
