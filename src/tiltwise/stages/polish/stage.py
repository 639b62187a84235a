"""Polishing as a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass

from tiltwise.data.maps import HalfMaps
from tiltwise.data.particles import Particles
from tiltwise.data.progress import Progress, no_progress
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.particles.gated_weights import GatedWeights
from tiltwise.ops.particles.half_maps import half_maps, particles_at_rest
from tiltwise.ops.polishing.defocus_by_average import refine_common_defoci
from tiltwise.ops.polishing.defocus_on_images import DefocusSoFar, refine_defocus
from tiltwise.ops.polishing.geometry_on_images import refine_geometry
from tiltwise.ops.polishing.geometry_refinement import GeometrySoFar
from tiltwise.ops.polishing.lost_tilts import find_lost_tilts
from tiltwise.ops.polishing.species import Species
from tiltwise.ops.polishing.trajectory_refinement import refine_trajectories
from tiltwise.params.polish import PolishParams
from tiltwise.stages.polish.setup import ONLY, Setup, block_names, observations, prepare, undivided
from tiltwise.stages.polish.state import (
    State,
    aligned_poses,
    as_species,
    changed,
    cycle_record,
    final_record,
    first_state,
    held_poses,
    reached_resolution,
    worth_variance,
)

_PAYS = 1.002  # the area under the FSC must grow by this factor for a further cycle
_ROUNDS = 2  # of the geometry within a cycle


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _SoFar:
    """What the cycles have made of each series since it was given, and what each half alone says; None of a series
    where nothing was tried."""

    geometry: Mapping[str, GeometrySoFar | None]
    """By series."""
    defocus: Mapping[str, DefocusSoFar | None]
    """By series."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PolishResult:
    particles: Particles | dict[str, Particles]
    """Refined poses, log likelihoods as scores; by name where several kinds were given."""
    half_maps: HalfMaps | dict[str, HalfMaps]
    """The averages of the halves, unfiltered, unmasked; by name where several kinds were given."""
    tilt_series: dict[str, TiltSeries]
    """By name, with refined geometry, deformation and CTF, where the held-out particles gain by it."""
    quality: dict
    """Cycles with their resolution and every gate's figures, FSC curve, uncertainties, weights of the tilts."""


