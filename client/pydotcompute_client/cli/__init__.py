"""The command `pydotcompute`, with one module for each subject."""
