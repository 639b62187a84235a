"""What: frozen types, numpy at rest; no files, no algorithms."""