def polish(
    tilt_series: Mapping[str, TiltSeries],
    particles: Particles | Mapping[str, Particles],
    params: PolishParams,
    *,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> PolishResult:
    """Cycles of poses, geometry, defocus and average, while they pay (methods.md section 6).

    Every block of parameters is fitted on the particles of one half set and kept only if the likelihood of the other
    half rises, both ways, and over what the fit of the cycle before gave (`ops.polishing.geometry_refinement`). The
    halves share the geometry, as they share the images; poses, references and maps they do not. Particles of several
    kinds, given by name, share geometry and CTF; each kind keeps its own box, symmetry, references, half sets and
    poses. A cycle after which the half maps agree less is undone, and is the last. Raises InputError for particles that
    cannot be refined, StageError if no map results.
    """
    progress(0.0, "first average")
    setup = prepare(tilt_series, particles, params, device)
    first = {name: first_state(kind) for name, kind in setup.kinds.items()}
    states, weights = ({name: own[part] for name, own in first.items()} for part in (0, 1))
    records = [_record(setup, None, states, 0) | {"poses": {}, "gates": _with_weights({}, weights)}]
    known = _SoFar(geometry={}, defocus={})
    for cycle in range(1, params.cycles + 1):
        told = _part(progress, (cycle - 1) / params.cycles, cycle / params.cycles, f"cycle {cycle} of {params.cycles}")
        tried, found, gates = _cycle(setup, states, known, params, told)
        growth = _growth(setup, states, tried)
        records.append(_record(setup, states, tried, cycle) | gates | {"kept": growth >= 1})
        states, known = (tried, found) if growth >= 1 else (states, known)
        if growth < _PAYS:
            break
    reached = ", ".join(f"{reached_resolution(kind, states[n]):.1f} Å" for n, kind in setup.kinds.items())
    progress(1.0, f"{reached} between the halves")
    return _result(setup, states, particles, records)


def _cycle(
    setup: Setup, states: dict[str, State], known: _SoFar, params: PolishParams, progress: Progress
) -> tuple[dict[str, State], _SoFar, dict]:
    """One round: states, all changes of the series so far, and what the gates said: of the poses by kind, of all else
    by series."""
    progress(0.0, "poses")
    found = {name: aligned_poses(kind, states[name]) for name, kind in setup.kinds.items()}
    held = {name: held_poses(kind, states[name], found[name]) for name, kind in setup.kinds.items()}
    aligned, poses = ({name: own[part] for name, own in held.items()} for part in (0, 1))
    species = [as_species(kind, states[name], aligned[name]) for name, kind in setup.kinds.items()]
    gates: dict[str, dict] = {}
    geometry: dict[str, GeometrySoFar | None] = {}
    series = sorted({name for kind in species for name in kind.series})
    for number, name in enumerate(series):
        progress(0.2 + 0.4 * number / len(series), f"geometry of {name}")
        species, geometry[name], gates[name] = _refine_geometry(species, name, known.geometry.get(name), params)
    defocus = known.defocus
    if params.refine_defocus:
        progress(0.6, "defocus of each series")
        symmetries = [kind.symmetry for kind in setup.kinds.values()]
        species, defocus, gates = _refine_defoci(species, known.defocus, symmetries, gates)
    if params.refine_trajectories:
        progress(0.8, "paths of single particles")
        species, gates = _refine_trajectories(setup, species, gates)
    progress(0.9, "average")
    after = {
        name: changed(kind, states[name], aligned[name], own)
        for (name, kind), own in zip(setup.kinds.items(), species, strict=True)
    }
    tried, weights = ({name: own[part] for name, own in after.items()} for part in (0, 1))
    found_so_far = _SoFar(geometry=geometry, defocus=defocus)
    return tried, found_so_far, {"poses": poses, "gates": _with_weights(gates, weights)}


def _with_weights(gates: dict[str, dict], weights: dict[str, GatedWeights]) -> dict[str, dict]:
    """Gates by series, with those of the weights by kind put beside the rest."""
    told = {
        name: dict(gates.get(name, {})) for name in sorted({*gates, *(n for w in weights.values() for n in w.gates)})
    }
    for name, record in told.items():
        record["weights"] = {kind: own.record(name) for kind, own in weights.items() if name in own.gates}
    return told


def _refine_geometry(
    species: list[Species], name: str, known: GeometrySoFar | None, params: PolishParams
) -> tuple[list[Species], GeometrySoFar | None, dict]:
    """The geometry of one series, as far as it holds."""
    record: dict = {"geometry": []}
    names = block_names(params)
    if "shift" in names:
        telling = known.telling if known and known.telling else range(len(species))
        search = find_lost_tilts([species[number] for number in telling], name, names, known)
        species, known = [kind.with_series(search.tilt_series) for kind in species], search.so_far
        record["found_tilts"] = search.record()
    for _ in range(_ROUNDS if names else 0):
        found = refine_geometry(species, name, names, known)
        record["geometry"].append(found.record())
        known = found.so_far
        if not found.accepted:
            break
        species = list(found.species)
    return species, known, record


def _refine_defoci(
    species: list[Species],
    known: Mapping[str, DefocusSoFar | None],
    symmetries: list[str],
    gates: dict[str, dict],
) -> tuple[list[Species], dict[str, DefocusSoFar | None], dict[str, dict]]:
    """Each tilt's own, while the reference is that of the defoci as they are; then what the tilts of each series share.

    Gates with what was found put beside the geometry.
    """
    own = {}
    for name, record in gates.items():
        telling = record["geometry"][-1]["species"] if record["geometry"] else range(len(species))
        own[name] = refine_defocus([species[number] for number in telling] or species, name, known.get(name))
        species = [kind.with_series(own[name].tilt_series) for kind in species]
    species, common = refine_common_defoci(species, symmetries)
    shared = {name: {"common_defocus": found.record()} for name, found in common.items()}
    told = {name: record | {"defocus": own[name].record()} | shared.get(name, {}) for name, record in gates.items()}
    return species, {name: found.so_far for name, found in own.items()}, told


def _refine_trajectories(
    setup: Setup, species: list[Species], gates: dict[str, dict]
) -> tuple[list[Species], dict[str, dict]]:
    """The paths of each kind's particles in each series; gates with what was found put beside the rest, by kind."""
    told = {name: record | {"motion": {}} for name, record in gates.items()}
    moved = []
    for kind_name, own in zip(setup.kinds, species, strict=True):
        for name in own.series:
            found = refine_trajectories(own, name)
            own = found.species
            told[name]["motion"][kind_name] = found.record()
        moved.append(own)
    return moved, told


def _growth(setup: Setup, before: dict[str, State], after: dict[str, State]) -> float:
    """The factor by which the area under the FSC grows, of several kinds that of their sum, each weighed by how well
    its area is known (inverse variance): that of a kind without signal is noise, and says next to nothing."""
    totals = [0.0, 0.0]
    for name, kind in setup.kinds.items():
        weight = 1 / worth_variance(kind, before[name])
        for number, state in enumerate((before[name], after[name])):
            totals[number] += weight * state.worth / kind.box_width
    return totals[1] / totals[0]


def _record(setup: Setup, before: dict[str, State] | None, states: dict[str, State], cycle: int) -> dict:
    """What a cycle did: the first kind's figures, and those of each where there are several."""
    found = {name: cycle_record(kind, before and before[name], states[name]) for name, kind in setup.kinds.items()}
    return {"cycle": cycle} | _first_and_all(found)


def _first_and_all(found: dict[str, dict]) -> dict:
    first = next(iter(found.values()))
    return first if ONLY in found else first | {"species": found}


def _result(
    setup: Setup, states: dict[str, State], given: Particles | Mapping[str, Particles], records: list[dict]
) -> PolishResult:
    determined = shared_parameters(records)
    seen = sum(observations(kind, reached_resolution(kind, states[n])) for n, kind in setup.kinds.items())
    quality = _first_and_all({name: final_record(kind, states[name]) for name, kind in setup.kinds.items()})
    quality |= {
        "cycles": records,
        "resolution_before_A": records[0]["resolution_fsc_A"],
        "shared_parameters": determined,
        "shared_parameters_per_observation": determined / max(seen, 1),
        "notes": _notes(setup),
    }
    maps = {
        n: half_maps(states[n].maps, kind.source.settings.pixel_size, kind.symmetry) for n, kind in setup.kinds.items()
    }
    source = next(iter(states.values())).source
    started = {ONLY: given} if ONLY in setup.kinds else given
    posed = {
        name: particles_at_rest(one, own.particles, own.score, own.uncertainty) if (own := states.get(name)) else one
        for name, one in started.items()
    }
    return PolishResult(
        particles=posed.get(ONLY, posed),
        half_maps=maps.get(ONLY, maps),
        tilt_series=dict(source.tilt_series),
        quality=quality,
    )


def _notes(setup: Setup) -> list[str]:
    """What the user ought to know."""
    absent = [f"{name} took no part: {reason}" for name, reason in setup.left_out.items()]
    alone = [
        f"{name}: all particles are of one half set, so that nothing can be judged by the other, and its geometry and "
        "CTF stay as they are; series with two virions or patches of lattice can be divided"
        for name in undivided(setup.kinds)
    ]
    return absent + alone


def shared_parameters(records: list[dict]) -> float:
    """How many numbers that the halves share the images determined, of what the cycles that were kept have taken.

    A block fitted again in a later cycle is the same numbers again, and counts once, with the most that was determined.
    Paths of single particles are nobody else's, poses of one half only; noise spectra follow from powers, which change
    no sign of any noise.
    """
    most: dict[tuple, float] = {}
    for record in records:
        for name, gates in record["gates"].items() if record.get("kept", True) else ():
            founds = {"geometry": gates.get("geometry", []), "defocus": [gates.get("defocus") or {}]}
            founds["common"] = [gates.get("common_defocus") or {}]
            founds |= {f"weights {kind}": [one] for kind, one in gates.get("weights", {}).items()}
            for group, members in founds.items():
                for block, number in [pair for one in members for pair in one.get("determined", {}).items()]:
                    most[name, group, block] = max(most.get((name, group, block), 0.0), number)
    return float(sum(most.values()))


def _part(progress: Progress, start: float, end: float, prefix: str) -> Progress:
    def told(fraction: float, text: str) -> None:
        progress(start + fraction * (end - start), f"{prefix}: {text}")

    return told
