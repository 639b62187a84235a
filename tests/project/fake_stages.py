"""A tiny pipeline that does almost nothing, to test everything around the stages. Importable by worker processes."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import Field
from scipy.spatial.transform import Rotation

from tiltwise.data.decisions import Decision
from tiltwise.data.errors import StageError
from tiltwise.data.maps import HalfMaps
from tiltwise.data.particles import Particles
from tiltwise.data.tilt_series import TiltGeometry, TiltSeries
from tiltwise.data.units import Angstrom
from tiltwise.data.volume import Volume
from tiltwise.params.base import Params
from tiltwise.pipeline import Stage


class ShiftParams(Params):
    """Shift every image."""

    shift: Angstrom = Field(1.0, ge=0, description="Shift of every image.")
    start: Angstrom | None = Field(None, description="Shift of the first; that of the others if not set.")
    fail: str = Field("", description="Series that fails.")
    rescue: bool = Field(False, description="Whether a start saves the one that fails.")
    astray: str = Field("", description="Series that is shifted by 9 Å if left alone.")
    die: str = Field("", description="Series whose worker dies.")
    seconds: float = Field(0.0, ge=0, description="Time to take.")


class FillParams(Params):
    """Fill a volume."""

    size: int = Field(4, ge=2, description="Side of the volume.")
    seconds: float = Field(0.0, ge=0, description="Time to take.")


class MeanParams(Params):
    """Average the particles."""

    seed: int = Field(3, ge=0, description="Seed.")
    seconds: float = Field(0.0, ge=0, description="Time to take.")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Result:
    """Any outputs of a fake stage."""

    quality: dict
    tilt_series: TiltSeries | None = None
    tomogram: Volume | None = None
    particles: Particles | None = None
    half_maps: HalfMaps | None = None


def shift(tilt_series, params, *, device, progress):
    """Align nothing: the shift is that of the parameters."""
    for step in range(4):
        progress(step / 4, "shifting")
        time.sleep(params.seconds / 4)
    if tilt_series.name == params.fail and not (params.rescue and params.start is not None):
        raise StageError("the images are\nnot of this world")
    if tilt_series.name == params.die:
        os._exit(9)
    zero = np.zeros(tilt_series.number)
    amount = np.full((tilt_series.number, 2), params.shift)
    if tilt_series.geometry is not None:
        amount = amount + tilt_series.geometry.shift
    own = 9.0 if tilt_series.name == params.astray else params.shift
    amount[0] += own - params.shift
    if params.start is not None:
        amount[0] = params.start
    geometry = TiltGeometry(tilt_angle=tilt_series.stage_tilt_angle, tilt_axis_angle=zero, x_tilt=zero, shift=amount)
    return Result(
        tilt_series=replace(tilt_series, geometry=geometry),
        quality={
            "shift_x_A": amount[:, 0],
            "residual_A": [0.0, np.nan],
            "threads": threads(),
            "own_A": own,
            "rescue": params.rescue,
        },
    )


def decide_shift(found, before):
    """The series that lie apart, and the failed ones that may be saved, start where most do."""
    own = [figures["own_A"] for figures in found.values() if figures]
    usual = float(np.median(own)) if own else 0.0
    rescue = any(figures["rescue"] for figures in found.values() if figures)
    apart = [n for n, figures in found.items() if (figures["own_A"] != usual if figures else rescue)]
    return {name: Decision(params={"start": usual}, reason=f"most start at {usual:g}") for name in apart}


def fill(tilt_series, params, *, device, progress):
    """A volume filled with the mean of the images and shifts."""
    progress(0.5, "filling")
    time.sleep(params.seconds)
    value = float(np.asarray(tilt_series.images).mean() + tilt_series.geometry.shift.sum())
    data = np.full((params.size,) * 3, value, np.float32)
    data[0] = 0
    number = params.size
    particles = Particles(
        tilt_series=np.full(number, tilt_series.name),
        position=np.arange(3.0 * number).reshape(-1, 3) + value,
        rotation=Rotation.identity(number),
        score=np.ones(number),
        half_set=np.zeros(number, int),
        region=np.zeros(number, int),
    )
    tomogram = Volume(data=data, voxel_size=10.0)
    return Result(tomogram=tomogram, particles=particles, quality={"particles": number})


def given_particles(particles, tilt_series, params, *, device, progress):
    """Take over imported particles."""
    tomogram = Volume(data=np.zeros((4, 4, 4), np.float32), voxel_size=10.0)
    return Result(tomogram=tomogram, particles=particles, quality={"given": True, "particles": len(particles)})


def mean(tilt_series, particles, reference, params, *, device, progress):
    """Two halves filled with the sum of all positions and the seed."""
    progress(0.5, "averaging")
    time.sleep(params.seconds)
    assert set(particles.tilt_series.tolist()) == set(tilt_series)
    value = float(particles.position.sum()) + params.seed + (0 if reference is None else float(reference.data.sum()))
    data = np.full((2, 2, 2), value, np.float32)
    half = Volume(data=data, voxel_size=10.0)
    return Result(
        half_maps=HalfMaps(half1=half, half2=half),
        particles=particles,
        quality={"series": sorted(tilt_series), "threads": threads()},
    )


def pool(tilt_series, particles, params, *, device, progress):
    """Two halves filled with the number of particles; by name where several kinds are given."""

    def halves(own):
        half = Volume(data=np.full((2, 2, 2), len(own) + params.seed, np.float32), voxel_size=10.0)
        return HalfMaps(half1=half, half2=half, symmetry="C6")

    several = isinstance(particles, Mapping)
    maps = {name: halves(own) for name, own in particles.items()} if several else halves(particles)
    return Result(half_maps=maps, particles=particles, quality={"kinds": sorted(particles) if several else []})


def threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", 0))


def draw(stage, outputs, quality, path: Path) -> None:
    """A preview that can be recognised."""
    path.write_text(f"{stage} {sorted(outputs)}")


def stage(name: str, params: str, per: str, takes: tuple[str, ...], gives: tuple[str, ...]) -> Stage:
    return Stage(
        name=name,
        params=f"{__name__}:{params}",
        function=f"{__name__}:{name}",
        per=per,
        takes=takes,
        gives=gives,
        help=f"{name} it",
    )


STAGES = (
    replace(
        stage("shift", "ShiftParams", "tilt_series", ("tilt_series",), ("tilt_series",)),
        decides=f"{__name__}:decide_shift",
    ),
    stage("fill", "FillParams", "tilt_series", ("tilt_series",), ("tomogram", "particles")),
    stage("mean", "MeanParams", "project", ("tilt_series", "particles", "reference?"), ("particles", "half_maps")),
    stage("pool", "MeanParams", "project", ("tilt_series", "particles+"), ("particles", "half_maps")),
)
