"""Hand-written speed-ups, each beside a plain twin that the tests hold it against."""
