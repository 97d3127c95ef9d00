"""Who is calling, what they may do, and how much. The rest of the daemon knows it only as steps of its calls."""
