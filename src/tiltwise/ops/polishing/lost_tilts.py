"""Tilts that are lost, searched for on the images of all their particles.

The quadratics of `ops.poses.terms` see no farther than about a quarter of the finest spacing compared. A tilt that
stands farther off matches nothing: its amplitude falls, and no block brings it back; what is worse, its angles and its
warp are then fitted to what is none of it. So every used tilt is searched for exhaustively: from where it stands, and
from what it was given, in the deformed specimen, without what was fitted to this tilt alone. With the whitened images
X_v and the models m_v of its particles under either geometry v, poses as they are, a shift t (Å) that all share gives

    C_v(t) = Σ_p Σ_k Re(X_v* m_v exp(-2 pi i k·t)),

and gains C_v(t) - C(0) in log likelihood, C as it stands: |m|² does not change. The noise of the images alone gives
that a variance of D(t) = Σ |m|² |exp(-2 pi i k·t) - 1|² from where it stands, whatever the tilt holds, and of
D_v = Σ |m|² + Σ |m_v|² otherwise, or less, where crops overlap. In the ratio of gain and deviation the amplitude of m
cancels, so that a tilt which was weighed down is found as well.

The gate: where the particles of one half set put the tilt, the other must gain three standard deviations, both ways.
Then it goes to where both together put it; if that is within half of the finest spacing of where it stands, it is left
to the block of the shifts, which lets poses follow. Each half is compared with its own reference, which holds some of
its particles' own noise, from where they stand: that holds a tilt where it is, and never draws it away.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.held_out import SIGNIFICANT
from tiltwise.ops.particles.chunks import particle_chunks
from tiltwise.ops.particles.tilt_weights import model_images
from tiltwise.ops.polishing.geometry_blocks import Block, Seen, see_particles
from tiltwise.ops.polishing.geometry_change import change_geometry, geometry_blocks
from tiltwise.ops.polishing.geometry_refinement import LADDER, GeometrySoFar
from tiltwise.ops.polishing.species import Species

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

    @property
    def accepted(self) -> bool:
        """Both halves gain, and more than chance would give them."""
        return all(gain > chance for gain, chance in zip(self.gain, self.chance, strict=True))

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
    fitted = _Fitted.of(series, [block for block in LADDER if block in blocks], known)
    every = np.arange(int(series.use.sum()))
    variants = [series] if known is None or not known.joint.any() else [series, fitted.without(every)]
    finest = min(kind.resolution for kind in species)
    reach = _REACH * min(kind.source.settings.box_size * kind.source.settings.pixel_size for kind in species)
    place = _shifts(_STEP * finest, reach)
    gain, variance = (np.stack(parts, axis=2) for parts in zip(*_profiles(species, variants, place), strict=True))
    found = {}
    for number, tilt in enumerate(np.flatnonzero(series.use)):
        own, best = _judged(gain[:, number], variance[:, number], place)
        if own.accepted and (own.as_given or np.hypot(*place[best]) > _NEAR * finest):
            found[number] = int(tilt), own
    if not found:
        return TiltSearch(tilt_series=series, so_far=known, found={})
    again = np.array([number for number, (_, own) in found.items() if own.as_given], int)
    by_tilt = dict(found.values())
    changed = _shifted(fitted.without(again), by_tilt)
    return TiltSearch(tilt_series=changed, so_far=fitted.so_far_without(again), found=by_tilt)


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

    def so_far_without(self, tilts: np.ndarray) -> GeometrySoFar | None:
        """What is known, without what is these tilts' own."""
        if self.known is None:
            return None
        kept = ~self._own(tilts)
        halves = {half: kept * fit for half, fit in self.known.by_half.items()}
        return replace(self.known, joint=kept * self.known.joint, by_half=halves)

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


