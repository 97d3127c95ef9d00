"""The process of the daemon: its threads, signals, standard files and log."""
