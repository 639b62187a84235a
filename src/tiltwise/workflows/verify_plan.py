"""A plan against the simulator: its tilt series are simulated, averaged at known poses, and measured.

The images are those of simulate/: points rotated and projected in slabs, electrons counted. The average knows geometry
and CTF; positions and orientations are off by the plan's own budget. What is compared is the number of particles that
the model says the measured resolution takes, with the number that was averaged.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.fft import next_fast_len
from scipy.spatial.transform import Rotation

from tiltwise.data.errors import InputError
from tiltwise.data.optics import Ctf, Optics
from tiltwise.data.particles import Particles
from tiltwise.data.progress import Progress, no_progress
from tiltwise.data.tilt_series import TiltGeometry, TiltSeries
from tiltwise.ops.fsc import fourier_shell_correlation, hermitian_weight, shell_index, shell_sums
from tiltwise.ops.particles.averaging import Accumulator, accumulate, average_map, empty_accumulator, merge
from tiltwise.ops.particles.chunks import CropSettings, ImageSource, initial_weights, particle_chunks
from tiltwise.ops.particles.half_maps import maps_and_fsc, posed_particles
from tiltwise.ops.particles.images import TiltWeights
from tiltwise.ops.particles.references import masked_reference, smoothed, sphere_mask
from tiltwise.ops.steady import steady_rfftn
from tiltwise.params.plan import PlanParams
from tiltwise.params.simulate import ErrorParams, SimulateParams, SpecimenParams
from tiltwise.plan import make_plan
from tiltwise.plan.geometry import delocalisation
from tiltwise.plan.prediction import Prediction, frequencies, mean_free_path, particles_needed, predict, resolution
from tiltwise.plan.schedule import Schedule
from tiltwise.simulate.microscope import image_specimen
from tiltwise.simulate.potential import Scatterer, potential_map, scatterer_from_atoms
from tiltwise.simulate.session import populate, series_name
from tiltwise.simulate.specimen import procedural_molecule

_LEAST_SERIES = 6  # so that their CTF zeros do not coincide
_STILL = 10**6  # frames: so many that nothing turns during one
_BINNING = 2  # the simulator writes images of pixels twice the camera's physical pixel
_TILT_AXIS = 85.0  # degrees
_ATOM_B_FACTOR = 40.0  # Å2; the rest of the budget's is motion
_THRESHOLDS = {"half_maps": 1 / 7, "truth": 0.5}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Trial:
    """A plan at the size at which it is simulated."""

    params: PlanParams
    """The plan with the field, mask and errors of the simulation."""
    simulation: SimulateParams
    """The same for the simulator."""
    schedule: Schedule
    """The images in the order of acquisition."""
    scatterer: Scatterer
    """The molecule."""
    mask: torch.Tensor
    """(n, n, n) in which maps are compared."""
    defocus: np.ndarray
    """(series,) of each series, Å, spread evenly over the plan's range."""
    prediction: Prediction
    """For these series, by the power of this molecule."""
    prediction_by_mass: Prediction
    """For these series, by the power of proteins at large."""


