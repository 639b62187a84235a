"""Tilts that are lost, searched for on the images of all their particles.

The quadratics of `ops.poses.terms` see no farther than about a quarter of the finest spacing compared. A tilt that
stands farther off matches nothing: its amplitude falls, and no block brings it back; what is worse, its angles and its
warp are then fitted to what is none of it. So every used tilt is searched for exhaustively: from where it stands, and
from what it was given, in the deformed specimen, without what was fitted to this tilt alone. With the whitened images
X_v and the models m_v of its particles under either geometry v, poses as they are, a shift t (Å) that all share gives

    C_v(t) = Σ_p Σ_k Re(X_v* m_v exp(-2 pi i k·t)),

and gains C_v(t) - C(0) in log likelihood, C as it stands: |m|² does not change. The noise of the images alone gives
that a variance of D(t) = Σ |m|² |exp(-2 pi i k·t) - 1|² from where it stands, whatever the tilt holds, and of
D_v = Σ |m|² + Σ |m_v|² otherwise, crops taken as apart. In the ratio of gain and deviation a common factor of the
models cancels, so that a tilt which was weighed down is found as well.

The gate: where the particles of one half set put the tilt, the other must gain three standard deviations, both ways.
And C_v(t) must exceed -C(0): a tilt of inverted contrast, under a CTF that is wrong, gains wherever it goes. Then it
goes to where both together put it, if each gains there; what is within half of the finest spacing of where it stands
is left to the block of the shifts, which lets poses follow. Each half is compared with its own reference, which holds
some of its particles' own noise, most of it where they stand: that holds a tilt where it is.

Where particles lie in a lattice, a tilt that is farther off than half a period may be put one period from its place.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.held_out import SIGNIFICANT
from tiltwise.ops.particles.chunks import particle_chunks
from tiltwise.ops.particles.slices import band_points
from tiltwise.ops.particles.tilt_weights import model_images
from tiltwise.ops.polishing.geometry_blocks import Block, Seen, see_particles
from tiltwise.ops.polishing.geometry_change import change_geometry, geometry_blocks
from tiltwise.ops.polishing.geometry_refinement import LADDER, GeometrySoFar
from tiltwise.ops.polishing.species import Species
from tiltwise.ops.steady import steady_product

_REACH = 0.25
"""How far is searched, in widths of the smallest box: farther, a particle begins to leave its crop."""
_STEP = 0.25
"""Between shifts tried, in finest spacings compared."""
_NEAR = 0.5
"""What is left to the block of the shifts, in finest spacings compared."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FoundTilt:
    """A tilt that was found elsewhere."""

    moved: tuple[float, float]
    """x and y by which its images were moved, Å."""
    gain: tuple[float, float]
    """Log likelihood that half 1 gains where half 2 puts the tilt, and the reverse."""
    chance: tuple[float, float]
    """What each must exceed."""
    as_given: bool
    """Moved from what it was given, not from where it stood."""

    def record(self) -> dict:
        """For the report."""
        told = {"gain": list(self.gain), "chance": list(self.chance)}
        return {"moved_A": list(self.moved), "as_given": self.as_given, **told}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TiltSearch:
    """A series with the tilts that were found again."""

    tilt_series: TiltSeries
    """The series; the same object where nothing was found."""
    so_far: GeometrySoFar | None
    """What the geometry has become since it was given, the shifts of the search being part of what was given."""
    found: Mapping[int, FoundTilt]
    """By the tilt's number in the series."""

    def record(self) -> dict[str, dict]:
        """For the report, by the tilt's number from 1."""
        return {str(tilt + 1): own.record() for tilt, own in self.found.items()}


