"""A scene under the microscope: every tilt image of it, or every frame, as counted electrons.

Linear imaging: each thin slab of matter adds its own contrast, at its own defocus. The mean falls along the local path
through ice and carbon as zero-loss electrons do, exp(-path / Λ), and the camera counts exposure · mean · (1 +
contrast). The reference for what this leaves out is `simulate.multislice`.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.params.microscope import MicroscopeParams
from tiltwise.simulate.amorphous import add_layer, film_field, ice_fields, water_spectrum
from tiltwise.simulate.bodies import add_population
from tiltwise.simulate.camera import record_frame, record_image
from tiltwise.simulate.disturbances import Disturbances
from tiltwise.simulate.scene import Scene
from tiltwise.simulate.slab import film_layer, ice_layer

STILL = Disturbances()
"""Nothing moves."""


def image_scene(
    scene: Scene,
    series: TiltSeries,
    params: MicroscopeParams,
    seed: tuple[int, ...],
    *,
    disturbances: Disturbances = STILL,
) -> Iterator[np.ndarray]:
    """Each tilt in turn, (y, x) int16 counts of its exposure. Every tilt has random numbers of its own, so that the
    bits do not depend on which tilts are made, where, or in which order."""
    for tilt in range(series.number):
        yield image_tilt(scene, series, tilt, params, seed, disturbances=disturbances)


def image_tilt(
    scene: Scene,
    series: TiltSeries,
    tilt: int,
    params: MicroscopeParams,
    seed: tuple[int, ...],
    *,
    disturbances: Disturbances = STILL,
) -> np.ndarray:
    """(y, x) int16 counts of one tilt; where there are frames, their sum without noise is what is counted."""
    fresh, noise = _generators(seed, tilt)
    intensity = expose(scene, series, tilt, params, fresh, disturbances=disturbances)
    weight = torch.as_tensor(disturbances.frame_exposures(series, tilt), dtype=torch.float32)
    mean = torch.einsum("fyx,f->yx", intensity, weight / weight.sum())
    return record_image(mean, float(series.exposure[tilt]), params.camera, noise)


def image_frames(
    scene: Scene,
    series: TiltSeries,
    tilt: int,
    params: MicroscopeParams,
    seed: tuple[int, ...],
    *,
    gain: np.ndarray,
    disturbances: Disturbances,
) -> np.ndarray:
    """(frame, y, x) uint8 raw counts of one tilt's movie, to be multiplied by the gain (y, x)."""
    fresh, noise = _generators(seed, tilt)
    intensity = expose(scene, series, tilt, params, fresh, disturbances=disturbances)
    exposures = disturbances.frame_exposures(series, tilt)
    return np.stack(
        [record_frame(i, float(e), gain, params.camera, noise) for i, e in zip(intensity, exposures, strict=True)]
    )


def expose(
    scene: Scene,
    series: TiltSeries,
    tilt: int,
    params: MicroscopeParams,
    rng: np.random.Generator,
    *,
    disturbances: Disturbances = STILL,
) -> torch.Tensor:
    """(frame, y, x) intensity at the camera relative to the beam before the specimen, without shot noise."""
    exposures = disturbances.frame_exposures(series, tilt)
    ice = ice_layer(scene.ice, series, tilt)
    attenuation = torch.exp(-ice.path / params.lens.mean_free_path)
    fields = torch.zeros(len(exposures), *series.image_shape)
    for population in scene.populations:
        add_population(fields, population, series, tilt, params, disturbances)
    water = ice_fields(ice, exposures, params.camera.pixel_size, water_spectrum, rng)
    add_layer(fields, water, ice.depth, series, tilt, params, disturbances)
    if scene.film is not None:
        film = film_layer(scene.film, scene.ice, series, tilt)
        carbon = film_field(film, params.camera.pixel_size, rng)
        lossless = replace(
            series, optics=replace(series.optics, amplitude_contrast=0.0)
        )  # its loss is that of its path
        add_layer(fields, [carbon] * len(exposures), film.depth, lossless, tilt, params, disturbances)
        attenuation = attenuation * torch.exp(-film.path / params.lens.carbon_mean_free_path)
    return (fields + 1).clamp_min_(0).mul_(attenuation * disturbances.illumination(series, tilt))


def _generators(seed: tuple[int, ...], tilt: int) -> list[np.random.Generator]:
    """Of the specimen's own disorder, and of the camera, for one tilt."""
    return [np.random.default_rng(s) for s in np.random.SeedSequence([*seed, tilt]).spawn(2)]
