"""The angles of tilt series and the orders in which they are taken: what is damaged first is the operator's choice.

Angles are start + j · step. A scheme is the sequence of the whole numbers j: from -below to +above, each once.
"""

import numpy as np

SCHEMES = ("unidirectional", "bidirectional", "dose_symmetric", "continuous")
_ONE_SIDED = 0.1
"""The lesser of the two sides, of the larger, below which a series counts as of one side."""


def steps_of_range(tilt_min: float, tilt_max: float, tilt_step: float, start_tilt: float) -> tuple[int, int]:
    """How many steps lie below and above the start within the range, all in degrees; rounding errors do not lose
    one."""
    return tuple(int(np.floor(span / tilt_step + 1e-6)) for span in (start_tilt - tilt_min, tilt_max - start_tilt))


def unidirectional_sequence(below: int, above: int) -> np.ndarray:
    """-below ... +above."""
    return np.arange(-below, above + 1)


def bidirectional_sequence(below: int, above: int, first_direction: int = 1) -> np.ndarray:
    """From the start to one end (+1: upwards), then from the step on the other side of the start to the other end."""
    up, down = np.arange(1, above + 1), -np.arange(1, below + 1)
    return np.concatenate([[0], *((up, down) if first_direction > 0 else (down, up))]).astype(int)


def dose_symmetric_sequence(
    below: int,
    above: int,
    *,
    first_direction: int = 1,
    group_size: int = 1,
    growth: tuple[int, float, float] = (0, np.inf, 0.0),
    switch: float = np.inf,
) -> np.ndarray:
    """Groups of steps taken in turn on the two sides of the start, always outwards.

    group_size 1: 0, +1, -1, +2, -2 ... (Hagen et al. 2017); group_size 2 with first_direction -1: 0, -1, -2, +1, +2,
    -3, -4 ... (SerialEM). growth (n, from, every), the last two in steps: a group that begins `from` or more steps out
    is n larger, and n larger again for each further `every` steps (0: only once). switch, in steps: once a group ends
    there or beyond, its side runs to its end, and then the other does (SerialEM's "stop alternating").
    """
    ends, done = {1: above, -1: below}, {1: 0, -1: 0}
    sequence, side = [0], first_direction
    while done[1] < ends[1] or done[-1] < ends[-1]:
        size = group_size + _grown(done[side] + 1, *growth)
        stop = min(ends[side], done[side] + size)
        if max(stop, *done.values()) >= switch:
            stop = ends[side]
        sequence += [side * j for j in range(done[side] + 1, stop + 1)]
        done[side], side = stop, -side
    return np.array(sequence)


def on_one_side(angles: np.ndarray) -> bool:
    """Whether two tilts or more (tilt,), degrees, all lie on one side of the untilted image, or nearly."""
    low, high = float(angles.min()), float(angles.max())
    return len(angles) > 1 and min(-low, high) <= _ONE_SIDED * max(-low, high)


def order_of_range(scheme: str, tilt_max: float, tilt_step: float) -> tuple[np.ndarray, np.ndarray]:
    """Angles -tilt_max ... tilt_max in rising order (tilt,), degrees, and the order in which the scheme takes them.

    Dose-symmetric in single steps, 0, +s, -s, +2s ... (Hagen); bidirectional from 0, upwards first.
    """
    below, above = steps_of_range(-tilt_max, tilt_max, tilt_step, 0.0)
    sequences = {
        "unidirectional": unidirectional_sequence,
        "bidirectional": bidirectional_sequence,
        "dose_symmetric": dose_symmetric_sequence,
    }
    sequence = sequences[scheme](below, above)
    return np.sort(sequence) * tilt_step, np.argsort(sequence)


def _grown(step: int, amount: int, begin: float, every: float) -> int:
    """By how much a group that begins at this step is larger than the first."""
    if amount == 0 or step < begin:
        return 0
    return amount * (1 + (int((step - begin) // every) if every > 0 else 0))