def _judged(gain: np.ndarray, variance: np.ndarray, place: np.ndarray) -> tuple[FoundTilt, int]:
    """Where both halves together put a tilt, judged by where each puts it; and the number of that shift. gain, variance
    (half, variant, shift); place (shift, 2)."""
    best, first, second = (int(one.argmax()) for one in (gain.sum(axis=0), *gain))
    gain, variance = gain.reshape(2, -1), variance.reshape(2, -1)
    asked = ((0, second), (1, first))
    variant, shift = divmod(best, len(place))
    found = FoundTilt(
        moved=(float(place[shift, 0]), float(place[shift, 1])),
        gain=tuple(float(gain[at]) for at in asked),
        chance=tuple(SIGNIFICANT * float(np.sqrt(variance[at])) for at in asked),
        as_given=variant > 0,
    )
    return found, shift


def _profiles(
    species: Sequence[Species], variants: Sequence[TiltSeries], place: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(half, used tilt, shift) gain and variance under each variant, of which the first is the series as it stands."""
    used = int(variants[0].use.sum())
    stands = np.zeros((2, used, 1)), np.zeros((2, used, 1))
    for number, variant in enumerate(variants):
        cross, power, still = (np.zeros((2, used, len(place))) for _ in range(3))
        for kind in species:
            products, powers, width = _sums(kind.with_series(variant), variant.name, used)
            cross += _at_shifts(products, place, width)
            power += _at_shifts(powers, place, width)
            still += powers.sum(axis=(-2, -1))[..., None]
        if number == 0:
            stands = cross[..., :1], still[..., :1]
            yield cross - stands[0], (2 * (still - power)).clip(0)
        else:
            yield cross - stands[0], still + stands[1]


def _at_shifts(values: np.ndarray, place: np.ndarray, width: float) -> np.ndarray:
    """(half, tilt, shift) Σ_k Re(values exp(-2 pi i k·t)), along y, then x, on the grid that the shifts are part of."""
    limit = values.shape[-1] - 1
    along, which = np.unique(place, return_inverse=True)
    ix, iy = which.reshape(place.shape).T
    y = np.exp(-2j * np.pi / width * np.outer(along, np.arange(-limit, limit + 1)))
    x = np.exp(-2j * np.pi / width * np.outer(np.arange(limit + 1), along))
    return (y @ values @ x).real[..., iy, ix]


def _sums(kind: Species, name: str, used: int) -> tuple[np.ndarray, np.ndarray, float]:
    """(half, tilt, ky, kx) Σ_p X* m and Σ_p |m|² on a half plane of frequencies, and the width (Å) they are counted in;
    real and imaginary parts each by itself, whose bits do not depend on threads."""
    settings = kind.source.settings
    limit = int(settings.radius_of(kind.resolution))
    products = np.zeros((2, used, 2 * limit + 1, limit + 1), complex)
    powers = np.zeros(products.shape)
    own = kind.within(name)
    chunks = particle_chunks(own.source, own.particles, weights=own.weights, resolution=own.resolution)
    for _, half, index, images in chunks:
        still = torch.zeros(len(index), 3, dtype=torch.float64, device=images.data.device)
        model = torch.view_as_real(model_images(images, own.grids[half], own.particles.rotation[index], still))
        seen = torch.view_as_real(images.data)
        real, imaginary = (seen * model).sum(-1), seen[..., 0] * model[..., 1] - seen[..., 1] * model[..., 0]
        kx, ky = images.points.cpu().numpy().astype(int).T
        products[half - 1][:, ky + limit, kx] += _added(real) + 1j * _added(imaginary)
        powers[half - 1][:, ky + limit, kx] += _added((model * model).sum(-1))
    return products, powers, settings.box_size * settings.pixel_size


def _added(values: torch.Tensor) -> np.ndarray:
    """(tilt, point) sums over the particles of (particle, tilt, point)."""
    return values.double().sum(0).cpu().numpy()


def _shifted(tilt_series: TiltSeries, found: Mapping[int, FoundTilt]) -> TiltSeries:
    geometry = tilt_series.geometry
    shift = geometry.shift.astype(float)
    for tilt, own in found.items():
        shift[tilt] += own.moved
    return replace(tilt_series, geometry=replace(geometry, shift=shift))
