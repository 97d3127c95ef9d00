"""Conformance to docs/wire.md: cases that a daemon has to pass, and a daemon that judges clients."""
