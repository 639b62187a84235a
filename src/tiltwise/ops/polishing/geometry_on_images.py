"""The geometry of one tilt series refined on the images of its particles, and proved on them.

The quadratics of `ops.polishing.geometry_refinement` choose blocks and fit them; then the images decide. Half 1 is put
under the geometry that half 2 alone gave, and half 2 under that of half 1, poses following; only if the log likelihood
of both rises, over what the same half's fit of the time before gives by the quadratics, is the joint fit taken. Images
cut anew know nothing of quadratics, so that a step too long for them is refused. Species that do not help the others
are not asked; their poses follow.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.polishing.geometry_blocks import Block, Seen, see_particles
from tiltwise.ops.polishing.geometry_change import change_geometry, geometry_blocks
from tiltwise.ops.polishing.geometry_refinement import (
    LADDER,
    GeometryFit,
    GeometrySoFar,
    Reduced,
    fit_kinds,
    follow_poses,
    left_by_poses,
    reduce_over_poses,
)
from tiltwise.ops.polishing.species import Species, terms_of_species
from tiltwise.ops.poses.terms import PoseTerms, join_terms


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GeometryRefinement:
    """A series refined, or as it was."""

    tilt_series: TiltSeries
    """The series; as given where nothing was accepted."""
    species: tuple[Species, ...]
    """As given, poses having followed."""
    fit: GeometryFit | None
    """What the quadratics said; None where a half has no particles."""
    gain: tuple[float, float]
    """Log likelihood that the images of half 1 gain by the fit on half 2 over its fit before, and those of half 2."""
    moved: float
    """Rms over used tilts and particles by which images were moved, poses aside, Å."""
    so_far: GeometrySoFar | None = None
    """What the geometry has become since it was given; None where nothing was ever fitted."""
    telling: tuple[int, ...] = ()
    """Numbers of the species that the fit rests on."""

    @property
    def accepted(self) -> bool:
        """Whether the geometry was changed."""
        return min(self.gain) > 0

    def record(self) -> dict:
        """For the report."""
        gates = () if self.fit is None else self.fit.gates
        return {
            "accepted": self.accepted,
            "held_out_gain": list(self.gain),
            "moved_rms_A": self.moved,
            "determined": dict(self.fit.determined) if self.fit is not None and self.accepted else {},
            "species": list(self.telling),
            "blocks": {gate.block: gate.record() for gate in gates},
        }


def refine_geometry(
    species: Sequence[Species], name: str, blocks: Sequence[str] = LADDER, known: GeometrySoFar | None = None
) -> GeometryRefinement:
    """Refine the geometry of the series of this name on the particles of all species; blocks: a part of LADDER; known:
    what it has become by refinement of the same blocks before."""
    tilt_series = species[0].source.tilt_series[name]
    found = terms_of_species(species, name)
    nothing = GeometryRefinement(
        tilt_series=tilt_series, species=tuple(species), fit=None, gain=(0.0, 0.0), moved=0.0, so_far=known
    )
    asked = [number for number, terms in enumerate(found) if terms is not None and len(set(terms.half_set)) == 2]
    if not asked:
        return nothing
    names = [block for block in LADDER if block in blocks]
    kinds = [_halves(tilt_series, found[number], names) for number in asked]
    known = known or GeometrySoFar.as_given(sum(block.number for block in kinds[0][1].blocks))
    reduced = [tuple(halves[half].reduced().about(known.joint) for half in (1, 2)) for halves in kinds]
    fit, taken = _fit_asked(reduced, kinds[0][1].blocks, known, asked)
    nothing = replace(nothing, fit=fit, so_far=known, telling=tuple(asked[number] for number in taken))
    if fit.found is known:
        return nothing
    telling = [terms if number in nothing.telling else None for number, terms in enumerate(found)]
    terms = join_terms([terms for terms in telling if terms is not None])
    halves = _halves(tilt_series, terms, names)
    gain = tuple(
        _gain_on_images(species, telling, half, halves[half], fit.found.by_half[3 - half] - known.joint)
        - sum(_gain_so_far(reduced[number][half - 1], known, half) for number in taken)
        for half in (1, 2)
    )
    if min(gain) <= 0:
        return replace(nothing, gain=gain)
    every = _Half.of(tilt_series, join_terms([terms for terms in found if terms is not None]), names)
    change = fit.found.joint - known.joint
    changed = every.changed(change)
    return replace(
        nothing,
        tilt_series=changed,
        species=tuple(_follow(species, found, every, change, (1, 2), changed)),
        gain=gain,
        so_far=fit.found,
        moved=_Half.of(tilt_series, terms, names).moved(change),
    )


def _fit_asked(
    reduced: Sequence[tuple[Reduced, Reduced]], blocks: Sequence[Block], known: GeometrySoFar, asked: Sequence[int]
) -> tuple[GeometryFit, list[int]]:
    """`fit_kinds` of the species asked, by their numbers among all; which of the quadratics told. What was found is the
    object known where nothing was taken."""
    own = replace(known, telling=tuple(asked.index(number) for number in known.telling if number in asked))
    fit, taken = fit_kinds(reduced, blocks, own)
    found = known if fit.found is own else replace(fit.found, telling=tuple(asked[n] for n in fit.found.telling))
    return replace(fit, found=found), taken


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Half:
    """Particles of a half set, or of both, as they are seen in a series."""

    tilt_series: TiltSeries
    terms: PoseTerms
    seen: Seen
    blocks: list[Block]

    @staticmethod
    def of(tilt_series: TiltSeries, terms: PoseTerms, names: Sequence[str]) -> "_Half":
        seen = see_particles(tilt_series, terms.position, terms.rotation)
        return _Half(tilt_series=tilt_series, terms=terms, seen=seen, blocks=geometry_blocks(tilt_series, seen, names))

    def reduced(self):
        return reduce_over_poses(self.seen, self.terms, self.blocks)

    def changed(self, change: np.ndarray) -> TiltSeries:
        return change_geometry(self.tilt_series, self.seen, self.blocks, change)

    def followed(self, change: np.ndarray) -> np.ndarray:
        return follow_poses(self.seen, self.terms, self.blocks, change)

    def moved(self, change: np.ndarray) -> float:
        """Rms by which images move, less what the poses follow, Å."""
        steps, square = self.followed(change), 0.0
        for tilt in range(len(self.seen.rotations)):
            total, first = steps[:, 3:] @ self.seen.rotations[tilt, :2].T, 0
            for block in self.blocks:
                index, derivatives = block.at_tilt(tilt)
                total = total + derivatives[:, 3:] @ change[first + index]
                first += block.number
            square += float((total**2).sum())
        return float(np.sqrt(square / (len(steps) * len(self.seen.rotations))))


def _halves(tilt_series: TiltSeries, terms: PoseTerms, names: Sequence[str]) -> dict[int, _Half]:
    return {half: _Half.of(tilt_series, terms[terms.half_set == half], names) for half in (1, 2)}


def _gain_on_images(
    species: Sequence[Species],
    found: Sequence[PoseTerms | None],
    half: int,
    own: _Half,
    change: np.ndarray,
) -> float:
    """What the images of one half gain, over what their poses alone would, by a change of the series as it is."""
    name = own.tilt_series.name
    moved = _follow(species, found, own, change, (half,), own.changed(change))
    asked = [kind for kind, terms in zip(moved, found, strict=True) if terms is not None]
    after = sum(terms.likelihood.sum() for terms in terms_of_species(asked, name, (half,)) if terms is not None)
    return float(after - own.terms.likelihood.sum()) - left_by_poses(own.seen, own.terms)


def _gain_so_far(own: Reduced, known: GeometrySoFar, half: int) -> float:
    """What a half gains, over the series as it is, by the fit that the other half had, near it, by the quadratics."""
    return own.gain(known.by_half[3 - half]) - own.gain(known.joint)


def _follow(
    species: Sequence[Species],
    found: Sequence[PoseTerms | None],
    own: _Half,
    change: np.ndarray,
    halves: tuple[int, ...],
    changed: TiltSeries,
) -> list[Species]:
    """The species under a changed series, their poses following; own holds their terms of these halves in a row.

    Poses go to their best on all images; what they would not have gone without the change is the geometry's.
    """
    steps, first, result = own.followed(change), 0, []
    carried = (steps - own.followed(np.zeros_like(change)))[:, 3:]
    for kind, terms in zip(species, found, strict=True):
        kind = kind.with_series(changed)
        if terms is not None:
            index = terms.index[np.isin(terms.half_set, halves)]
            own_rows = slice(first, first + len(index))
            kind = kind.moved(index, steps[own_rows], carried[own_rows])
            first += len(index)
        result.append(kind)
    return result
