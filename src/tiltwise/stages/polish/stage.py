"""Polishing as a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from tiltwise.data.errors import StageError
from tiltwise.data.maps import HalfMaps
from tiltwise.data.particles import Particles
from tiltwise.data.progress import Progress, no_progress
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.defocus_by_average import refine_common_defoci
from tiltwise.ops.defocus_on_images import refine_defocus
from tiltwise.ops.fsc import first_crossing
from tiltwise.ops.geometry_on_images import refine_geometry
from tiltwise.ops.half_maps import (
    accumulate_halves,
    exposure_numbers,
    half_maps,
    maps_and_fsc,
    measured_weights,
    particles_at_rest,
    weights_to_begin,
)
from tiltwise.ops.particle_chunks import ImageSource, PosedParticles
from tiltwise.ops.particle_images import TiltWeights
from tiltwise.ops.pose_alignment import local_alignment
from tiltwise.ops.references import alignment_radius, alignment_reference
from tiltwise.ops.rotations import geodesic_angle
from tiltwise.ops.species import Species
from tiltwise.params.polish import PolishParams
from tiltwise.stages.polish.setup import Setup, block_names, observations, prepare

_THRESHOLD = 0.143
_PAYS = 1.002  # the area under the FSC must grow by this factor for a further cycle
_ROUNDS = 2  # of the geometry within a cycle


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PolishResult:
    particles: Particles
    """Refined poses, log likelihoods as scores."""
    half_maps: HalfMaps
    """The averages of the halves, unfiltered, unmasked."""
    tilt_series: dict[str, TiltSeries]
    """By name, with refined geometry, deformation and CTF, where the held-out particles gain by it."""
    quality: dict
    """Cycles with their resolution and every gate's figures, FSC curve, uncertainties, weights of the tilts."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _State:
    source: ImageSource
    """Tilt series as they are now, and their images."""
    particles: PosedParticles
    """Poses."""
    score: np.ndarray
    """(particle,) log likelihood."""
    uncertainty: np.ndarray
    """(particle, 2) standard deviations of rotation (degrees) and position (Å)."""
    weights: dict[str, TiltWeights]
    """Amplitude and noise of each tilt, by series."""
    references: dict[int, torch.Tensor]
    """(n, n, n) masked, filtered, by half set."""
    maps: dict[int, torch.Tensor]
    """Half maps as they are."""
    fsc: torch.Tensor
    """(shell,) of the half maps within the sphere."""

    @property
    def worth(self) -> float:
        """Area under the FSC, shells."""
        return float(self.fsc.clamp(0, 1).sum())


