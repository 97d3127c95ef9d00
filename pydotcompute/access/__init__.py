"""Who may do what: roles for kernels, and the file of tokens. The daemon reads the file, and the command writes it."""
