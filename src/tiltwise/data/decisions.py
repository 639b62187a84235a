"""What a data set as a whole decides of one of its tilt series."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """Parameters of one series that follow from all of them."""

    params: Mapping[str, Any]
    """By name."""
    reason: str
    """One line."""