def verify_plan(
    params: PlanParams,
    *,
    particles: Sequence[int] | None = None,
    image_size: int = 512,
    seed: int = 0,
    progress: Progress = no_progress,
) -> list[dict[str, Any]]:
    """Predicted against measured resolution, one row for each number of particles (rising).

    Without particles, 300, 100 and 30, or fewer where the images' pixels would limit the resolution. image_size px
    of two camera pixels each. Every series gives the same part of each number. factor_in_N is the particles that the
    model asks for the measured resolution, over those averaged; below 1 it promises too much.
    """
    wanted = sorted(particles or _useful_numbers(params))
    trial = prepare_trial(params, wanted[-1], image_size, seed)
    series = []
    for number in range(1, len(trial.defocus) + 1):
        progress((number - 1) / len(trial.defocus), f"simulating series {number} of {len(trial.defocus)}")
        series.append(simulate_series(trial, number, seed))
    totals = {half: empty_accumulator(len(trial.mask), (len(trial.mask) - 1) // 2) for half in (1, 2)}
    rows, before = [], 0
    for count in wanted:
        progress(1.0, f"averaging {count} particles")
        for number, (source, posed) in enumerate(series, start=1):
            begin, end = (_share(n, number, len(series)) for n in (before, count))
            add_particles(totals, source, posed, np.arange(begin, end))
        rows.append(measure(trial, totals, count))
        before = count
    return rows


def _useful_numbers(params: PlanParams) -> list[int]:
    """Three numbers of particles whose resolution stays a quarter away from the Nyquist spacing of the images."""
    limit = 1.25 * 2 * _BINNING * params.pixel_size
    most = min(300, max(40, round(particles_needed(make_plan(params).prediction, limit))))
    return [max(4, most // 10), most // 3, most]


def _share(count: int, number: int, series: int) -> int:
    """How many of `count` particles series `number` gives, when they are dealt out in turn."""
    return max(0, (count - number) // series + 1)


def as_simulated(params: PlanParams, image_size: int) -> PlanParams:
    """The plan as the simulator can carry it out, in fields of image_size px.

    Its errors are those of poses alone; its camera is the counting one and its ice has a structure factor of 0.05; it
    exposes with the stage at rest and lets particles lie anywhere in the slab.
    """
    if params.target.molecular_weight <= 1e5 or params.target.diameter <= 50:
        raise InputError("verify: the simulator's molecule has more than 100 kDa and 50 Å; choose a larger target")
    aligned = {"alignment_error": 0.0, "alignment_exposure_error": 0.0, "settling_error": 0.0}
    update = {
        "image_size": _BINNING * image_size,
        "detector": "counting",
        "frames": _STILL if params.tilting.scheme == "continuous" else params.frames,
        "budget": params.budget.model_copy(update=aligned),
        "slab": params.slab.model_copy(update={"ice_structure": 0.05, "damage_layer": 0.0}),
        "target": params.target.model_copy(update={"symmetry": "C1"}),
    }
    return params.model_copy(update=update)


def prepare_trial(params: PlanParams, most: int, image_size: int, seed: int) -> Trial:
    """The plan for `most` particles, as simulated, with a ball about the molecule as mask."""
    params = as_simulated(params, image_size)
    series = max(_LEAST_SERIES, math.ceil(most / field_capacity(params, image_size)))
    simulation = simulate_params(params, math.ceil(most / series) + 1, image_size, seed)
    scatterer = scatterer_from_atoms(procedural_molecule(simulation.specimen, seed))
    pixel_size = simulation.pixel_size
    spread = delocalisation(max(2.2 * pixel_size, params.target.resolution), params.optics.defocus_max, params.voltage)
    box = 2 * next_fast_len(math.ceil(1.1 * (scatterer.radius + spread) / pixel_size))
    mask = sphere_mask(box, pixel_size, scatterer.radius)
    volume = float(mask.double().square().sum()) * pixel_size**3
    params = params.model_copy(update={"target": params.target.model_copy(update={"mask_volume": volume})})
    schedule = make_plan(params).schedule
    k = frequencies(params)
    power = power_of(scatterer, pixel_size / 2, k) * np.exp(simulation.specimen.b_factor * k**2 / 2)
    defocus = np.linspace(params.optics.defocus_min, params.optics.defocus_max, 2 * series + 1)[1::2]
    return Trial(
        params=params,
        simulation=simulation,
        schedule=schedule,
        scatterer=scatterer,
        mask=mask,
        defocus=defocus,
        prediction=_predict_series(params, schedule, defocus, power),
        prediction_by_mass=_predict_series(params, schedule, defocus, None),
    )


def _predict_series(
    params: PlanParams, schedule: Schedule, defocus: np.ndarray, power: np.ndarray | None
) -> Prediction:
    """The mean prediction of series that have one defocus each."""
    each = []
    for value in defocus:
        optics = params.optics.model_copy(update={"defocus_min": float(value), "defocus_max": float(value)})
        each.append(predict(params.model_copy(update={"optics": optics}), schedule, power))
    return replace(each[0], image_ssnr=np.mean([one.image_ssnr for one in each], axis=0))


def field_capacity(params: PlanParams, image_size: int) -> int:
    """How many particles a field holds without crowding."""
    diameter = params.target.diameter
    free = max(0.0, image_size * _BINNING * params.pixel_size - 1.6 * diameter)
    return max(1, min(60, int((free / (1.8 * diameter)) ** 2)))


def simulate_params(params: PlanParams, particles: int, image_size: int, seed: int) -> SimulateParams:
    """The simulator's parameters for a plan."""
    pixel_size, target = _BINNING * params.pixel_size, params.target
    atoms = min(_ATOM_B_FACTOR, params.budget.b_factor)
    return SimulateParams(
        pixel_size=pixel_size,
        image_size=image_size,
        tilt_max=80.0,
        voltage=params.voltage,
        spherical_aberration=params.optics.spherical_aberration,
        amplitude_contrast=params.optics.amplitude_contrast,
        mean_free_path=mean_free_path(params),
        motion_b_factor=params.budget.b_factor - atoms,
        specimen=SpecimenParams(
            thickness=params.slab.thickness,
            particles=particles,
            margin=10.0,
            surroundings=False,
            molecular_weight=target.molecular_weight,
            diameter=target.diameter,
            b_factor=atoms,
        ),
        errors=ErrorParams(),
        seed=seed,
    )


def power_of(scatterer: Scatterer, voxel_size: float, frequency: np.ndarray) -> np.ndarray:
    """(k,) |F|², Å², of a molecule over ice, averaged over directions."""
    box = 2 * next_fast_len(math.ceil(1.4 * scatterer.radius / voxel_size))
    data = torch.from_numpy(potential_map(scatterer, voxel_size, box).data).double()
    spectrum = steady_rfftn(data).abs() ** 2 * (voxel_size**3 / 47.878) ** 2
    shells, weight, number = shell_index((box,) * 3), hermitian_weight((box,) * 3), box // 2 + 1
    mean = shell_sums(spectrum, shells, number, weight) / shell_sums(torch.ones_like(spectrum), shells, number, weight)
    return np.interp(frequency, np.arange(number) / (box * voxel_size), mean.numpy())


def simulate_series(trial: Trial, number: int, seed: int) -> tuple[ImageSource, Particles]:
    """The images of one series of the plan, and its particles with the poses that the average will use."""
    specimen, noise, errors = (np.random.default_rng(s) for s in np.random.SeedSequence([seed, 31, number]).spawn(3))
    series = planned_series(trial, number)
    particles, around = populate(trial.scatterer, trial.simulation, series, specimen)
    images = image_specimen(
        [(trial.scatterer, group) for group in (particles, around)], series, trial.simulation, noise
    )
    budget = trial.params.budget
    turn = Rotation.from_rotvec(np.radians(errors.normal(0, budget.rotation_error, (len(particles), 3))))
    posed = replace(
        particles,
        position=particles.position + errors.normal(0, budget.shift_error, (len(particles), 3)),
        rotation=particles.rotation * turn,
        half_set=1 + np.arange(len(particles)) % 2,
    )
    settings = CropSettings(
        box_size=len(trial.mask),
        pixel_size=series.pixel_size,
        particle_radius=trial.scatterer.radius,
        device="cpu",
    )
    return ImageSource(tilt_series={series.name: replace(series, images=images)}, settings=settings, ready={}), posed


def planned_series(trial: Trial, series: int) -> TiltSeries:
    """The schedule as a series with true geometry and CTF, in rising order of angle.

    Angles are those of the slab: the pretilt is taken off.
    """
    name, params, size = series_name(series), trial.params, trial.simulation.image_size
    order = np.argsort(trial.schedule.tilt_angle)
    angle, number = trial.schedule.tilt_angle[order] - params.slab.pretilt, len(order)
    defocus = np.full(number, trial.defocus[series - 1])
    zeros, unknown = np.zeros(number), np.full(number, np.nan)
    return TiltSeries(
        name=name,
        images=np.empty((number, size, size), dtype=np.int16),
        image_names=tuple(f"{i + 1:06d}@{name}.mrc" for i in range(number)),
        pixel_size=trial.simulation.pixel_size,
        optics=Optics(
            voltage=params.voltage,
            spherical_aberration=params.optics.spherical_aberration,
            amplitude_contrast=params.optics.amplitude_contrast,
        ),
        stage_tilt_angle=angle,
        nominal_tilt_axis_angle=_TILT_AXIS,
        exposure=trial.schedule.exposure[order],
        pre_exposure=trial.schedule.pre_exposure[order],
        acquisition_order=order,
        use=np.ones(number, dtype=bool),
        why_not=("",) * number,
        geometry=TiltGeometry(
            tilt_angle=angle, tilt_axis_angle=np.full(number, _TILT_AXIS), x_tilt=zeros, shift=np.zeros((number, 2))
        ),
        ctf=Ctf(
            defocus_u=defocus,
            defocus_v=defocus,
            astigmatism_angle=zeros,
            phase_shift=zeros,
            defocus_error=zeros,
            fit_resolution=unknown,
        ),
        defocus_handedness=1,
    )


def add_particles(
    totals: dict[int, Accumulator], source: ImageSource, particles: Particles, chosen: np.ndarray
) -> None:
    """Add the chosen particles of a series to the sums of their halves, each tilt weighted as counting demands."""
    everything = posed_particles(particles)
    weights = {name: _counted(source, name, known) for name, known in initial_weights(source, everything).items()}
    posed = posed_particles(particles[chosen])
    for _, half, index, cut in particle_chunks(source, posed, weights=weights):
        accumulate(totals[half], cut, posed.rotation[index], torch.zeros(len(index), 3, dtype=torch.float64))


def _counted(source: ImageSource, name: str, known: TiltWeights) -> TiltWeights:
    """Images are normalised to a standard deviation of 1, so that a contrast has the scale mean / deviation."""
    counts = source.tilt_series[name].images.reshape(source.tilt_series[name].number, -1)
    return replace(known, scale=torch.as_tensor(counts.mean(axis=1) / counts.std(axis=1)))


def measure(trial: Trial, totals: dict[int, Accumulator], number: int) -> dict[str, Any]:
    """Measured and predicted resolution of what has been summed so far."""
    maps, fsc = maps_and_fsc(totals, trial.mask)
    size = len(trial.mask) * trial.simulation.pixel_size
    truth = torch.from_numpy(potential_map(trial.scatterer, trial.simulation.pixel_size, len(trial.mask)).data)
    merged = average_map(merge(totals[1], totals[2]))
    to_truth = fourier_shell_correlation(masked_reference(merged, trial.mask), masked_reference(truth, trial.mask))
    measured = {
        name: crossing(values, size, _THRESHOLDS[name]) for name, values in (("half_maps", fsc), ("truth", to_truth))
    }
    predicted = resolution(trial.prediction, number)
    reached = measured["half_maps"]
    return {
        "particles": number,
        "predicted_A": predicted,
        "predicted_by_mass_A": resolution(trial.prediction_by_mass, number),
        "measured_half_maps_A": measured["half_maps"],
        "measured_truth_A": measured["truth"],
        "dresolution_A": reached - predicted,
        "factor_in_N": particles_needed(trial.prediction, reached) / number,
        "factor_in_N_truth": particles_needed(trial.prediction, measured["truth"]) / number,
        "factor_in_N_by_mass": particles_needed(trial.prediction_by_mass, reached) / number,
        "frequency": (torch.arange(len(fsc)) / size).tolist(),
        "fsc": fsc.tolist(),
        "fsc_truth": to_truth.tolist(),
    }


def crossing(fsc: torch.Tensor, size: float, threshold: float) -> float:
    """Spacing, Å, at which the smoothed FSC first falls below a threshold beyond its best; size is the box in Å."""
    values = smoothed(fsc).numpy()
    peak = int(values[1:].argmax()) + 1
    below = np.flatnonzero(values[peak:] < threshold)
    if len(below) == 0:
        return size / (len(values) - 1)
    j = peak + int(below[0])
    if j == peak:
        return math.inf
    return float(size / (j - (threshold - values[j]) / (values[j - 1] - values[j])))
