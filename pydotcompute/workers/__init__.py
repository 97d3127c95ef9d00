"""Runs actors in worker processes, and starts those again that have died. The kernels' mail stays here."""
