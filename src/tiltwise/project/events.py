"""What a run tells its listener while it works."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

EventKind = Literal[
    "run_started",
    "item_started",
    "item_progress",
    "item_done",
    "item_failed",
    "item_skipped",
    "item_again",
    "run_done",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One thing that happened in a run."""

    kind: EventKind
    step: str = ""
    """Name of the step."""
    item: str = ""
    """Name of the tilt series, or 'all'."""
    fraction: float = 0.0
    """Finished part of the item, 0 to 1 (item_progress)."""
    message: str = ""
    """What is being done; the error or the reason of an item that failed, was skipped or is done again."""
    seconds: float = 0.0
    """Wall time of the finished item, or of the run, s."""
    total: dict[str, int] | None = None
    """Items to be done, by step (run_started)."""
    workers: int = 0
    """Items worked on at once (run_started)."""
    threads: int = 0
    """Threads of each (run_started)."""


Listener = Callable[[Event], None]


def no_listener(event: Event) -> None:
    """Listen to nothing."""
