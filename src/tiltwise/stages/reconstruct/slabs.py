"""One slab of rows, from its straightened images to its part of the tomogram, by each of the methods."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from tiltwise.data.progress import Progress
from tiltwise.ops.tomogram.least_squares import conjugate_gradients, flatten, simultaneous_steps
from tiltwise.ops.tomogram.straight_projection import (
    StraightGeometry,
    gather,
    kernel_table,
    lay_out_planes,
    scatter,
)
from tiltwise.stages.reconstruct.images import straight_images
from tiltwise.stages.reconstruct.setup import Setup

_DEPTH_AT_ONCE = 16
"""Planes back projected together where they do not go to their place at once."""


def reconstruct_slab(
    setup: Setup, rows: slice, volumes: list[np.ndarray], device: str, progress: Progress
) -> list[float]:
    """Fill the rows of the volumes: of the tomogram alone, or of the two halves behind it. Gives residuals by step."""
    if setup.params.method == "wbp":
        _back_project(setup, rows, volumes, device, progress)
        return []
    return _solve(setup, rows, volumes, device, progress)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Share:
    """What one volume is made from."""

    volume: np.ndarray
    """The tomogram, or one of the halves."""
    tilts: np.ndarray
    """(tilt,) of those used."""
    samples: torch.Tensor
    """The store of their straightened images."""
    weight: int
    """Of the back projection: such shares as it takes for all tilts."""


def _shares(setup: Setup, volumes: list[np.ndarray], stores: list[torch.Tensor]) -> list[_Share]:
    """Everything; or all tilts of the odd and of the even frames; or every other tilt in order of angle."""
    number = len(setup.tilts)
    if setup.halves != "tilts":
        halves = volumes if setup.halves is None else volumes[1:]
        return [
            _Share(volume=volume, tilts=np.arange(number), samples=samples, weight=1)
            for volume, samples in zip(halves, stores, strict=True)
        ]
    order = np.argsort(setup.tilt_series.geometry.tilt_angle[setup.tilts], kind="stable")
    return [
        _Share(volume=volume, tilts=np.sort(order[half::2]), samples=stores[0], weight=2)
        for half, volume in enumerate(volumes[1:])
    ]


def _back_project(setup: Setup, rows: slice, volumes: list[np.ndarray], device: str, progress: Progress) -> None:
    stores = straight_images(setup, rows, True, device, lambda f, message: progress(0.7 * f, message))
    table, shares = kernel_table(setup.geometry, setup.planes), _shares(setup, volumes, stores)
    depth, height, width = setup.shape
    whole = rows == slice(0, height) and device == "cpu" and len(shares) == 1 and volumes[0].dtype == np.float32
    step = depth if whole else _DEPTH_AT_ONCE
    for share in shares:
        for z in range(0, depth, step):
            planes = slice(z, min(z + step, depth))
            shape = (planes.stop - z, rows.stop - rows.start, width)
            part = torch.from_numpy(share.volume) if whole else torch.zeros(shape, device=device)
            gather(share.samples, share.tilts, table, part, (z, rows.start))
            if not whole:
                share.volume[planes, rows] = (part * share.weight).cpu().numpy()
            progress(0.7 + 0.3 * planes.stop / depth, "back projection")


def _solve(setup: Setup, rows: slice, volumes: list[np.ndarray], device: str, progress: Progress) -> list[float]:
    """Least squares in the rows of a slab and a margin on both sides, which rows of inclined axes reach into."""
    halo = slice(max(0, rows.start - setup.geometry.margin), min(setup.shape[1], rows.stop + setup.geometry.margin))
    stores = straight_images(setup, halo, False, device, lambda f, message: progress(0.3 * f, message))
    residuals: list[float] = []
    for share in _shares(setup, volumes, stores):
        solved, found = _SlabProblem(setup, halo, share.tilts, device).solve(share.samples, progress)
        share.volume[:, rows] = solved[:, rows.start - halo.start : rows.stop - halo.start].cpu().numpy()
        residuals = residuals or found
    return residuals


class _SlabProblem:
    """min Σ |A f - y|² over the tilts: A spreads voxels over images of one depth, y is taken at the depth it is for."""

    def __init__(self, setup: Setup, rows: slice, tilts: np.ndarray, device: str):
        self._setup, self._tilts, self._start = setup, tilts, (0, rows.start)
        self._shape = (setup.shape[0], rows.stop - rows.start, setup.shape[2])
        self._device = device
        self._planes = lay_out_planes(_one_level(setup))
        self._table = kernel_table(_one_level(setup), self._planes)

    def solve(self, samples: torch.Tensor, progress: Progress) -> tuple[torch.Tensor, list[float]]:
        """samples as `straight_images` gives them, not weighted; left as they are."""
        options = self._setup.params.iterative
        weight = self._weight(samples.shape[1]) if self._setup.params.method == "sirt" else None
        data = self._back_project_data(samples, weight)

        def report(step: int) -> None:
            progress(0.3 + 0.7 * step / options.iterations, self._setup.params.method)

        def normal(volume: torch.Tensor) -> torch.Tensor:
            images = self._project(volume, samples.shape[1])
            return self._back_project(images if weight is None else images.mul_(weight), self._table)

        if weight is None:
            return conjugate_gradients(normal, data, options.iterations, report)
        coverage = self._back_project((weight > 0).float(), self._table)
        return simultaneous_steps(normal, data, coverage, self._constrain, options.iterations, report)

    def _constrain(self, volume: torch.Tensor) -> torch.Tensor:
        options = self._setup.params.iterative
        if options.total_variation > 0:
            volume = flatten(volume, options.total_variation * float(volume.std()))
        return volume.clamp_min_(0) if options.positivity else volume

    def _weight(self, stored: int) -> torch.Tensor:
        """1 / length of each ray within the slab (voxels), 0 where a ray misses it."""
        length = self._project(torch.ones(self._shape, device=self._device), stored)
        return torch.where(length > 1e-3 * length.max(), 1 / length.clamp_min(1e-6), 0.0)

    def _back_project_data(self, samples: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        if weight is None and not self._setup.params.iterative.positivity:
            return self._back_project(samples, kernel_table(self._setup.geometry, self._setup.planes))
        prepared, planes = samples.clone(), self._setup.planes
        for plane, t in enumerate(planes.tilt):
            part = prepared[planes.start[plane] : planes.start[plane + 1]]
            if self._setup.params.iterative.positivity:
                part[:] = torch.where(part != 0, part - _background(part), part)
            first = int(self._planes.start[t] + planes.first[plane])
            part.mul_(weight[first : first + len(part)])
        return self._back_project(prepared, kernel_table(self._setup.geometry, planes))

    def _project(self, volume: torch.Tensor, stored: int) -> torch.Tensor:
        images = torch.zeros(int(self._planes.start[-1]), stored, device=self._device)
        scatter(volume, self._tilts, self._table, images, self._start)
        return images

    def _back_project(self, images: torch.Tensor, table: tuple[np.ndarray, ...]) -> torch.Tensor:
        volume = torch.zeros(self._shape, device=self._device)
        gather(images, self._tilts, table, volume, self._start)
        return volume


def _background(part: torch.Tensor) -> torch.Tensor:
    """Median of the samples within the frame: what positive density stands upon."""
    some = part.reshape(-1)[:: max(1, part.numel() >> 16)]
    some = some[some != 0]
    return some.median() if len(some) else part.new_zeros(())


def _one_level(setup: Setup) -> StraightGeometry:
    """The geometry of the setup with one depth for each tilt."""
    depth = tuple(np.zeros(1) for _ in setup.geometry.depth)
    return replace(setup.geometry, level=np.zeros_like(setup.geometry.level), depth=depth)
