"""What a user may set: one frozen model for each step, from which command line, recipe and provenance are derived."""
