"""Motion of movies with known truth: K3-like at 0.4 e⁻/Å² a frame on measured tracks, and the bright movie."""

import math
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measured_tracks import SHARED, measured_tracks
from scipy.ndimage import map_coordinates, spline_filter

from tiltwise.data.optics import Optics
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.io.movies import open_movie
from tiltwise.ops.motion.model import displacement
from tiltwise.params.motion import MotionParams
from tiltwise.stages.motion import motion

BRIGHT = "cases/ctf_and_movie.py"
PIXEL, SHAPE = 1.35, (4092, 5760)
"""The camera, Å and (y, x) px; a pixel of the figures is one of these."""
FRAME_EXPOSURE, LOCAL = 0.4, 4.0
MOVIES = ("TS_03_000_0_0", "TS_03_020_30_0")
WEAK = 0.1
"""Of the signal's power: a third of the contrast, as in thick ice or at high tilt."""
_MARGIN = 64


def prepare() -> Path | None:
    """A folder with the movies; None where the tracks and the case are absent."""
    if not SHARED.is_dir():
        return None
    folder = Path(tempfile.mkdtemp(prefix="tiltwise-motion-"))
    tracks = measured_tracks()
    for number, (name, strength) in enumerate([*((name, 1.0) for name in MOVIES), (MOVIES[1], WEAK)]):
        rng = np.random.default_rng(number)
        shape = rng.normal(0, LOCAL / math.sqrt(5), (5, 2))
        np.save(folder / f"frames_{number}.npy", make_movie(tracks[name], shape, strength, rng))
        np.savez(folder / f"truth_{number}.npz", track=tracks[name], shape=shape)
    subprocess.run([sys.executable, SHARED / BRIGHT, folder], check=True, stdout=subprocess.DEVNULL)
    return folder


def run(folder: Path | None) -> dict:
    if folder is None:
        return {"skipped": f"{SHARED} is not here"}
    torch.set_num_threads(1)
    try:
        figures = bright_figures(folder)
        errors = [movie_errors(folder, number) for number in range(len(MOVIES) + 1)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    strong = np.array(errors[:-1])
    return {
        "global_rmse_px": round(float(strong[:, 0].max()), 4),
        "local_rmse_px": round(float(strong[:, 1].max()), 4),
        "local_uncorrected_px": round(float(strong[:, 2].max()), 4),
        "weak_global_rmse_px": round(errors[-1][0], 4),
        "weak_local_rmse_px": round(errors[-1][1], 4),
        "movie_cpu_s": round(float(strong[:, 3].mean()), 2),
        **figures,
    }


def bright_figures(folder: Path) -> dict:
    """The bright movie through the whole stage: read, defects, fit, sums. The first call compiles, untimed."""
    movie, truth = open_movie(folder / "movie.mrc"), np.loadtxt(folder / "movie_truth.txt")
    warm = [frame[:600, :600] for frame in movie]
    motion(one_tilt(np.stack(warm), 0.0), None, None, MotionParams(patch_size=200))
    before = time.process_time()
    result = motion(one_tilt(movie, 0.0), None, None, MotionParams())
    seconds = time.process_time() - before
    error = result.motions[0].shift / PIXEL - truth
    return {
        "bright_rmse_px": round(rms(error[:, None]), 5),
        "bright_cpu_s": round(seconds, 2),
        "bright_peak_GB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2),
        "bright_kept": result.quality["kept"][0],
    }


def movie_errors(folder: Path, number: int) -> tuple[float, float, float, float]:
    """Error of the motion of the whole; of the motion everywhere, after and before local motion is known, px; CPU s."""
    frames = np.load(folder / f"frames_{number}.npy", mmap_mode="r")
    with np.load(folder / f"truth_{number}.npz") as truth:
        track, shape = truth["track"], truth["shape"]
    before = time.process_time()
    found = motion(one_tilt(frames, FRAME_EXPOSURE * len(track)), None, None, MotionParams()).motions[0]
    seconds = time.process_time() - before
    sides = [np.linspace(-0.49, 0.49, points) * n * PIXEL for points, n in ((25, SHAPE[1]), (17, SHAPE[0]))]
    grid = np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2)
    true = np.stack([true_displacement(track, shape, grid[:, 0], grid[:, 1], f) for f in range(len(track))])
    error = (displacement(found, grid) - true) / PIXEL
    local = (true - true.mean(axis=1, keepdims=True)) / PIXEL
    return rms(error.mean(axis=1, keepdims=True)), rms(error), rms(local), seconds


