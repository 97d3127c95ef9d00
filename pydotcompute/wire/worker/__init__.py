"""The link between a kernel and its worker: the frames, and the rules of what is handed on, without I/O.

A *worker* is a process that runs the actor of one kernel and nothing else. The kernel keeps the mail.
"""
