"""Gates: what is fitted on one half of the evidence must raise the log likelihood of the other by more than chance.

A step d fitted to the noise of one half changes the log likelihood of the other by -q / 2 on average and ± sqrt(q), q =
d·H·d with the information H of that other half. Both halves gain or lose together, for both gains hold the one product
of their gradients. So a gain must exceed what chance gives once in a thousand times, 3 sqrt(q) - q / 2, which is
nothing where the step is of any size (q > 36).
"""

from dataclasses import dataclass

import numpy as np

SIGNIFICANT = 3.0
"""Standard deviations of a gain by chance."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BlockGate:
    """Whether a block of parameters was taken, and why."""

    block: str
    """Its name."""
    width: float
    """Of its prior, relative to its standard deviations; the better one that was tried."""
    gain: tuple[float, float]
    """Held-out log likelihood that it adds to half 1 (fitted on half 2) and to half 2 (fitted on half 1)."""
    chance: tuple[float, float]
    """What each must exceed."""

    @property
    def accepted(self) -> bool:
        """Both halves gain, and more than chance would give them."""
        return all(gain > chance for gain, chance in zip(self.gain, self.chance, strict=True))

    def record(self) -> dict:
        """For the report."""
        return {
            "accepted": self.accepted,
            "gain": list(self.gain),
            "chance": list(self.chance),
            "width": self.width,
        }


def chance_gain(square: float) -> float:
    """What noise alone gives once in a thousand times to a step whose square d·H·d in the other half is so large."""
    return max(0.0, SIGNIFICANT * float(np.sqrt(square)) - square / 2)
