"""Movies of the particles of `particle_scene`, frame by frame from closed forms: known shifts, amplitudes and noise."""

from dataclasses import dataclass, replace

import numpy as np
from particle_scene import PIXEL, SIGMA, SIZE, project_blobs, reference, scene

from tiltwise.data.maps import HalfMaps
from tiltwise.data.motion import Motion, MovieMotions, MovieReading

NAME, FRAMES, EXPOSURE = "TS_1", 6, 3.0


@dataclass(frozen=True)
class MovieScene:
    tilt_series: object
    particles: object
    half_maps: HalfMaps
    motions: MovieMotions
    clean: np.ndarray
    """(tilt, y, x) sum of the frames without motion or noise."""


class Counted(list):
    """Frames that count how often they were looked through."""

    def __init__(self, frames):
        super().__init__(frames)
        self.shape, self.times = (len(frames), *frames[0].shape), 0

    def __iter__(self):
        self.times += 1
        return super().__iter__()


def movie_scene(shifts, *, noise, seed=0, particles=12, b_factor=None, signal=1.0, known=None):
    """A series whose frames are moved by shifts (tilt, frame, 2), Å, more than `known` (frame, 2) says, blurred by
    exp(-b_factor k² / 4) (frame,), with white noise of `noise` times 3 standard deviations of the clean image in their
    sum. The half maps are the truth."""
    rng = np.random.default_rng(seed + 100)
    still = scene(series=1, particles=particles, noise=0.0, seed=seed)
    series, own = still.tilt_series[NAME], still.particles
    frames = shifts.shape[1]
    series = replace(series, exposure=np.full(series.number, EXPOSURE))
    known = np.zeros((frames, 2)) if known is None else known
    clean = project_blobs(series, own.position, own.rotation, still.centres)
    deviation = 3 * noise * clean.std() / np.sqrt(frames)
    made = np.zeros((frames, *clean.shape), np.float32)
    for f in range(frames):
        geometry = replace(series.geometry, shift=series.geometry.shift + shifts[:, f] + known[f])
        moved = project_blobs(replace(series, geometry=geometry), own.position, own.rotation, still.centres)
        moved = signal * (moved if b_factor is None else blurred(moved, b_factor[f])) / frames
        made[f] = moved + deviation * rng.normal(size=clean.shape) + 100 / frames
    extent = (SIZE * PIXEL, SIZE * PIXEL)
    motion = Motion(exposure=np.full(frames, EXPOSURE / frames), shift=known, coefficient=None, extent=extent)
    motions = MovieMotions(
        movies=tuple(Counted(list(made[:, tilt])) for tilt in range(series.number)),
        movie_names=("",) * series.number,
        faults=("",) * series.number,
        motion=(motion,) * series.number,
        reading=MovieReading(find_defects=False),
    )
    back = np.stack([roll_back(made[f], known[f]) for f in range(frames)])
    series = replace(series, images=back.sum(0), half_images=(back[::2].sum(0), back[1::2].sum(0)))
    truth = reference(still.centres, sigma=SIGMA)
    halves = replace(own, half_set=1 + np.arange(len(own)) % 2)
    maps = HalfMaps(half1=truth, half2=truth)
    return MovieScene(tilt_series=series, particles=halves, half_maps=maps, motions=motions, clean=clean)


def blurred(images, b_factor):
    square = np.fft.fftfreq(SIZE, PIXEL)[:, None] ** 2 + np.fft.rfftfreq(SIZE, PIXEL) ** 2
    return np.fft.irfft2(np.fft.rfft2(images) * np.exp(-b_factor / 4 * square), s=images.shape[-2:])


def roll_back(images, shift):
    """The images (..., y, x) with a displacement (x, y), Å, of their content taken back."""
    ky, kx = np.fft.fftfreq(SIZE, PIXEL)[:, None], np.fft.rfftfreq(SIZE, PIXEL)
    phase = np.exp(2j * np.pi * (kx * shift[0] + ky * shift[1]))
    return np.fft.irfft2(np.fft.rfft2(images) * phase, s=images.shape[-2:]).astype(np.float32)


def walks(tilts, frames, step, seed=5):
    """(tilt, frame, 2) walks of zero mean over the frames, steps of `step` Å on each axis."""
    walk = np.cumsum(np.random.default_rng(seed).normal(0, step, (tilts, frames, 2)), axis=1)
    return walk - walk.mean(axis=1, keepdims=True)
