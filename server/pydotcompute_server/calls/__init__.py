"""What every call passes, whichever service it is for."""
