"""The command `pydotcompute`, a module for each subject."""
