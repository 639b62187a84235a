"""A tilt series of a scene before it is imaged: the specimen, the true state of the microscope, what disturbs it."""

from dataclasses import dataclass, replace

import numpy as np

from tiltwise.data.atoms import Atoms
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.tilt_schemes import order_of_range
from tiltwise.params.microscope import MicroscopeParams
from tiltwise.params.session import SessionParams
from tiltwise.params.simulate import SimulateParams
from tiltwise.simulate.acquisition import Scheme, acquire
from tiltwise.simulate.build_scene import build_scene
from tiltwise.simulate.disturbances import Disturbances, draw_deformation, draw_faults, draw_frame_motion, draw_warp
from tiltwise.simulate.scene import Field, Scene
from tiltwise.simulate.session import series_name

_STREAM = 3  # of the seed, apart from those of the demo's molecule and series


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SceneSeries:
    """All that is needed to image any tilt of one series."""

    scene: Scene
    """The specimen."""
    series: TiltSeries
    """True geometry, CTF and handedness; its images are a placeholder of the right shape that holds zeros."""
    disturbances: Disturbances
    """What the geometry does not say."""
    params: MicroscopeParams
    """The microscope."""
    seed: tuple[int, ...]
    """Of the random numbers of each tilt, which is put behind it."""


def prepare_series(
    params: SessionParams,
    number: int,
    *,
    model: Atoms | None = None,
    scheme: Scheme | None = None,
    frames: bool = True,
) -> SceneSeries:
    """Series `number` (1, 2, ...) of a session; the same params give the same bits.

    A scheme (as a plan makes one) goes before that of the params. Without frames every tilt is one still image, as
    after a perfect motion correction. Missing tilts have no row.
    """
    seed = (params.seed, _STREAM, number)
    errors, specimen, disturbing = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3))
    microscope = params.microscope
    series = _acquire(params, series_name(number), errors, scheme)
    faults = microscope.faults
    beam, hidden = draw_faults(faults, series, disturbing)
    kept = np.sort(disturbing.permutation(series.number)[faults.missing :])
    disturbances = Disturbances(
        deformation=draw_deformation(microscope.motion, series, disturbing),
        frames=draw_frame_motion(microscope.motion, series, microscope.scheme.frames, disturbing) if frames else None,
        warp=draw_warp(microscope.motion, series, disturbing),
        beam=beam if faults.dark else None,
        hidden=hidden if faults.blocked else None,
    )
    camera = microscope.camera
    field = Field(
        side=camera.image_size * camera.pixel_size,
        tilt_axis_angle=float(np.median(series.geometry.tilt_axis_angle)),
        tilt_max=float(np.abs(series.stage_tilt_angle).max()),
    )
    scene = build_scene(params.scene, field, specimen, model=model)
    series = flag_faults(series, beam, hidden)
    whole = SceneSeries(scene=scene, series=series, disturbances=disturbances, params=microscope, seed=seed)
    return keep_tilts(whole, kept) if faults.missing else whole


def flag_faults(series: TiltSeries, beam: np.ndarray, hidden: np.ndarray) -> TiltSeries:
    """The series with its dark tilts, and those behind a grid bar, flagged; beam and hidden (tilt,) 0 to 1."""
    why_not = tuple(
        "dark" if light < 1 else f"a grid bar hides {part:.0%} of it" if part > 0 else ""
        for light, part in zip(beam, hidden, strict=True)
    )
    return replace(series, use=np.array([not reason for reason in why_not]), why_not=why_not)


def keep_tilts(whole: SceneSeries, kept: np.ndarray) -> SceneSeries:
    """The series as if only the tilts of an index array had been taken into the stack; the others were exposed too."""
    series, disturbed = whole.series, whole.disturbances
    count = series.number

    def cut(value):
        if isinstance(value, np.ndarray) and value.ndim and len(value) == count:
            return value[kept]
        return tuple(np.array(value, dtype=object)[kept]) if isinstance(value, tuple) and len(value) == count else value

    def cut_fields(value, names):
        return replace(value, **{name: cut(getattr(value, name)) for name in names})

    frames, deformation, warp = disturbed.frames, disturbed.deformation, disturbed.warp
    return replace(
        whole,
        series=replace(
            cut_fields(series, [n for n in series.__slots__ if n not in ("geometry", "ctf", "acquisition_order")]),
            geometry=cut_fields(series.geometry, series.geometry.__slots__),
            ctf=cut_fields(series.ctf, series.ctf.__slots__),
            acquisition_order=np.argsort(np.argsort(series.acquisition_order[kept])),
        ),
        disturbances=replace(
            cut_fields(disturbed, ("beam", "hidden")),
            frames=frames and cut_fields(frames, ("exposure", "coefficient", "blur")),
            deformation=deformation and cut_fields(deformation, ("magnification",)),
            warp=warp and cut_fields(warp, ("coefficient",)),
        ),
    )


def recorded_series(truth: TiltSeries) -> TiltSeries:
    """What the microscope writes down of a series."""
    return replace(
        truth,
        geometry=None,
        ctf=None,
        defocus_handedness=None,
        use=np.ones(truth.number, dtype=bool),
        why_not=("",) * truth.number,
    )


def _acquire(params: SessionParams, name: str, rng: np.random.Generator, scheme: Scheme | None) -> TiltSeries:
    lens, plan, camera = params.microscope.lens, params.microscope.scheme, params.microscope.camera
    if scheme is None:
        scheme = Scheme.of(order_of_range(plan.order, plan.tilt_max, plan.tilt_step), plan.exposure)
    shared = SimulateParams(
        pixel_size=camera.pixel_size,
        image_size=camera.image_size,
        defocus_min=plan.defocus_min,
        defocus_max=plan.defocus_max,
        nominal_tilt_axis_angle=plan.nominal_tilt_axis_angle,
        voltage=lens.voltage,
        spherical_aberration=lens.spherical_aberration,
        amplitude_contrast=lens.amplitude_contrast,
        handedness=lens.handedness,
        errors=params.microscope.errors,
        seed=params.seed,
    )
    series = acquire(shared, name, rng, scheme=scheme)
    zeros = np.broadcast_to(np.int16(0), series.images.shape)
    return replace(series, images=zeros, ctf=replace(series.ctf, phase_shift=np.full(series.number, lens.phase_shift)))
