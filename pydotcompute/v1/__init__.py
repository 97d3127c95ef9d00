"""Generated from `proto/pydotcompute/v1` by `make proto`. Never edited by hand."""
