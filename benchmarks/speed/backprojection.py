"""Plain weighted back projection of 41 images of 512 × 512 px into 512 × 512 × 256 voxels, against its plain twin.

The images are those of the shared case without CTF, binned by Fourier cropping beforehand, as IMOD's tilt had them.
`backprojection_cpu_s` holds filtering, straightening and back projection, from images to volume, both in memory;
`twin_ratio` is the time of the plain torch twin over that of the kernel on the last 16 planes.
"""

import importlib.util
import time
from pathlib import Path

import numpy as np
import torch
from shared_case import ABSENT, case_series
from shared_case import prepare as case_folder

from tiltwise.ops.fourier import fourier_rescale
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.ops.tomogram.image_spectra import spectrum_grid
from tiltwise.ops.tomogram.slice_weights import slice_weight
from tiltwise.ops.tomogram.straight_projection import (
    gather,
    gather_plain,
    kernel_table,
    lay_out_planes,
    plane_affine,
    resample,
    spline_prefilter,
    stored_rows,
    straighten,
)
from tiltwise.project.threads import keep_freed_memory

_spec = importlib.util.spec_from_file_location("scored", Path(__file__).parents[1] / "accuracy" / "tomogram_ctf.py")
scored = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(scored)

SHAPE, VOXEL = (256, 512, 512), 8.0


def prepare() -> tuple | None:
    """The folder of the case, its series and its binned images."""
    folder = case_folder()
    if folder is None:
        return None
    keep_freed_memory()
    series = case_series(folder, "ts_clean_noctf.mrc")
    images = torch.stack([fourier_rescale(torch.as_tensor(image), (512, 512)) for image in series.images])
    return folder, series, images


def run(prepared: tuple | None) -> dict:
    if prepared is None:
        return ABSENT
    folder, series, images = prepared
    volume = torch.zeros(SHAPE)
    back_project(images, series, volume)  # compile
    volume.zero_()
    before, clock = scored.cpu_seconds(), time.perf_counter()
    samples, table = back_project(images, series, volume)
    seconds, wall = scored.cpu_seconds() - before, time.perf_counter() - clock
    fast = timed(gather, samples, table)
    return {
        "backprojection_cpu_s": round(seconds, 2),
        "backprojection_wall_s": round(wall, 2),
        "threads_used": torch.get_num_threads(),
        "fsc_at_01_02_03_04": scored.score(volume.numpy(), folder),
        "twin_ratio": round(timed(gather_plain, samples, table) / fast, 1),
    }


def back_project(images: torch.Tensor, series: object, volume: torch.Tensor) -> tuple:
    """Weight, straighten and add all images; gives the samples and the table of their geometry."""
    angles = series.geometry.tilt_angle
    geometry = straighten(tilt_rotations(series.geometry), series.geometry.shift, VOXEL, SHAPE)
    planes, grid = lay_out_planes(geometry), spectrum_grid((512, 512), VOXEL, VOXEL)
    samples = torch.empty(int(planes.start[-1]), stored_rows(geometry, SHAPE[1]))
    prefilter, ones = spline_prefilter(grid.cropped), torch.ones(len(angles), 2)
    for t, image in enumerate(images):
        overlap = slice_weight(grid.frequencies(), t, angles, 0.0, ones, SHAPE[0] * VOXEL)
        coefficients = torch.fft.irfft2(torch.fft.rfft2(image) * (prefilter / (overlap * SHAPE[0])))
        affine = plane_affine(geometry, planes, t, 0, (grid.spacing, grid.centre))
        resample(coefficients, affine, samples[planes.start[t] : planes.start[t + 1]])
    table = kernel_table(geometry, planes)
    gather(samples, np.arange(len(angles)), table, volume, (0, 0))
    return samples, table


def timed(function, samples: torch.Tensor, table: tuple) -> float:
    """CPU seconds for the last 16 planes of all tilts."""
    part = torch.zeros(16, *SHAPE[1:])
    function(samples, np.arange(len(table[0])), table, part, (SHAPE[0] - 16, 0))
    before = scored.cpu_seconds()
    function(samples, np.arange(len(table[0])), table, part, (SHAPE[0] - 16, 0))
    return scored.cpu_seconds() - before
