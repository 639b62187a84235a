"""Where in a tomogram templates lie and how they are turned: a coarse search everywhere, a fine one at places.

Several templates are tried at the same places, so that they can compete there (ops/picking/decoys.py):
`match_everywhere` and `candidates` for each, then `scout` and `climb` for each at the places of all.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from tiltwise.ops.filters import low_pass
from tiltwise.ops.fourier import fourier_rescale
from tiltwise.ops.masks import soft_sphere
from tiltwise.ops.moments import slabs
from tiltwise.ops.peaks import keep_separate, local_maxima, parabola_offset
from tiltwise.ops.picking import matching
from tiltwise.ops.picking.exclusion import REASONS, Exclusion
from tiltwise.ops.picking.places import gather_around, score_around
from tiltwise.ops.picking.tiles import WORK_BYTES, plan_tiles
from tiltwise.ops.rotations import rotation_grid
from tiltwise.ops.steady import steady_rfftn

_OVERSAMPLING = 2
"""Voxels of the turned reference to one of a template."""
_BOX = 1.4
"""Side of the boxes in particle diameters: room for the template and for power spectra of the tomogram."""
_POWER_FLOOR = 0.02
"""Least noise power, as a part of its median over the band: the tomogram's own filters leave nothing to divide by."""
_MOST_TEMPLATES = 8192
"""Multiplied at once: more need no less time."""
_WORDS = 5
"""Of 4 bytes for a sample at a place: its value and, where no compiled loop gathers it, its index twice."""
_STEPS = 2
"""Of a climb, each to the best of 27 voxels."""
_STARTS = 4
"""Places about a hit, each with its best turn, from which to climb."""
_CANDIDATES = 4000
"""Most peaks of the coarse search that are looked at again."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Hits:
    """Places where a template scored."""

    position: torch.Tensor
    """(hit, 3) x, y, z from the tomogram centre, Å."""
    rotation: torch.Tensor
    """(hit, 3, 3) reference to tomogram."""
    score: torch.Tensor
    """(hit,) in standard deviations of the noise."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Level:
    """A tomogram made ready for matching at one sampling."""

    filtered: torch.Tensor
    """Y (z, y, x)."""
    weight: torch.Tensor
    """W on the half grid of a box."""
    spread: torch.Tensor
    """(z, y, x) local spread of the whitened tomogram, at least 1."""
    voxel_size: float
    """Å."""
    side: int
    """Voxels of a box side."""
    diameter: float
    """Particle diameter, Å."""
    step: float
    """Degrees between rotations: their arc at the rim is the finest spacing used."""


def prepare_level(
    tomogram: torch.Tensor, voxel_size: float, transfer: matching.TiltTransfer, diameter: float, step: float
) -> Level:
    """Shrink, whiten and filter a tomogram (z, y, x) for templates of this diameter (Å) turned in this step (degrees).

    Spacings from twice the diameter to the arc of one step at the rim, or to what the tomogram holds, are used.
    """
    finest = _finest(voxel_size, diameter, step)
    volume, voxel_size = shrink_volume(tomogram, voxel_size, finest / 2)
    side = _box_side(tuple(volume.shape), voxel_size, diameter)
    box = (side,) * 3
    k = matching.frequency_vectors(box, voxel_size, volume.device).norm(dim=-1)
    band = ((k > 1 / (2 * diameter)) & (k < 1 / finest)).float()
    power = matching.box_power(volume, side)
    power = power.clamp_min(_POWER_FLOOR * power[band > 0].median())
    passed = matching.box_transfer(transfer, box, voxel_size) * band
    white = matching.filter_by_box_response(volume, band / power.sqrt())
    spread = matching.local_spread(white, side, diameter / 2 / voxel_size)
    del white  # the filtered volume takes its place
    return Level(
        filtered=matching.filter_by_box_response(volume, passed / power),
        weight=passed**2 / power,
        spread=spread,
        voxel_size=voxel_size,
        side=side,
        diameter=diameter,
        step=step,
    )