def rms(error: np.ndarray) -> float:
    """Of (frame, point, 2) after the mean over the frames, which is no motion, is taken off."""
    return float(np.sqrt(((error - error.mean(axis=0)) ** 2).sum(axis=-1).mean()))


def one_tilt(movie, exposure: float) -> TiltSeries:
    return TiltSeries(
        name="movie",
        images=np.broadcast_to(np.float32(0), (1, *movie.shape[1:])),
        image_names=(),
        pixel_size=PIXEL,
        optics=Optics(),
        stage_tilt_angle=np.zeros(1),
        nominal_tilt_axis_angle=None,
        exposure=np.array([exposure]),
        pre_exposure=np.zeros(1),
        acquisition_order=np.zeros(1, int),
        use=np.ones(1, bool),
        why_not=("",),
        movies=(movie,),
    )


def texture(shape: tuple[int, int], pixel_size: float, strength: float, rng: np.random.Generator) -> np.ndarray:
    """(y, x) contrast of a specimen: its power over the shot noise of 3 e⁻/Å² is 40 exp(-3500 k²) + 0.1 exp(-30 k²).

    The first term follows the zero-tilt images of two real series (EMPIAR-10164); the second is a faint high end.
    """
    ky, kx = np.fft.fftfreq(shape[0], pixel_size)[:, None], np.fft.rfftfreq(shape[1], pixel_size)[None]
    square = (ky**2 + kx**2).astype(np.float32)
    power = strength * (40 * np.exp(-3500 * square) + 0.1 * np.exp(-30 * square)) / (3 * pixel_size**2)
    noise = torch.fft.rfft2(torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)))
    return torch.fft.irfft2(noise * torch.from_numpy(np.sqrt(power)), s=shape).numpy()


def true_displacement(track: np.ndarray, shape: np.ndarray, x: np.ndarray, y: np.ndarray, frame: int) -> np.ndarray:
    """(..., 2) Å at x, y Å from the centre. Local motion is shape (5, 2) Å times x, y, x², y², xy relative to half the
    longer side, at the end; it follows the burst of a first exposure."""
    scale = max(SHAPE) * PIXEL / 2
    u, v = x / scale, y / scale
    local = np.stack([u, v, u * u, v * v, u * v], axis=-1) @ shape
    return track[frame] + (1 - math.exp(-frame / 2.5)) * local


def make_movie(track: np.ndarray, shape: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """(frame, y, x) uint8 counts: a perfect camera, shot noise, no blur within a frame."""
    scene = spline_filter(texture(tuple(n + 2 * _MARGIN for n in SHAPE), PIXEL, strength, rng), output=np.float32)
    y, x = (np.arange(n, dtype=np.float32) for n in SHAPE)
    gx, gy = np.meshgrid(*((np.linspace(0, n - 1, 33) - n // 2) * PIXEL for n in SHAPE[::-1]))
    frames = np.empty((len(track), *SHAPE), np.uint8)
    for f in range(len(track)):
        at = np.zeros((*gx.shape, 2))
        for _ in range(4):  # where the content now at x came from: r = x - d(r)
            at = true_displacement(track, shape, gx - at[..., 0], gy - at[..., 1], f)
        dy, dx = (_upsample(at[..., axis] / PIXEL, y, x) for axis in (1, 0))
        coordinates = np.stack([y[:, None] + _MARGIN - dy, x[None] + _MARGIN - dx])
        image = map_coordinates(scene, coordinates, order=3, prefilter=False, output=np.float32)
        frames[f] = rng.poisson(np.clip(FRAME_EXPOSURE * PIXEL**2 * (1 + image), 0, None)).astype(np.uint8)
    return frames


def _upsample(values: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    grid = torch.from_numpy(values.astype(np.float32))[None, None]
    return torch.nn.functional.interpolate(grid, (len(y), len(x)), mode="bicubic", align_corners=True)[0, 0].numpy()