def find_lost_tilts(
    species: Sequence[Species], name: str, blocks: Sequence[str] = LADDER, known: GeometrySoFar | None = None
) -> TiltSearch:
    """Search for every used tilt of the series of this name by the particles of all species, poses as they are; known:
    what the geometry has become by refinement of these blocks, a part of LADDER."""
    series = species[0].source.tilt_series[name]
    nothing = TiltSearch(tilt_series=series, so_far=known, found={})
    asked = [kind for kind in species if kind.halves_in(name) >= {1, 2}]
    if not asked:
        return nothing
    fitted = _Fitted.of(series, [block for block in LADDER if block in blocks], known)
    every = np.arange(int(series.use.sum()))
    variants = [series] if known is None or not known.joint.any() else [series, fitted.without(every)]
    finest = min(kind.resolution for kind in asked)
    reach = _REACH * min(kind.source.settings.box_size * kind.source.settings.pixel_size for kind in asked)
    place = _shifts(_STEP * finest, reach)
    gain, chance = (np.stack(parts, axis=2) for parts in zip(*_profiles(asked, variants, place), strict=True))
    found = {}
    for number, tilt in enumerate(np.flatnonzero(series.use)):
        own = _judged(gain[:, number], chance[:, number], place)
        if own is not None and (own.as_given or np.hypot(*own.moved) > _NEAR * finest):
            found[number] = int(tilt), own
    if not found:
        return nothing
    again = np.array([number for number, (_, own) in found.items() if own.as_given], int)
    by_tilt = dict(found.values())
    changed = _shifted(fitted.without(again), by_tilt)
    return TiltSearch(tilt_series=changed, so_far=fitted.so_far_after(np.array(list(found)), again), found=by_tilt)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Fitted:
    """A series, and what refinement has made of its tilts one by one."""

    tilt_series: TiltSeries
    seen: Seen
    blocks: list[Block]
    known: GeometrySoFar | None

    @staticmethod
    def of(series: TiltSeries, names: Sequence[str], known: GeometrySoFar | None) -> "_Fitted":
        seen = see_particles(series, np.zeros((0, 3)), np.zeros((0, 3, 3)))
        return _Fitted(tilt_series=series, seen=seen, blocks=geometry_blocks(series, seen, names), known=known)

    def without(self, tilts: np.ndarray) -> TiltSeries:
        """The series with used tilts of an index as they were given."""
        if self.known is None or not len(tilts):
            return self.tilt_series
        back = np.where(self._own(tilts), -self.known.joint, 0.0)
        return change_geometry(self.tilt_series, self.seen, self.blocks, back)

    def so_far_after(self, found: np.ndarray, again: np.ndarray) -> GeometrySoFar | None:
        """What is known once used tilts were found elsewhere, some of them again from what they were given: of these
        nothing of their own; of the others what both halves said, for what either said alone was of another place."""
        if self.known is None:
            return None
        kept, elsewhere = ~self._own(again), self._own(found)
        joint = kept * self.known.joint
        halves = {half: np.where(elsewhere, joint, fit) for half, fit in self.known.by_half.items()}
        return replace(self.known, joint=joint, by_half=halves)

    def _own(self, tilts: np.ndarray) -> np.ndarray:
        """(parameter,) whether it belongs to one of these tilts alone."""
        number = len(self.seen.rotations)
        chosen = np.isin(np.arange(number), tilts)
        parts = [
            np.zeros(block.number, bool) if block.name == "sample" else np.repeat(chosen, block.number // number)
            for block in self.blocks
        ]
        return np.concatenate(parts)


def _shifts(step: float, reach: float) -> np.ndarray:
    """(shift, 2) x, y of a square grid within a circle, the first of them none."""
    along = step * np.arange(-int(reach / step), int(reach / step) + 1)
    place = np.stack(np.meshgrid(along, along, indexing="ij"), axis=-1).reshape(-1, 2)
    distance = np.hypot(*place.T)
    return place[np.argsort(distance, kind="stable")[: int((distance <= reach).sum())]]


def _judged(gain: np.ndarray, chance: np.ndarray, place: np.ndarray) -> FoundTilt | None:
    """Where both halves together put a tilt, judged by where each puts it; None where one does not gain. gain, chance
    (half, variant, shift); place (shift, 2)."""
    gain, chance = gain.reshape(2, -1), chance.reshape(2, -1)
    best, first, second = (int(one.argmax()) for one in (gain.sum(axis=0), *gain))
    asked = ((0, second), (1, first))
    if gain[:, best].min() <= 0 or any(gain[at] <= chance[at] for at in asked):
        return None
    variant, shift = divmod(best, len(place))
    return FoundTilt(
        moved=(float(place[shift, 0]), float(place[shift, 1])),
        gain=tuple(float(gain[at]) for at in asked),
        chance=tuple(float(chance[at]) for at in asked),
        as_given=variant > 0,
    )


def _profiles(
    species: Sequence[Species], variants: Sequence[TiltSeries], place: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(half, used tilt, shift) gains, and what they must exceed, under each variant; the first of these is the series
    as it stands, and the first shift none."""
    used = int(variants[0].use.sum())
    stands = np.zeros((2, used, 1)), np.zeros((2, used, 1))
    for number, variant in enumerate(variants):
        cross, power = np.zeros((2, used, len(place))), np.zeros((2, used, len(place)))
        for kind in species:
            products, powers, width = _sums(kind.with_series(variant), variant.name, used)
            cross += _at_shifts(products, place, width)
            power += _at_shifts(powers, place, width)
        if number == 0:
            stands = cross[..., :1].copy(), power[..., :1].copy()
            variance = 2 * (stands[1] - power)
        else:
            variance = stands[1] + power[..., :1]
        chance = SIGNIFICANT * np.sqrt(variance.clip(0))
        yield cross - stands[0], np.maximum(chance, -2 * stands[0]) + np.zeros_like(cross)


def _at_shifts(values: np.ndarray, place: np.ndarray, width: float) -> np.ndarray:
    """(half, tilt, shift) Σ_k Re(values exp(-2 pi i k·t)), values (half, tilt, ky, kx): along y, then x, on the grid
    that the shifts are part of, in products whose bits do not depend on threads."""
    limit = values.shape[-1] - 1
    along, which = np.unique(place, return_inverse=True)
    ix, iy = which.reshape(place.shape).T
    phase = 2 * np.pi / width * np.outer(along, np.arange(-limit, limit + 1))
    cosine, sine = np.cos(phase), np.sin(phase)
    real, imaginary = (torch.from_numpy(np.concatenate(pair, axis=1)) for pair in ((cosine, sine), (cosine, -sine)))
    across = torch.from_numpy(np.concatenate([cosine[:, limit:], sine[:, limit:]], axis=1).T.copy())
    result = np.empty((*values.shape[:2], len(place)))
    for at in np.ndindex(*values.shape[:2]):
        parts = values[at].real, values[at].imag
        first = steady_product(real, torch.from_numpy(np.concatenate(parts)))
        second = steady_product(imaginary, torch.from_numpy(np.concatenate(parts[::-1])))
        result[at] = steady_product(torch.cat([first, second], dim=1), across).numpy()[iy, ix]
    return result


def _sums(kind: Species, name: str, used: int) -> tuple[np.ndarray, np.ndarray, float]:
    """(half, tilt, ky, kx) Σ_p X* m and Σ_p |m|² on a half plane of frequencies, and the width (Å) they are counted in;
    real and imaginary parts each by itself, whose bits do not depend on threads."""
    settings = kind.source.settings
    points = band_points(settings.box_size, settings.radius_of(kind.resolution), settings.device)
    sums = torch.zeros(3, 2, used, len(points), dtype=torch.float64, device=points.device)
    own = kind.within(name)
    chunks = particle_chunks(own.source, own.particles, weights=own.weights, resolution=own.resolution)
    for _, half, index, images in chunks:
        still = torch.zeros(len(index), 3, dtype=torch.float64, device=images.data.device)
        model = torch.view_as_real(model_images(images, own.grids[half], own.particles.rotation[index], still))
        seen = torch.view_as_real(images.data)
        turned = seen[..., 0] * model[..., 1] - seen[..., 1] * model[..., 0]
        for total, part in zip(sums, ((seen * model).sum(-1), turned, (model * model).sum(-1)), strict=True):
            total[half - 1] += part.double().sum(0)
    limit = int(settings.radius_of(kind.resolution))
    real, imaginary, powers = (_on_plane(total.cpu().numpy(), points.cpu().numpy(), limit) for total in sums)
    return real + 1j * imaginary, powers, settings.box_size * settings.pixel_size


def _on_plane(values: np.ndarray, points: np.ndarray, limit: int) -> np.ndarray:
    """(half, tilt, ky, kx) from (half, tilt, point), ky from -limit to limit, kx from 0."""
    kx, ky = points.astype(int).T
    plane = np.zeros((*values.shape[:2], 2 * limit + 1, limit + 1))
    plane[..., ky + limit, kx] = values
    return plane


def _shifted(tilt_series: TiltSeries, found: Mapping[int, FoundTilt]) -> TiltSeries:
    geometry = tilt_series.geometry
    shift = geometry.shift.astype(float)
    for tilt, own in found.items():
        shift[tilt] += own.moved
    return replace(tilt_series, geometry=replace(geometry, shift=shift))
