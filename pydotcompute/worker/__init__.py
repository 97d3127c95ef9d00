"""The worker: a process that runs the actor of one kernel, while the kernel's mail stays with who has started it.

It runs `pydotcompute.worker.command`. It imports the file of the kernel, and no server.
"""
