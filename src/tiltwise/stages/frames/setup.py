"""What the refinement of frames starts from: checked input, particles of one series, their references and weights."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from tiltwise.data.errors import InputError
from tiltwise.data.maps import HalfMaps
from tiltwise.data.motion import MovieMotions
from tiltwise.data.particles import Particles
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.motion.camera import Camera, camera_as_read, defects_of
from tiltwise.ops.motion.gain import correct_frame
from tiltwise.ops.particles.chunks import CropSettings, ImageSource, PosedParticles, initial_weights
from tiltwise.ops.particles.half_maps import gated_tilt_weights, posed_particles
from tiltwise.ops.particles.images import TiltWeights
from tiltwise.ops.particles.references import alignment_radius, alignment_reference, half_map_fsc, sphere_mask
from tiltwise.ops.particles.setup import check_particles
from tiltwise.ops.particles.slices import SpectralGrid, volume_spectrum
from tiltwise.params.frames import FramesParams


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Movies:
    """The movies of a series, and how they are read."""

    motions: MovieMotions
    """With what was taken back when they were summed."""
    camera: Camera
    """What is done to every frame."""
    pixel_size: float
    """Of the frames, Å."""

    def frames(self, tilt: int) -> Iterator[torch.Tensor]:
        """Each corrected frame (y, x) float32 of a tilt in turn; the movie is decoded once and held as counts."""
        raw = list(self.motions.movies[tilt])
        defects = defects_of(raw, self.camera, find=self.motions.reading.find_defects)
        for frame in raw:
            yield torch.from_numpy(correct_frame(frame, self.camera.gain, defects))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Setup:
    """Everything by which frames are judged."""

    series: TiltSeries
    """The tilt series."""
    movies: Movies
    """Its movies."""
    tilts: tuple[int, ...]
    """Rows of the used tilts with two frames or more."""
    particles: PosedParticles
    """Those of the series."""
    images: torch.Tensor
    """(used tilt, y, x) normalised images."""
    settings: CropSettings
    """How crops are cut."""
    grids: dict[int, SpectralGrid]
    """Spectra of the references by half set."""
    weights: TiltWeights
    """Amplitude and noise of the used tilts."""
    radius: int
    """Last shell that is compared."""

    @property
    def resolution(self) -> float:
        """Finest spacing compared, Å."""
        return self.settings.box_size * self.settings.pixel_size / self.radius


def check_movies(series: TiltSeries, motions: MovieMotions, gain: np.ndarray | None) -> tuple[Movies, tuple[int, ...]]:
    """The movies of a series, and its used tilts with two frames or more. InputError, in one line, where there are
    none, or a used one cannot be read."""
    if len(motions.motion) != series.number:
        raise InputError(f"{series.name}: {series.number} tilts, but the motion of {len(motions.motion)} movies")
    known = [tilt for tilt in np.flatnonzero(series.use).tolist() if motions.motion[tilt] is not None]
    for tilt in known:
        if motions.movies[tilt] is None:
            reason = motions.faults[tilt] or f"the movie {motions.movie_names[tilt]} cannot be read"
            raise InputError(f"{series.name}: {reason}")
    tilts = tuple(tilt for tilt in known if motions.motion[tilt].frames > 1)
    if not tilts:
        raise InputError(f"{series.name}: has no movies of two frames or more in the tilts that are used")
    shape = tuple(motions.movies[tilts[0]].shape[1:])
    camera = camera_as_read(gain, motions.defects, shape, motions.reading)
    pixel_size = series.pixel_size / motions.reading.binning
    return Movies(motions=motions, camera=camera, pixel_size=pixel_size), tilts


def check_halves(series: TiltSeries, particles: Particles, maps: HalfMaps) -> str:
    """Why nothing can be judged in this series, empty where it can. InputError for particles or maps that are not fit
    for it."""
    if np.any((particles.half_set != 1) & (particles.half_set != 2)):
        raise InputError("particles: some are in no half set; run refine before frames")
    if len({*maps.half1.data.shape, *maps.half2.data.shape}) != 1:
        raise InputError("half maps: they are not two cubes of one size")
    if abs(maps.half1.voxel_size / series.pixel_size - 1) > 1e-3:
        voxel = f"voxels of {maps.half1.voxel_size:.4g} Å, but the images pixels of {series.pixel_size:.4g} Å"
        raise InputError(f"half maps: {voxel}; frames needs them alike")
    counts = [int((particles.half_set == half).sum()) for half in (1, 2)]
    if min(counts) == 0:
        return f"{counts[0]} and {counts[1]} particles in the halves: nothing can be held out"
    check_particles({series.name: series}, particles, "frames")
    return ""


def prepare(
    series: TiltSeries,
    particles: Particles,
    maps: HalfMaps,
    movies: tuple[Movies, tuple[int, ...]],
    params: FramesParams,
) -> Setup:
    """References as polishing has them, and the weights of the tilts, each against the other half's reference."""
    box_size, voxel = len(maps.half1.data), series.pixel_size
    radius = params.particle_diameter / 2
    settings = CropSettings(box_size=box_size, pixel_size=voxel, particle_radius=radius, device="cpu")
    source = ImageSource(tilt_series={series.name: series}, settings=settings, ready={})
    posed = posed_particles(particles)
    mask = sphere_mask(box_size, voxel, radius)
    first, second = (torch.from_numpy(np.array(half.data, np.float32)) for half in (maps.half1, maps.half2))
    fsc = half_map_fsc(first, second, mask)
    references = {half: alignment_reference(one, mask, fsc, voxel) for half, one in enumerate((first, second), start=1)}
    last = alignment_radius(fsc)
    weights = gated_tilt_weights(
        source, posed, references, weights=initial_weights(source, posed), radius=last
    ).weights[series.name]
    return Setup(
        series=series,
        movies=movies[0],
        tilts=movies[1],
        particles=posed,
        images=source.images(series.name),
        settings=settings,
        grids={half: volume_spectrum(one, last + 1) for half, one in references.items()},
        weights=weights,
        radius=last,
    )
