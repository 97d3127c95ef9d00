"""The actor, which is the user's function: how it runs, and the context it gets."""
