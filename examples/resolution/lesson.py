"""How resolution is assessed, and how it goes wrong: run me with `python examples/resolution/lesson.py`."""

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from simulated_views import PIXEL_SIZE, SIZE, view_of_a_molecule  # noqa: E402

from tiltwise.ops.fsc import first_crossing, fourier_shell_correlation  # noqa: E402

IMAGES, SHARED, NOTHING = 120, 0.4, 2000
FREQUENCY = torch.arange(SIZE // 2 + 1, dtype=torch.float64) / (SIZE * PIXEL_SIZE)


def correlate(first: np.ndarray, second: np.ndarray) -> torch.Tensor:
    """(ring,) Fourier ring correlation: what the FSC is in three dimensions. Three rings are averaged, for these are
    small images."""
    rings = fourier_shell_correlation(torch.as_tensor(first), torch.as_tensor(second))
    return torch.nn.functional.avg_pool1d(rings[None], 3, stride=1, padding=1, count_include_pad=False)[0]


def spacing(correlation: torch.Tensor, threshold: float, begin: int = 8) -> float:
    """Å at which the correlation falls below a threshold beyond ring `begin`: below it the CTF has its first gap."""
    later = torch.cat([torch.ones(begin, dtype=torch.float64), correlation[begin:].double()])
    return first_crossing(FREQUENCY, later, threshold)


def independent_halves(images: np.ndarray) -> torch.Tensor:
    """Each image in one half only: the noise of the two averages has nothing in common."""
    return correlate(images[::2].mean(axis=0), images[1::2].mean(axis=0))


def halves_that_share(images: np.ndarray) -> torch.Tensor:
    """Some images are in both halves: overlapping picks that were not removed do this."""
    shared = int(SHARED * len(images))
    both, rest = images[:shared], images[shared:]
    a, b = (np.concatenate([both, part]).mean(axis=0) for part in (rest[::2], rest[1::2]))
    return correlate(a, b)


def noise_on_one_reference(reference: np.ndarray, number: int, rng: np.random.Generator) -> torch.Tensor:
    """Pure noise, each image moved to where it fits one reference best: the averages of both halves show it."""
    noise = rng.standard_normal((number, SIZE, SIZE))
    match = np.fft.irfft2(np.fft.rfft2(noise) * np.fft.rfft2(reference).conj(), s=(SIZE, SIZE))
    best = [np.unravel_index(one.argmax(), one.shape) for one in match]
    moved = np.stack([np.roll(one, (-y, -x), axis=(0, 1)) for one, (y, x) in zip(noise, best, strict=True)])
    return correlate(moved[::2].mean(axis=0), moved[1::2].mean(axis=0))


def assess(seed: int = 0) -> dict[str, float]:
    """The resolution, Å, that each way of measuring gives."""
    view, rng = view_of_a_molecule(), np.random.default_rng(seed)
    images, truth = view.images(IMAGES, rng), view.contrast.numpy()
    to_truth = correlate(images.mean(axis=0), truth)
    noise = noise_on_one_reference(rng.standard_normal((SIZE, SIZE)), NOTHING, rng)
    return {
        "independent halves, 0.143": spacing(independent_halves(images), 1 / 7),
        "whole average against the truth, 0.5": spacing(to_truth, 0.5),
        f"halves that share {SHARED:.0%} of the images, 0.143": spacing(halves_that_share(images), 1 / 7),
        f"{NOTHING} images of nothing, aligned to one reference, 0.143": spacing(noise, 1 / 7),
    }


def main(seed: int = 0) -> dict[str, float]:
    found = assess(seed)
    print(f"finest that these images can hold: {2 * PIXEL_SIZE:.0f} Å\n")
    for name, value in found.items():
        print(f"{name:58} {value:5.1f} Å")
    return found


if __name__ == "__main__":
    main()