def level_sampling(
    shape: tuple[int, int, int], voxel_size: float, diameter: float, step: float
) -> tuple[tuple[int, int, int], float, int]:
    """Shape (z, y, x) and voxel (Å) of the level that `prepare_level` makes of such a tomogram, and its boxes' side."""
    ratio = _shrinking(voxel_size, _finest(voxel_size, diameter, step) / 2)
    small = tuple(-(-n // ratio.numerator) * ratio.denominator for n in shape)
    return small, voxel_size * float(ratio), _box_side(small, voxel_size * float(ratio), diameter)


def shrink_volume(volume: torch.Tensor, voxel_size: float, wanted: float) -> tuple[torch.Tensor, float]:
    """Fourier-crop a volume to a voxel near and not above the wanted one, by one ratio of small whole numbers.

    Zeros are added about the centre n // 2 where a side is no multiple of the ratio's numerator. Planes first, then
    across them, some at a time, so that no more is held than the volume of shrunk planes. The volume itself where
    there is nothing to shrink.
    """
    ratio = _shrinking(voxel_size, wanted)
    if ratio == 1:
        return volume, voxel_size
    padded = [-(-n // ratio.numerator) * ratio.numerator for n in volume.shape]
    small = tuple(m // ratio.numerator * ratio.denominator for m in padded)
    top, y, x = (m // 2 - n // 2 for n, m in zip(volume.shape, padded, strict=True))
    frame = (x, padded[2] - volume.shape[2] - x, y, padded[1] - volume.shape[1] - y)
    planes = volume.new_zeros(padded[0], *small[1:])
    for part in slabs(volume.shape):
        inside = slice(top + part.start, top + part.stop)
        planes[inside] = fourier_rescale(torch.nn.functional.pad(volume[part], frame), small[1:])
    result = volume.new_empty(small)
    for rows in slabs((small[1], padded[0], small[2])):
        result[:, rows] = fourier_rescale(planes[:, rows].movedim(0, 2), small[:1]).movedim(2, 0)
    return result, voxel_size * float(ratio)


def _shrinking(voxel_size: float, wanted: float) -> Fraction:
    return max(Fraction(1), Fraction(math.floor(8 * wanted / voxel_size + 1e-6), 8))


def _finest(voxel_size: float, diameter: float, step: float) -> float:
    """Finest spacing used, Å: the arc of one step (degrees) at the rim, or what the tomogram holds."""
    return max(2 * voxel_size, math.radians(step) * diameter / 2)


def _box_side(shape: tuple[int, int, int], voxel_size: float, diameter: float) -> int:
    return min(2 * math.ceil(_BOX * diameter / voxel_size / 2), *shape)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CoarseMap:
    """One template matched at every voxel of a level."""

    score: torch.Tensor
    """(z, y, x) of its best turn, in standard deviations of the noise."""
    which: torch.Tensor
    """(z, y, x) number of that turn."""
    turns: torch.Tensor
    """(turn, 3, 3) reference to tomogram."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scouted:
    """Where about each place a template scored best, a few starts for each, the best first."""

    index: torch.Tensor
    """(place, start, 3) voxels."""
    rotation: torch.Tensor
    """(place, start, 3, 3)."""
    score: torch.Tensor
    """(place, start)."""


def match_everywhere(level: Level, reference: torch.Tensor, voxel_size: float, symmetry: str) -> CoarseMap:
    """Match a reference (cube of voxel_size Å, density positive) in all turns at every voxel."""
    turns, oversampled = (
        rotation_grid(level.step, symmetry, reference.device),
        _oversampled(level, reference, voxel_size),
    )
    tiling = plan_tiles(tuple(level.filtered.shape), level.side)
    blocks = (_scaled_templates(level, oversampled, some) for some in turns.split(tiling.kernels))
    score, which = matching.correlate_everywhere(level.filtered, blocks, tiling)
    return CoarseMap(score=score, which=which, turns=turns)


def resemblance(level: Level, first: torch.Tensor, second: torch.Tensor, voxel_size: float, symmetry: str) -> float:
    """Highest correlation of a reference, as it stands, with all turns of a second one (cubes of voxel_size Å), as the
    level weighs them: a particle that scores s with the first scores at least this part of s with the second.

    The turns are those of the part that `symmetry` leaves of all rotations, in twice the step of the level.
    """
    inside, unturned = _inside(level), torch.eye(3, dtype=torch.float64, device=first.device)[None]
    box = torch.zeros((level.side,) * 3, device=first.device)
    box[inside] = _flat_templates(level, _oversampled(level, first, voxel_size), unturned, inside)[0]
    weighed = torch.fft.irfftn(steady_rfftn(box) * level.weight, s=box.shape)[inside]
    other, grid = _oversampled(level, second, voxel_size), rotation_grid(2 * level.step, symmetry, first.device)
    parts = torch.cat([unturned.to(grid), grid]).split(at_once(int(inside.sum()))[0])
    return max(float((_flat_templates(level, other, part, inside) @ weighed).max()) for part in parts)


def candidates(level: Level, coarse: CoarseMap, exclusion: Exclusion) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(place, 3) Å from the centre and (place,) scores of a template's peaks that are worth a second look.

    And (reason,) how many as good ones each reason of the exclusion leaves out.
    """
    index, value = local_maxima(coarse.score, 1, 10 * _CANDIDATES)
    value = value / level.spread[tuple(index.T)]
    position, value = _position(level, index).cpu().numpy(), value.double().cpu().numpy()
    reason = exclusion.reason(position)
    if (reason >= 0).all():
        return np.zeros((0, 3)), np.zeros(0), np.zeros(len(REASONS), dtype=int)
    best = np.flatnonzero(reason < 0)
    best = best[_candidates(position[best], value[best], level.diameter)]
    as_good = np.flatnonzero((reason >= 0) & (value >= value[best].min()))
    as_good = as_good[keep_separate(position[as_good], value[as_good], level.diameter / 4)]
    return position[best], value[best], np.bincount(reason[as_good], minlength=len(REASONS))


def _candidates(position: np.ndarray, score: np.ndarray, diameter: float) -> np.ndarray:
    """Peaks worth a second look: all that reach the best quarter of those half a diameter apart.

    Particles are a whole diameter apart, so about one in eight of such peaks is one at most. A coarse side peak may
    outdo the true one beside it, so peaks down to a quarter of the diameter apart are looked at.
    """
    apart = keep_separate(position, score, diameter / 2)
    least = score[apart[math.ceil(len(apart) / 4) - 1]]
    near = keep_separate(position, score, diameter / 4)
    return near[score[near] >= least][:_CANDIDATES]


def scout(
    levels: tuple[Level, Level],
    coarse: CoarseMap,
    position: np.ndarray,
    reference: tuple[torch.Tensor, float],
    symmetry: str,
) -> Scouted:
    """Every turn of the finer level at eight places about each position (place, 3), Å; the best starts for a climb.

    reference is the cube and its voxel size in Å. A coarse peak may stand off by a quarter of the diameter, with a
    turn to suit, where another place and turn would be far better; hence the places, one of them climbed to with the
    coarse turn.
    """
    first, level = levels
    oversampled = _oversampled(level, *reference)
    points = torch.as_tensor(position, device=level.filtered.device)
    nearest = _nearest(first, points)
    turn = coarse.turns[coarse.which[tuple(nearest.T)].long()]
    places = _places_about(level, points)
    places = torch.cat([places, _climb(level, places[:, 0], turn, oversampled)[0][:, None]], dim=1)
    grid = rotation_grid(level.step, symmetry, reference[0].device)
    rotation, score = _best_rotation(level, places.flatten(0, 1), oversampled, grid)
    score, rows = score.reshape(places.shape[:2]).topk(_STARTS, dim=1)
    rows = rows + places.shape[1] * torch.arange(len(places), device=rows.device)[:, None]
    return Scouted(index=places.flatten(0, 1)[rows], rotation=rotation[rows], score=score)


def climb(level: Level, scouted: Scouted, chosen: torch.Tensor, reference: tuple[torch.Tensor, float]) -> Hits:
    """The best of the climbs from the starts of the chosen places (an index tensor), in their order.

    Positions are refined between voxels.
    """
    oversampled = _oversampled(level, *reference)
    rotation = scouted.rotation[chosen].flatten(0, 1)
    index, scores = _climb(level, scouted.index[chosen].flatten(0, 1), rotation, oversampled)
    middle = scores[:, 1, 1, 1].reshape(len(chosen), _STARTS)
    end = middle.argmax(1) + _STARTS * torch.arange(len(chosen), device=index.device)
    index, rotation, scores = index[end], rotation[end], scores[end]
    lines = (scores[:, :, 1, 1], scores[:, 1, :, 1], scores[:, 1, 1, :])
    offset = torch.stack([parabola_offset(*line.T) for line in lines], dim=1)
    score = scores[:, 1, 1, 1] / level.spread[tuple(index.T)]
    return Hits(position=_position(level, index + offset), rotation=rotation, score=score)


def _position(level: Level, index: torch.Tensor) -> torch.Tensor:
    centre = torch.tensor([n // 2 for n in level.filtered.shape], device=index.device)
    return ((index - centre).flip(1) * level.voxel_size).double()


def _nearest(level: Level, position: torch.Tensor) -> torch.Tensor:
    """(place, 3) voxel indices nearest to positions, Å."""
    shape = torch.tensor(level.filtered.shape, device=position.device)
    index = (position.flip(1) / level.voxel_size).round().long() + shape // 2
    return torch.minimum(index.clamp_min(0), shape - 1)


def _places_about(level: Level, position: torch.Tensor) -> torch.Tensor:
    """(place, 7, 3) voxels: the nearest one, and the six an eighth of the diameter off along the axes."""
    shape = torch.tensor(level.filtered.shape, device=position.device)
    reach = max(1, round(level.diameter / 8 / level.voxel_size))
    steps = torch.cat([torch.zeros(1, 3), torch.eye(3), -torch.eye(3)]).to(shape) * reach
    return torch.minimum((_nearest(level, position)[:, None] + steps).clamp_min(0), shape - 1)


def _oversampled(level: Level, reference: torch.Tensor, voxel_size: float) -> tuple[torch.Tensor, float]:
    """The reference low-passed to what the level uses, at about half of its voxel, and the ratio of the two voxels."""
    finest = math.radians(level.step) * level.diameter / 2
    reference = reference - reference.mean()
    if finest > 2 * voxel_size:
        reference = low_pass(reference, finest, voxel_size)
    wanted = level.voxel_size / _OVERSAMPLING
    number = 2 * math.ceil(min(1.0, voxel_size / wanted) * reference.shape[0] / 2)
    own = reference.shape[0] * voxel_size / number
    return fourier_rescale(reference, (number,) * 3), level.voxel_size / own


def at_once(points: int) -> tuple[int, int]:
    """How many templates of so many points, and how many places, are multiplied at once: a quarter of the bytes of work
    for the templates, a quarter for samples at places and their products with them.

    Templates are made once, samples are gathered anew for each lot of them, which is quick beside the products.
    """
    part = WORK_BYTES / 4 / 4
    templates = min(max(1, int(part / points)), _MOST_TEMPLATES)
    return templates, max(1, int(part / (_WORDS * points + templates)))


def _climb(
    level: Level, index: torch.Tensor, rotation: torch.Tensor, reference: tuple[torch.Tensor, float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each hit (hit, 3) moved twice to the best of 27 voxels, and (hit, 3, 3, 3) the scores about where it ends.

    Hits that share a rotation share its template.
    """
    inside, index = _inside(level), index.clone()
    offsets = torch.nonzero(inside) - level.side // 2
    scores = torch.empty(len(index), 27, device=index.device)
    shape = torch.tensor(level.filtered.shape, device=index.device)
    turns, own = torch.unique(rotation.reshape(-1, 9), dim=0, return_inverse=True)
    number, places = at_once(len(offsets))
    for start in range(0, len(turns), number):
        some = turns[start : start + number].reshape(-1, 3, 3)
        templates = _flat_templates(level, reference, some, inside)
        for rows in torch.nonzero((own >= start) & (own < start + len(some))).flatten().split(places):
            place, which = index[rows], own[rows] - start
            around = score_around(level.filtered, place, offsets, templates, which)
            for _ in range(_STEPS):
                best = around.argmax(1)
                place = place + torch.stack([best // 9 - 1, best // 3 % 3 - 1, best % 3 - 1], dim=1)
                place = torch.minimum(place.clamp_min(0), shape - 1)
                around = score_around(level.filtered, place, offsets, templates, which)
            index[rows], scores[rows] = place, around
    return index, scores.reshape(-1, 3, 3, 3)


def _inside(level: Level) -> torch.Tensor:
    """Boolean box (z, y, x) of the sphere that holds a template."""
    box = (level.side,) * 3
    return soft_sphere(box, level.diameter / 2 / level.voxel_size, 1.5, level.filtered.device) > 0


def _scaled_templates(level: Level, reference: tuple[torch.Tensor, float], rotations: torch.Tensor) -> torch.Tensor:
    """(rotation, side, side, side) templates over their norms."""
    templates = matching.rotated_templates(*reference, rotations, level.side, level.diameter / 2 / level.voxel_size)
    return templates / matching.template_norms(templates, level.weight)[:, None, None, None]


def _flat_templates(
    level: Level, reference: tuple[torch.Tensor, float], rotations: torch.Tensor, inside: torch.Tensor
) -> torch.Tensor:
    """(rotation, point) templates over their norms, their points `inside` the box; boxes are made some at a time."""
    result = torch.empty(len(rotations), int(inside.sum()), device=inside.device)
    number = matching.boxes_at_once(level.side)
    for some, flat in zip(rotations.split(number), result.split(number), strict=True):
        flat[:] = _scaled_templates(level, reference, some)[:, inside]
    return result


def _best_rotation(
    level: Level, index: torch.Tensor, reference: tuple[torch.Tensor, float], rotations: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(hit, 3, 3) the rotation of the highest score at each voxel, and the score: hits times rotations as products."""
    inside = _inside(level)
    offsets = torch.nonzero(inside) - level.side // 2
    best = torch.full((len(index),), -torch.inf, device=index.device)
    which = torch.zeros(len(index), dtype=torch.long, device=index.device)
    number, places = at_once(len(offsets))
    for start in range(0, len(rotations), number):
        templates = _flat_templates(level, reference, rotations[start : start + number], inside)
        for rows in torch.arange(len(index), device=index.device).split(places):
            score, row = (gather_around(level.filtered, index[rows], offsets) @ templates.T).max(1)
            which[rows] = torch.where(score > best[rows], row + start, which[rows])
            best[rows] = torch.maximum(best[rows], score)
    return rotations[which], best
