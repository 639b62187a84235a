"""Motion of frames: the field, its fit to a movie, and sums without it."""
