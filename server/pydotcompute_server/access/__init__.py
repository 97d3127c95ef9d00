"""Who is calling, what they may do, and how much: for the rest of the daemon, nothing but steps of its calls."""
