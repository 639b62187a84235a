"""Where in a tomogram no particle can be called: at its edges, in gold, on the carbon film.

Gold and carbon are found in means over blocks of half the smallest bead, in robust standard deviations (median and
median absolute deviation) of the tomogram as it is, before anything is clipped.

Excluded places take no part in the search, neither of the template nor of decoys: which of them wins what is left is as
much a matter of chance as before, so that the competition (ops/picking/decoys.py) stays fair.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.special import ndtri
from scipy.stats import qmc

from tiltwise.data.tilt_series import TiltSeries
from tiltwise.data.volume import Volume
from tiltwise.ops.deformation import specimen_in_images
from tiltwise.ops.projection import tilt_widths

REASONS = ("edges", "gold", "carbon")
"""Why a place is excluded; the first that holds is the one that counts."""
_BLOCK = 25.0
"""Å; half the diameter of the smallest beads (50 Å): a bead stands out in a block wherever it lies."""
_EXPECTED_BY_CHANCE = 0.01
"""Blocks of Gaussian noise above the level that noise reaches, in the whole tomogram."""
_MOST_GOLD = 0.002
"""Part of a tomogram that gold may fill: 400 beads of 100 Å in a µm² of 150 nm; molecules that are seen fill more."""
_GOLD_OVER_MOLECULES = 3.0
"""By which gold stands above all else: its mean potential is 25.4 V above that of ice (simulate/solids.py), that of
protein some 3 V, of nucleic acid some 6 V, so four times at least; a quarter of that is left to noise."""
_FROM_FACES = 0.25
"""Particle diameters from the tomogram's faces in which no centre lies. Of a ball whose centre lies there 5/32 is cut
off, so that its score is 0.92 of what it would be; half a diameter cost 3 of 99 particles of a field, all found."""
_FROM_GOLD, _FROM_EDGE = 0.25, 0.5
"""Particle diameters about them in which no centre lies. Gold: a body at least half as wide as long that touches a bead
has its own farther off. Carbon: what is found is the bright fringe on the film's side, and the edge lies beside it."""
_FLAT, _BULK = 400.0, (0.05, 0.95)
"""Å along z that the bulk of a film's edge takes at most, and what of it is the bulk: films are 50 to 200 Å thick, and
the missing wedge draws them to twice that. Nor does it take more than half of the tomogram."""
_FRAME = 200.0
"""Å along the faces where images end, which is no part of the field that an edge cuts in two."""
_LEAST_SIDE = 0.05
"""Part of the field on either side of an edge, at least."""
_GAP, _BESIDE, _STRETCHES = 50.0, 400.0, 8
"""Å about an edge that belong to neither side; Å up to which its sides are compared; and in how many stretches."""
_MOST_UNSEEN = 0.1
"""Part of the tilt range whose images may miss a place: a score grows with the root of what is seen, so that one of 20
falls by 1, the standard deviation of its noise."""
_BELOW_THE_EDGE = 1.25
"""Largest extent of a specimen over what was measured where its profile is a fifth of its top: spheres are 1.12 times
as thick (stages/reconstruct/setup.py, which leaves as much room)."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Exclusion:
    """What is excluded of one tomogram, for particles of one diameter."""

    tilt_series: TiltSeries
    """Aligned; what its used tilts see, and how thick the specimen is."""
    diameter: float
    """Of the particle, Å."""
    shape: tuple[int, int, int]
    """(z, y, x) voxels of the tomogram."""
    voxel_size: float
    """Å."""
    block: int
    """Side of a block, voxels; blocks begin at voxel 0, those that would go beyond the end are left out."""
    gold: np.ndarray
    """(z, y, x) bool, by block."""
    carbon: np.ndarray
    """(z, y, x) bool, by block."""

    def reason(self, position: np.ndarray) -> np.ndarray:
        """(place,) which of REASONS excludes a position (place, 3), Å from the centre; -1 where none does."""
        index = np.round(position[:, ::-1] / self.voxel_size).astype(int) + np.array(self.shape) // 2
        index = tuple(np.clip(index // self.block, 0, np.array(self.gold.shape) - 1).T)
        reason = np.full(len(position), -1)
        held = (self._at_edges(position), self.gold[index] | self._at_beads(position), self.carbon[index])
        for number in reversed(range(len(REASONS))):
            reason[held[number]] = number
        return reason

    def allows(self, position: np.ndarray) -> np.ndarray:
        """(place,) bool: whether a particle may be called at a position (place, 3), Å from the centre."""
        return self.reason(position) < 0

    def parts(self) -> dict[str, float]:
        """Part of the tomogram that each reason excludes, by a Halton sequence of 20 000 places: right to 0.002."""
        sides = np.array(self.shape[::-1]) * self.voxel_size
        places = (qmc.Halton(3, scramble=False).random(20_000) - 0.5) * sides
        held = np.bincount(self.reason(places) + 1, minlength=len(REASONS) + 1)[1:] / len(places)
        return dict(zip(REASONS, held.tolist(), strict=True))

    def _at_edges(self, position: np.ndarray) -> np.ndarray:
        """(place,) bool: cut by a face, outside the specimen, or not seen by enough of the tilts.

        Cut by a face is nearer to it than a quarter of the diameter, or than an eighth of a thin side.
        """
        side = np.array(self.shape[::-1]) * self.voxel_size
        outside = (np.abs(position) > side / 2 - _FROM_FACES * np.minimum(self.diameter, side / 2)).any(axis=1)
        thickness = self.tilt_series.specimen_thickness
        if thickness is not None:
            outside |= np.abs(position[:, 2]) > _BELOW_THE_EDGE * thickness / 2
        return outside | (unseen_part(self.tilt_series, position) > _MOST_UNSEEN)

    def _at_beads(self, position: np.ndarray) -> np.ndarray:
        """(place,) bool: at a bead that the alignment followed."""
        beads = self.tilt_series.beads
        if beads is None or not len(beads.position):
            return np.zeros(len(position), dtype=bool)
        distance, _ = cKDTree(beads.position).query(position)
        return distance <= beads.diameter / 2 + _FROM_GOLD * self.diameter


def exclude(tomogram: Volume, tilt_series: TiltSeries, diameter: float) -> Exclusion:
    """What is excluded of a tomogram, its density (z, y, x) as reconstructed, for particles of a diameter (Å)."""
    block = max(1, int(_BLOCK / tomogram.voxel_size))
    size = block * tomogram.voxel_size
    density = block_means(tomogram.data, block)
    return Exclusion(
        tilt_series=tilt_series,
        diameter=diameter,
        shape=tuple(tomogram.data.shape),
        voxel_size=tomogram.voxel_size,
        block=block,
        gold=_grown(find_gold(density), _FROM_GOLD * diameter / size),
        carbon=_grown(find_carbon_edge(density.cpu().numpy(), size), _FROM_EDGE * diameter / size),
    )


def block_means(data: np.ndarray | torch.Tensor, block: int) -> torch.Tensor:
    """(z, y, x) float32 means of a density over cubes of `block` voxels; one layer of them is read at a time."""
    layers = []
    for first in range(0, len(data) - block + 1, block):
        planes = data[first : first + block]
        planes = planes if isinstance(planes, torch.Tensor) else torch.from_numpy(np.array(planes, np.float32))
        layers.append(torch.nn.functional.avg_pool3d(planes[None, None].float(), block)[0, 0])
    return torch.cat(layers)


def find_gold(density: torch.Tensor) -> np.ndarray:
    """(z, y, x) bool: blocks of a density (z, y, x) that are far denser than noise and molecules are.

    Above `_GOLD_OVER_MOLECULES` times what noise reaches (a Gaussian tail in as many blocks) and what molecules reach
    (the quantile that leaves more than gold can fill), both in standard deviations. Without gold nothing is.
    """
    standard = _standardised(density.cpu().numpy())
    molecules = float(np.quantile(standard, 1 - _MOST_GOLD))
    return standard > _GOLD_OVER_MOLECULES * max(_highest_by_chance(standard.size), molecules)


def find_carbon_edge(density: np.ndarray, size: float) -> np.ndarray:
    """(z, y, x) bool: blocks (`size` Å wide) of a density that are the edge of a carbon film.

    The film itself is hardly seen: what has no texture beyond that of ice, and lies level, is lost with the missing
    wedge and the low frequencies. Its edge is a bright line. Of bodies denser than noise those count that are flat (a
    membrane stands through the ice), cut the field in two (a vesicle does not), and have, in each of eight stretches
    along them, the same side denser than the other (a filament has two like sides: by chance once in 128).
    """
    smooth = _standardised(ndimage.gaussian_filter(density, 1.0))
    level = _highest_by_chance(smooth.size)
    bodies, _ = ndimage.label(smooth > level, np.ones((3, 3, 3)))
    edge, density = np.zeros(density.shape, dtype=bool), np.clip(_standardised(density), -level, level)
    for number, box in enumerate(ndimage.find_objects(bodies), start=1):
        long = max(box[1].stop - box[1].start, box[2].stop - box[2].start)
        if long >= min(density.shape[1:]) / 2 and _is_edge(bodies == number, density, size):
            edge |= bodies == number
    return edge


def _is_edge(body: np.ndarray, density: np.ndarray, size: float) -> bool:
    """Whether a body (z, y, x) is flat, cuts the field in two, and has one side denser all along."""
    low, high = np.quantile(np.nonzero(body)[0], _BULK).astype(int)
    if (high - low + 1) * size > min(_FLAT, body.shape[0] * size / 2):
        return False
    frame = max(1, min(math.ceil(_FRAME / size), min(body.shape[1:]) // 4))
    inner = (slice(frame, -frame), slice(frame, -frame))
    distance = ndimage.distance_transform_edt(~body[low : high + 1].any(axis=0))[inner] * size
    sides, _ = ndimage.label(distance > _GAP)
    sizes = np.bincount(sides.ravel())[1:]
    if (sizes > _LEAST_SIDE * distance.size).sum() != 2:
        return False
    layer, along = density[low : high + 1].mean(axis=0)[inner], _along(distance == 0)
    near = [(sides == n + 1) & (distance < _BESIDE) for n in np.flatnonzero(sizes > _LEAST_SIDE * distance.size)]
    first, last = max(along[side].min() for side in near), min(along[side].max() for side in near)
    stretch = np.floor((along - first) / max(last - first, 1.0) * _STRETCHES).astype(int)
    both = [[side & (stretch == n) for side in near] for n in range(_STRETCHES)]
    if not all(part.any() for parts in both for part in parts):
        return False
    step = np.array([layer[one].mean() - layer[other].mean() for one, other in both])
    return bool((step > 0).all() or (step < 0).all())


def _along(line: np.ndarray) -> np.ndarray:
    """(y, x) how far each place lies in the direction in which a line, a boolean array, is longest."""
    points = np.argwhere(line)
    direction = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][0]
    return np.moveaxis(np.indices(line.shape), 0, -1) @ direction


def _highest_by_chance(number: int) -> float:
    """Standard deviations that Gaussian noise exceeds in `_EXPECTED_BY_CHANCE` of a number of places."""
    return -float(ndtri(_EXPECTED_BY_CHANCE / number))


def unseen_part(tilt_series: TiltSeries, position: np.ndarray) -> np.ndarray:
    """(place,) part of the range of the used tilts in whose images a position (place, 3), Å, does not lie."""
    tilts = np.flatnonzero(tilt_series.use)
    widths = tilt_widths(tilt_series.geometry.tilt_angle[tilts])
    half = np.array(tilt_series.image_shape[::-1]) * tilt_series.pixel_size / 2
    place, _ = specimen_in_images(tilt_series, position, tilts)
    missed = (np.abs(place) > half).any(axis=-1)
    return widths @ missed / widths.sum()


def _standardised(values: np.ndarray) -> np.ndarray:
    """Values in standard deviations from their median, both robust."""
    median = np.median(values)
    return (values - median) / max(1.4826 * float(np.median(np.abs(values - median))), np.finfo(np.float32).tiny)


def _grown(core: np.ndarray, reach: float) -> np.ndarray:
    """Boolean array: what lies within `reach` (voxels) of a core."""
    return ndimage.distance_transform_edt(~core) <= reach if core.any() else core
