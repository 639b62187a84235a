"""The steps: one file each, one function and its result type."""
