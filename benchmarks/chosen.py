"""Which of a benchmark's series are made: all of them, or a few that the environment names."""

import os


def chosen(variable: str, number: int) -> range:
    """0 to number - 1; of the variable's "12" the first twelve, of "60:100" those from 60 on, before 100."""
    first, colon, end = os.environ.get(variable, str(number)).partition(":")
    return range(int(first), int(end)) if colon else range(int(first))
