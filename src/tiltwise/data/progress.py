"""How a long computation says how far it is, without knowing who listens."""

from typing import Protocol


class Progress(Protocol):
    """Called with the finished fraction (0 to 1) and a short text of what is being done."""

    def __call__(self, fraction: float, message: str) -> None: ...


def no_progress(fraction: float, message: str) -> None:
    """Listen to nothing."""
