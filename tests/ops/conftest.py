"""Its folder is where the tests below find their helpers."""
