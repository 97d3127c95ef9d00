"""Who is calling, what they may do, and how much. The rest of the daemon knows this folder only as steps of its calls."""
