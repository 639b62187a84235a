"""The refinement as a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from tiltwise.data.errors import StageError
from tiltwise.data.maps import HalfMaps
from tiltwise.data.particles import Particles
from tiltwise.data.progress import Progress, no_progress
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.data.volume import Volume
from tiltwise.ops.fsc import first_crossing
from tiltwise.ops.maps.superpose import RigidMotion
from tiltwise.ops.particles.chunks import ImageSource, PosedParticles
from tiltwise.ops.particles.gated_weights import WeightsSoFar
from tiltwise.ops.particles.half_frames import average_halves, in_frame
from tiltwise.ops.particles.half_maps import (
    exposure_numbers,
    gated_tilt_weights,
    half_maps,
    particles_at_rest,
    weights_to_begin,
)
from tiltwise.ops.particles.half_sets import distinct_particles, some_of_halves, well_explained
from tiltwise.ops.particles.images import TiltWeights
from tiltwise.ops.particles.references import (
    alignment_radius,
    alignment_reference,
    masked_reference,
    resampled_reference,
)
from tiltwise.ops.polishing.geometry_on_images import refine_geometry
from tiltwise.ops.polishing.geometry_refinement import GeometrySoFar
from tiltwise.ops.polishing.handedness import decide_handedness, handedness_evidence, with_handedness
from tiltwise.ops.polishing.lost_tilts import find_lost_tilts
from tiltwise.ops.polishing.species import Species
from tiltwise.ops.poses.alignment import (
    Alignment,
    PoseBounds,
    better_alignment,
    local_alignment,
    search_alignment,
    search_grid,
)
from tiltwise.ops.rotations import geodesic_angle
from tiltwise.params.refine import RefineParams
from tiltwise.stages.refine.bootstrap import bootstrap
from tiltwise.stages.refine.reference import reference_shown
from tiltwise.stages.refine.setup import Setup, prepare
from tiltwise.stages.refine.symmetry import (
    symmetry_of_halves,
    symmetry_record,
    symmetry_shown,
    symmetry_that_holds,
    to_be_found,
)

_SEARCH_FRACTION = 5.0  # the search compares spacings down to a fifth of the diameter, or the low-pass if coarser
_SURE = 0.9  # a pose that holds less of the posterior is ambiguous
_THRESHOLD = 0.143
_BOOTSTRAP_PART = 0.3  # of the time, where the halves make their first references
_TELLING = 800  # particles of each half that tell the symmetry
_STILL = 1.0  # poses that change no less than in the iteration before have not settled


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RefineResult:
    particles: Particles
    """Refined poses, half sets, log likelihoods as scores; duplicates removed."""
    half_maps: HalfMaps
    """The averages of the halves, unfiltered, unmasked."""
    tilt_series: dict[str, TiltSeries]
    """By name, as given but for the shifts of the tilts and the hand of the defocus, where the particles tell them."""
    quality: dict
    """Iterations with their resolution, FSC curve, uncertainties, weights of the tilts."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _State:
    source: ImageSource
    """Tilt series, with refined shifts, and their images."""
    particles: PosedParticles
    """Poses; half set 0 where a particle has been removed as a duplicate."""
    bounds: PoseBounds
    """What is known of them beforehand, moved with the geometry and the axis of a symmetry that was found."""
    score: np.ndarray
    """(particle,) log likelihood."""
    uncertainty: np.ndarray
    """(particle, 2) standard deviations of rotation (degrees) and position (Å)."""
    mass: np.ndarray
    """(particle,) part of the posterior that each pose held when it was searched for last; nan before."""
    weights: dict[str, TiltWeights]
    """Amplitude and noise of each tilt, by series."""
    weights_so_far: WeightsSoFar
    """What each half alone has made of them."""
    references: dict[int, torch.Tensor]
    """(n, n, n) masked, filtered, by half set."""
    resolution: float
    """Finest spacing to be used in the next alignment, Å."""
    maps: dict[int, torch.Tensor]
    """Half maps as they are."""
    fsc: torch.Tensor | None
    """(shell,) of the half maps within the sphere."""
    drift: RigidMotion
    """Of the reference of half 2 against that of half 1 since the average before, taken out of the poses."""
    symmetry: str
    """Imposed on the maps; C1 as long as it is yet to be found."""
    shifts: Mapping[str, GeometrySoFar | None] = field(default_factory=dict)
    """By series, how the tilts have been shifted since they were given."""


