"""How signal-to-noise grows with the number of particles: run me with `python examples/signal_to_noise/lesson.py`."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from simulated_views import view_of_a_molecule  # noqa: E402

NUMBERS = (1, 4, 16, 64)


def amplitude_snr(first: np.ndarray, second: np.ndarray) -> float:
    """Standard deviation of the signal over that of the noise in one of two images with the same signal.

    Their correlation c is the signal's part of the variance, so SNR² = c / (1 - c). No truth is needed.
    """
    c = np.corrcoef(first.ravel(), second.ravel())[0, 1]
    return float(np.sqrt(max(c, 1e-6) / (1 - c)))


def measure(seed: int = 0) -> dict[int, float]:
    """Amplitude SNR of averages of N images, for each N: two averages of new images each time."""
    view, rng, found = view_of_a_molecule(), np.random.default_rng(seed), {}
    middle = slice(24, 72)  # the molecule's 120 Å and a little more
    for number in NUMBERS:
        a, b = (view.images(number, rng).mean(axis=0)[middle, middle] for _ in range(2))
        found[number] = amplitude_snr(a, b)
    return found


def main(seed: int = 0) -> dict[int, float]:
    found = measure(seed)
    last = found[NUMBERS[-1]] / np.sqrt(NUMBERS[-1])
    print("particles  SNR of their average  √N × that of one")
    for number, snr in found.items():
        print(f"{number:9d}  {snr:20.2f}  {last * np.sqrt(number):16.2f}")
    print("\nFour times as many particles, twice the SNR. In one image the molecule is below its noise.")
    return found


if __name__ == "__main__":
    main()