def polish(
    tilt_series: Mapping[str, TiltSeries],
    particles: Particles,
    params: PolishParams,
    *,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> PolishResult:
    """Cycles of poses, geometry, defocus and average, while they pay (methods.md section 6).

    Every block of parameters is fitted on the particles of one half set and kept only if the likelihood of the other
    half rises, both ways (`ops.geometry_refinement`). The halves share the geometry, as they share the images; poses,
    references and maps they do not. A cycle after which the half maps agree less is undone, and is the last. Raises
    InputError for particles that cannot be refined, StageError if no map results.
    """
    progress(0.0, "first average")
    setup = prepare(tilt_series, particles, params, device)
    state = _first(setup)
    records = [_record(setup, None, state, 0) | {"gates": {}}]
    for cycle in range(1, params.cycles + 1):
        told = _part(progress, (cycle - 1) / params.cycles, cycle / params.cycles, f"cycle {cycle} of {params.cycles}")
        tried, gates = _cycle(setup, state, params, told)
        records.append(_record(setup, state, tried, cycle) | {"gates": gates, "kept": tried.worth >= state.worth})
        pays = tried.worth >= _PAYS * state.worth
        state = tried if tried.worth >= state.worth else state
        if not pays:
            break
    progress(1.0, f"{_resolution(setup, state):.1f} Å between the halves")
    return _result(setup, state, particles, records)


def _first(setup: Setup) -> _State:
    """The particles as they stand, averaged with weights measured on their own average."""
    weights = weights_to_begin(setup.source, setup.particles, setup.exposure_weighting)
    number = len(setup.particles)
    blank = {"score": np.zeros(number), "uncertainty": np.full((number, 2), np.nan)}
    first = _averaged(setup, setup.source, setup.particles, weights, blank)
    return _weighted(setup, first)


def _cycle(setup: Setup, state: _State, params: PolishParams, progress: Progress) -> tuple[_State, dict]:
    """One round, and what the gates said, by series."""
    resolution = setup.box_width / alignment_radius(state.fsc)
    progress(0.0, "poses")
    aligned = local_alignment(
        state.source,
        state.particles,
        state.references,
        weights=state.weights,
        resolution=resolution,
        allowed=setup.allowed,
    )
    kind = Species.of(
        state.source,
        aligned.particles,
        state.references,
        weights=state.weights,
        resolution=resolution,
    )
    gates: dict[str, dict] = {}
    for number, name in enumerate(kind.series):
        progress(0.2 + 0.4 * number / len(kind.series), f"geometry of {name}")
        kind, gates[name] = _refine_geometry(kind, name, params)
    if params.refine_defocus:
        progress(0.6, "defocus of each series")
        kind, gates = _refine_defoci(kind, setup.symmetry, gates)
    progress(0.9, "average")
    changed = replace(
        state,
        source=kind.source,
        particles=kind.particles,
        score=aligned.score,
        uncertainty=aligned.uncertainty,
    )
    return _weighted(setup, changed), gates


def _refine_geometry(kind: Species, name: str, params: PolishParams) -> tuple[Species, dict]:
    """The geometry of one series, as far as it holds."""
    record: dict = {"geometry": []}
    names = block_names(params)
    for _ in range(_ROUNDS if names else 0):
        found = refine_geometry([kind], name, names)
        record["geometry"].append(found.record())
        if not found.accepted:
            break
        kind = found.species[0]
    return kind, record


def _refine_defoci(kind: Species, symmetry: str, gates: dict[str, dict]) -> tuple[Species, dict[str, dict]]:
    """What the tilts of each series share, then each tilt's own; gates with what was found put beside the geometry."""
    kind, common = refine_common_defoci(kind, symmetry)
    told = {}
    for name, record in gates.items():
        found = refine_defocus([kind], name)
        kind = kind.with_series(found.tilt_series)
        shared = {"common_defocus": common[name].record()} if name in common else {}
        told[name] = record | shared | {"defocus": found.record()}
    return kind, told


def _weighted(setup: Setup, state: _State) -> _State:
    """Weights of the tilts against the references, then new half maps, their FSC, and the next references."""
    weights = measured_weights(
        state.source,
        state.particles,
        state.references,
        weights=state.weights,
        radius=alignment_radius(state.fsc),
        exposure_weighting=setup.exposure_weighting,
    )
    kept = {"score": state.score, "uncertainty": state.uncertainty}
    return _averaged(setup, state.source, state.particles, weights, kept)


def _averaged(setup: Setup, source: ImageSource, particles: PosedParticles, weights: dict, kept: dict) -> _State:
    totals = accumulate_halves(source, particles, weights=weights, symmetry=setup.symmetry)
    maps, fsc = maps_and_fsc(totals, setup.mask)
    if not all(bool(torch.isfinite(m).all()) and float(m.std()) > 0 for m in maps.values()):
        raise StageError("polish: the average of a half is empty; are the particles inside the images?")
    pixel_size = source.settings.pixel_size
    references = {half: alignment_reference(one, setup.mask, fsc, pixel_size) for half, one in maps.items()}
    return _State(
        source=source, particles=particles, weights=weights, references=references, maps=maps, fsc=fsc, **kept
    )


def _frequency(setup: Setup, state: _State) -> torch.Tensor:
    return torch.arange(len(state.fsc), dtype=torch.float64) / setup.box_width


def _resolution(setup: Setup, state: _State) -> float:
    return first_crossing(_frequency(setup, state), state.fsc, _THRESHOLD)


def _record(setup: Setup, before: _State | None, state: _State, cycle: int) -> dict:
    """What the cycle did, for the report."""
    found = {
        "cycle": cycle,
        "resolution_fsc_A": _resolution(setup, state),
        "fsc_area_shells": state.worth,
        "particles": int((state.particles.half_set > 0).sum()),
    }
    if before is None:
        return found
    turned = geodesic_angle(before.particles.rotation, state.particles.rotation, setup.symmetry)
    moved = (state.particles.position - before.particles.position).norm(dim=1)
    return found | {
        "rotation_change_deg": float(turned.median()),
        "shift_change_A": float(moved.median()),
        "score": float(np.mean(state.score)),
    }


def _result(setup: Setup, state: _State, particles: Particles, records: list[dict]) -> PolishResult:
    resolution = _resolution(setup, state)
    determined = sum(
        found["parameters_determined"]
        for record in records
        for gates in record["gates"].values()
        for found in gates["geometry"]
        if found["accepted"]
    )
    error = np.nanmedian(state.uncertainty, axis=0) if np.isfinite(state.uncertainty).any() else (None, None)
    quality = {
        "cycles": records,
        "box_size_px": setup.source.settings.box_size,
        "fsc_frequency": _frequency(setup, state).tolist(),
        "fsc": state.fsc.tolist(),
        "resolution_fsc_A": resolution,
        "resolution_before_A": records[0]["resolution_fsc_A"],
        "tilt_amplitude": {name: w.scale.tolist() for name, w in state.weights.items()},
        "rotation_error_deg": error[0] and float(error[0]),
        "shift_error_A": error[1] and float(error[1]),
        "exposure_curves": _exposure_curves(state),
        "shared_parameters": determined,
        "shared_parameters_per_observation": determined / max(observations(setup, resolution), 1),
    }
    return PolishResult(
        particles=particles_at_rest(particles, state.particles, state.score),
        half_maps=half_maps(state.maps, setup.source.settings.pixel_size, setup.symmetry),
        tilt_series=dict(state.source.tilt_series),
        quality=quality,
    )


def _exposure_curves(state: _State) -> dict:
    """What the particles show of the signal in each exposure, beside what is known of it, for the report."""
    return exposure_numbers(
        state.source,
        state.particles,
        state.references,
        weights=state.weights,
        radius=alignment_radius(state.fsc),
    )


def _part(progress: Progress, start: float, end: float, prefix: str) -> Progress:
    def told(fraction: float, text: str) -> None:
        progress(start + fraction * (end - start), f"{prefix}: {text}")

    return told