def refine(
    tilt_series: Mapping[str, TiltSeries],
    particles: Particles,
    reference: Volume | None,
    params: RefineParams,
    *,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> RefineResult:
    """Poses by search and Gauss-Newton against the tilt images, half maps by Fourier insertion (methods.md section 5).

    The halves share nothing but the first, low-passed reference and the FSC between them, from which both take their
    resolution limit. Raises InputError for input that cannot be refined, StageError if no map results.
    """
    progress(0.0, "noise of the images")
    setup, finding, shown = prepare(tilt_series, particles, params, device), to_be_found(params), {}
    begin = 0.02 if reference is not None else _BOOTSTRAP_PART
    state, origin = _start(setup, reference, params, lambda part, text: progress(part * begin, text))
    some = some_of_halves(setup.particles.half_set, _TELLING, params.seed)
    if finding and len(some) < len(setup.particles):
        progress(begin, f"symmetry of {len(some)} particles")
        state, shown = _symmetry_of_some(setup, state, some, params)
    records: list[dict] = []
    for iteration in range(params.iterations):
        text = f"iteration {iteration + 1} of {params.iterations}"
        done, share = begin + (1 - begin) * iteration / params.iterations, (1 - begin) / params.iterations
        progress(done, f"{text}: align {np.count_nonzero(state.particles.half_set)} particles")
        aligned, removed = _align(setup, state, params, iteration)
        aligned, weak = _without_weak(
            aligned, 0.0 if iteration == 0 and reference is not None else params.least_amplitude
        )
        state, aligned, shifts = _refine_shifts(state, aligned, params, first=iteration == 0)
        state, hand = _decide_handedness(state, aligned, first=iteration == 0)
        progress(done + 0.7 * share, f"{text}: average")
        previous, (state, gates) = state, _average(setup, state, aligned, params)
        record = _record(setup, previous, state, iteration=iteration + 1, removed=removed)
        records.append(record | {"weak_removed": weak} | shifts | hand | {"weights": gates})
        if finding and iteration > 0 and state.symmetry == "C1":
            state, shown = _find_symmetry(setup, state, params)
        if _settled([r for r in records if r["symmetry"] == state.symmetry]):
            break
    progress(0.99, "signal left by each exposure")
    resolution = first_crossing(_frequency(setup, state), state.fsc, _THRESHOLD)
    shown = shown or symmetry_shown(setup, state.maps, resolution, params, state.symmetry)
    shown |= reference_shown(setup, state.maps, reference, resolution, params)
    shown["notes"] = [*setup.notes, *shown.get("notes", ())]
    progress(1.0, "; ".join([f"{resolution:.1f} Å between the halves", *shown["notes"]]))
    history = {"iterations": records, "first_reference": origin} | shown
    return _result(setup, state, particles, history)


def _start(setup: Setup, reference: Volume | None, params: RefineParams, progress: Progress) -> tuple[_State, dict]:
    """The first references: the given one, low-passed, for both halves; or one that each half makes for itself."""
    settings, symmetry = setup.source.settings, "C1" if to_be_found(params) else params.symmetry
    weights = weights_to_begin(setup.source, setup.particles, params.exposure_weighting)
    if reference is None:
        references, record = bootstrap(setup, weights, params.model_copy(update={"symmetry": symmetry}), progress)
    else:
        first = resampled_reference(reference, settings.box_size, settings.pixel_size, params.reference_lowpass)
        masked = masked_reference(first.to(settings.device), setup.mask)
        references, record = {1: masked, 2: masked}, {}
    state = _State(
        source=setup.source,
        particles=setup.particles,
        bounds=setup.bounds,
        score=np.zeros(len(setup.particles)),
        uncertainty=np.full((len(setup.particles), 2), np.nan),
        mass=np.full(len(setup.particles), np.nan),
        weights=weights,
        weights_so_far=WeightsSoFar.as_given(weights),
        references=references,
        resolution=params.reference_lowpass,
        maps={},
        fsc=None,
        drift=RigidMotion.identity(),
        symmetry=symmetry,
    )
    return state, record


def _align(setup: Setup, state: _State, params: RefineParams, iteration: int) -> tuple[Alignment, int]:
    """Every particle against the reference of its own half; duplicates removed, and their number.

    First a search. Then refinement of what it found; the second time the references are better, and what they explain
    badly, or what was ambiguous, is searched for once more.
    """
    shared = {"weights": state.weights, "resolution": state.resolution, "bounds": state.bounds}
    if iteration > 1:
        return _without_duplicates(setup, local_alignment(state.source, state.particles, state.references, **shared))
    coarse = max(params.reference_lowpass, setup.diameter / _SEARCH_FRACTION)
    grid = search_grid(coarse, setup.diameter, params.search_cone, params.search_shift, state.symmetry)
    if iteration == 0:
        found = search_alignment(state.source, state.particles, state.references, grid=grid, **shared)
        return _without_duplicates(setup, found)
    aligned = local_alignment(state.source, state.particles, state.references, **shared)
    doubtful = _weak(aligned, params.least_amplitude) | (state.mass < _SURE)
    again = replace(state.particles, half_set=np.where(doubtful, state.particles.half_set, 0))
    found = search_alignment(state.source, again, state.references, grid=grid, **shared)
    return _without_duplicates(setup, better_alignment(aligned, found, grid))


def _without_duplicates(setup: Setup, aligned: Alignment) -> tuple[Alignment, int]:
    """Of particles that came together, in whichever halves, the one of the higher likelihood stays."""
    posed = aligned.particles
    alive = np.flatnonzero(posed.half_set > 0)
    keep = distinct_particles(
        posed.tilt_series[alive], posed.position[alive].cpu().numpy(), aligned.score[alive], setup.duplicate_distance
    )
    halves = np.zeros_like(posed.half_set)
    halves[alive[keep]] = posed.half_set[alive[keep]]
    return replace(aligned, particles=replace(posed, half_set=halves)), int((~keep).sum())


def _without_weak(aligned: Alignment, least: float) -> tuple[Alignment, int]:
    """Particles that the reference explains far worse than others are left out from now on: wrong picks as a rule."""
    weak = _weak(aligned, least)
    halves = np.where(weak, 0, aligned.particles.half_set)
    return replace(aligned, particles=replace(aligned.particles, half_set=halves)), int(weak.sum())


def _weak(aligned: Alignment, least: float) -> np.ndarray:
    """(particle,) bool: in use, and explained worse than `least` allows."""
    posed = aligned.particles
    weak = ~well_explained(posed.tilt_series, posed.half_set, aligned.amplitude, least)
    return weak & (posed.half_set > 0) & (least > 0)


def _refine_shifts(
    state: _State, aligned: Alignment, params: RefineParams, *, first: bool
) -> tuple[_State, Alignment, dict]:
    """New shifts of the tilts where both halves agree on them, the poses having followed, after a search for tilts that
    were lost; not on the first reference, which is too coarse."""
    if first or not params.refine_tilt_shifts:
        return state, aligned, {}
    kind = Species.of(
        state.source, aligned.particles, state.references, weights=state.weights, resolution=state.resolution
    )
    record, shifts = {}, dict(state.shifts)
    for name in kind.series:
        search = find_lost_tilts([kind], name, ("shift",), shifts.get(name))
        found = refine_geometry([kind.with_series(search.tilt_series)], name, ("shift",), search.so_far)
        kind = found.species[0]
        shifts[name] = found.so_far
        record[name] = {
            "accepted": found.accepted,
            "likelihood_gain": list(found.gain),
            "rms_A": found.moved,
            "found_tilts": search.record(),
        }
    state = replace(state, source=kind.source, shifts=shifts, bounds=state.bounds.carried(kind.carried))
    return state, replace(aligned, particles=kind.particles), {"tilt_shifts": record}


def _decide_handedness(state: _State, aligned: Alignment, *, first: bool) -> tuple[_State, dict]:
    """One hand of defocus with depth for the data set, once the particles' own images tell it."""
    if first:
        return state, {}
    evidence = handedness_evidence(
        state.source, aligned.particles, state.references, weights=state.weights, resolution=state.resolution
    )
    hand, record = decide_handedness(evidence), {"handedness_evidence": evidence}
    if hand is None:
        return state, record
    return replace(state, source=with_handedness(state.source, hand, tuple(evidence))), record | {"handedness": hand}


def _average(setup: Setup, state: _State, aligned: Alignment, params: RefineParams) -> tuple[_State, dict]:
    """Weights of the tilts against the references, then new half maps, their FSC, and the next references; and what
    the gates of the weights said, by series."""
    settings, particles = setup.source.settings, aligned.particles
    radius = settings.radius_of(state.resolution)
    gated = gated_tilt_weights(
        state.source,
        particles,
        state.references,
        weights=state.weights,
        radius=radius,
        exposure_weighting=params.exposure_weighting,
        known=state.weights_so_far,
    )
    known = replace(
        state,
        weights=gated.weights,
        weights_so_far=gated.so_far,
        score=aligned.score,
        uncertainty=aligned.uncertainty,
        mass=np.where(np.isnan(aligned.mass), state.mass, aligned.mass),
    )
    return _averaged(setup, known, particles), {name: gated.record(name) for name in gated.gates}


def _averaged(setup: Setup, state: _State, particles: PosedParticles) -> _State:
    """Half maps of particles under the weights of the state, their FSC, and the next references."""
    settings = setup.source.settings
    found = average_halves(state.source, particles, weights=state.weights, mask=setup.mask, symmetry=state.symmetry)
    maps, fsc = found.maps, found.fsc
    if not all(bool(torch.isfinite(m).all()) and float(m.std()) > 0 for m in maps.values()):
        raise StageError("refine: the average of a half is empty; are the particles inside the images?")
    size = settings.box_size * settings.pixel_size
    return replace(
        state,
        particles=found.particles,
        references={h: alignment_reference(m, setup.mask, fsc, settings.pixel_size) for h, m in maps.items()},
        resolution=size / alignment_radius(fsc),
        maps=maps,
        fsc=fsc,
        drift=found.motion,
    )


def _symmetry_of_some(setup: Setup, state: _State, some: np.ndarray, params: RefineParams) -> tuple[_State, dict]:
    """Some particles aligned in C1 until their averages tell the symmetry; with these as references all particles then
    begin where they start. The state as it was where no symmetry shows.

    In C1 every turn is searched: against C6 six times as many for each particle.
    """
    chosen = np.isin(np.arange(len(setup.particles)), some)
    halves = np.where(chosen, setup.particles.half_set, 0)
    tried = replace(state, particles=replace(setup.particles, half_set=halves))
    for iteration in range(2):
        aligned, _ = _align(setup, tried, params, iteration)
        tried, _ = _average(setup, tried, aligned, params)
    tried, shown = _find_symmetry(setup, tried, params)
    if not shown:
        return state, {}
    return replace(tried, particles=setup.particles, bounds=setup.bounds), shown


def _find_symmetry(setup: Setup, state: _State, params: RefineParams) -> tuple[_State, dict]:
    """Where the halves show a Cn by themselves, its axis is brought onto z, poses and their bounds with it, and the
    next averages have it; what they show, for the report."""
    shown = symmetry_of_halves(setup, state.maps, state.resolution, params)
    found = symmetry_that_holds(shown)
    record = {"rotational_symmetry": symmetry_record(shown)}
    if found is None:
        return state, {}
    posed = in_frame(in_frame(state.particles, 1, found.motion), 2, found.motion)
    bounds = state.bounds.moved(posed.position - state.particles.position, found.motion.rotation)
    return _averaged(setup, replace(state, symmetry=found.group, bounds=bounds), posed), record


def _exposure_curves(state: _State) -> dict:
    """What the particles show of the signal in each exposure, beside what is known of it, for the report."""
    return exposure_numbers(
        state.source,
        state.particles,
        state.references,
        weights=state.weights,
        radius=alignment_radius(state.fsc),
    )


def _record(setup: Setup, previous: _State, state: _State, *, iteration: int, removed: int) -> dict:
    """What the iteration did, for the report."""
    alive = state.particles.half_set > 0
    turned = geodesic_angle(previous.particles.rotation[alive], state.particles.rotation[alive], state.symmetry)
    moved = (state.particles.position - previous.particles.position)[alive].norm(dim=1)
    frequency = _frequency(setup, state)
    return {
        "iteration": iteration,
        "resolution_fsc_A": first_crossing(frequency, state.fsc, _THRESHOLD),
        "resolution_used_A": previous.resolution,
        "particles": int(alive.sum()),
        "rotation_change_deg": float(turned.median()),
        "shift_change_A": float(moved.median()),
        "halves_drifted_deg": state.drift.angle,
        "halves_drifted_A": state.drift.distance,
        "duplicates_removed": removed,
        "symmetry": state.symmetry,
        "score": float(np.mean(state.score[alive])),
        "posterior_mass_median": float(np.median(state.mass[alive])),
        "ambiguous_poses": float(np.mean(state.mass[alive] < _SURE)),
    }


def _settled(records: list[dict]) -> bool:
    """Neither resolution nor poses nor shifts of the tilts have changed to speak of."""
    if len(records) < 3:
        return False
    before, now = records[-2], records[-1]
    finer = now["resolution_fsc_A"] < 0.995 * before["resolution_fsc_A"]
    shifted = any(fit["accepted"] or fit["found_tilts"] for fit in now.get("tilt_shifts", {}).values())
    moved = now["rotation_change_deg"] > _STILL * before["rotation_change_deg"]
    return not (finer or shifted or moved)


def _frequency(setup: Setup, state: _State) -> torch.Tensor:
    settings = setup.source.settings
    return torch.arange(len(state.fsc), dtype=torch.float64) / (settings.box_size * settings.pixel_size)


def _result(setup: Setup, state: _State, particles: Particles, history: dict) -> RefineResult:
    alive = np.flatnonzero(state.particles.half_set > 0)
    quality = history | {
        "box_size_px": setup.source.settings.box_size,
        "symmetry": state.symmetry,
        "fsc_frequency": _frequency(setup, state).tolist(),
        "fsc": state.fsc.tolist(),
        "resolution_fsc_A": first_crossing(_frequency(setup, state), state.fsc, _THRESHOLD),
        "rotation_error_deg": float(np.nanmedian(state.uncertainty[alive, 0])),
        "shift_error_A": float(np.nanmedian(state.uncertainty[alive, 1])),
        "tilt_amplitude": {name: w.scale.tolist() for name, w in state.weights.items()},
        "exposure_curves": _exposure_curves(state),
    }
    return RefineResult(
        particles=particles_at_rest(particles, state.particles, state.score, state.uncertainty),
        half_maps=half_maps(state.maps, setup.source.settings.pixel_size, state.symmetry),
        tilt_series=dict(state.source.tilt_series),
        quality=quality,
    )
