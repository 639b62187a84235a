"""One module a file format; a foreign convention ends here."""
