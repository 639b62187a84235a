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
from tiltwise.ops.kernels.template_search import score_around
from tiltwise.ops.masks import soft_sphere
from tiltwise.ops.peaks import keep_separate, local_maxima, parabola_offset
from tiltwise.ops.picking import matching
from tiltwise.ops.picking.exclusion import REASONS, Exclusion
from tiltwise.ops.rotations import rotation_grid

_OVERSAMPLING = 2
"""Voxels of the turned reference to one of a template."""
_BOX = 1.4
"""Side of the boxes in particle diameters: room for the template and for power spectra of the tomogram."""
_POWER_FLOOR = 0.02
"""Least noise power, as a part of its median over the band: the tomogram's own filters leave nothing to divide by."""
_TEMPLATES_AT_ONCE = 512
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
    finest = max(2 * voxel_size, math.radians(step) * diameter / 2)
    volume, voxel_size = shrink_volume(tomogram, voxel_size, finest / 2)
    side = 2 * math.ceil(_BOX * diameter / voxel_size / 2)
    side = min(side, min(volume.shape))
    box = (side,) * 3
    k = matching.frequency_vectors(box, voxel_size, volume.device).norm(dim=-1)
    band = ((k > 1 / (2 * diameter)) & (k < 1 / finest)).float()
    power = matching.box_power(volume, side)
    power = power.clamp_min(_POWER_FLOOR * power[band > 0].median())
    passed = matching.box_transfer(transfer, box, voxel_size) * band
    white = matching.filter_by_box_response(volume, band / power.sqrt())
    return Level(
        filtered=matching.filter_by_box_response(volume, passed / power),
        weight=passed**2 / power,
        spread=matching.local_spread(white, side, diameter / 2 / voxel_size),
        voxel_size=voxel_size,
        side=side,
        diameter=diameter,
        step=step,
    )


def shrink_volume(volume: torch.Tensor, voxel_size: float, wanted: float) -> tuple[torch.Tensor, float]:
    """Fourier-crop a volume to a voxel near and not above the wanted one, by one ratio of small whole numbers.

    Zeros are added about the centre n // 2 where a side is no multiple of the ratio's numerator.
    """
    ratio = max(Fraction(1), Fraction(math.floor(8 * wanted / voxel_size + 1e-6), 8))
    padded = [-(-n // ratio.numerator) * ratio.numerator for n in volume.shape]
    before = [m // 2 - n // 2 for n, m in zip(volume.shape, padded, strict=True)]
    box = torch.zeros(padded, device=volume.device)
    box[tuple(slice(b, b + n) for b, n in zip(before, volume.shape, strict=True))] = volume
    small = tuple(m // ratio.numerator * ratio.denominator for m in padded)
    return fourier_rescale(box, small), voxel_size * float(ratio)


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
    turns = rotation_grid(level.step, symmetry, reference.device)
    templates = _templates(level, reference, voxel_size, turns)
    score, which = matching.correlate_everywhere(
        level.filtered, templates, matching.template_norms(templates, level.weight)
    )
    return CoarseMap(score=score, which=which, turns=turns)


def resemblance(level: Level, first: torch.Tensor, second: torch.Tensor, voxel_size: float, symmetry: str) -> float:
    """Highest correlation of a reference, as it stands, with all turns of a second one (cubes of voxel_size Å), as the
    level weighs them: a particle that scores s with the first scores at least this part of s with the second.

    The turns are those of the part that `symmetry` leaves of all rotations, in twice the step of the level.
    """
    inside, unturned = _Values(level).inside, torch.eye(3, dtype=torch.float64, device=first.device)[None]
    box = torch.zeros((level.side,) * 3, device=first.device)
    box[inside] = _flat_templates(level, _oversampled(level, first, voxel_size), unturned, inside)[0]
    weighed = torch.fft.irfftn(torch.fft.rfftn(box) * level.weight, s=box.shape)[inside]
    other, grid = _oversampled(level, second, voxel_size), rotation_grid(2 * level.step, symmetry, first.device)
    parts = torch.cat([unturned.to(grid), grid]).split(_TEMPLATES_AT_ONCE)
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


def _templates(level: Level, reference: torch.Tensor, voxel_size: float, rotations: torch.Tensor) -> torch.Tensor:
    data, ratio = _oversampled(level, reference, voxel_size)
    radius = level.diameter / 2 / level.voxel_size
    return matching.rotated_templates(data, ratio, rotations, level.side, radius)


def _climb(
    level: Level, index: torch.Tensor, rotation: torch.Tensor, reference: tuple[torch.Tensor, float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each hit (hit, 3) moved twice to the best of 27 voxels, and (hit, 3, 3, 3) the scores about where it ends.

    Hits that share a rotation share its template.
    """
    values, index = _Values(level), index.clone()
    scores = torch.empty(len(index), 27, device=index.device)
    shape = torch.tensor(level.filtered.shape, device=index.device)
    turns, own = torch.unique(rotation.reshape(-1, 9), dim=0, return_inverse=True)
    for start in range(0, len(turns), _TEMPLATES_AT_ONCE):
        some = turns[start : start + _TEMPLATES_AT_ONCE].reshape(-1, 3, 3)
        templates = _flat_templates(level, reference, some, values.inside)
        rows = torch.nonzero((own >= start) & (own < start + len(some))).flatten()
        place, which = index[rows], own[rows] - start
        around = values.around(place, templates, which)
        for _ in range(_STEPS):
            best = around.argmax(1)
            place = place + torch.stack([best // 9 - 1, best // 3 % 3 - 1, best % 3 - 1], dim=1)
            place = torch.minimum(place.clamp_min(0), shape - 1)
            around = values.around(place, templates, which)
        index[rows], scores[rows] = place, around
    return index, scores.reshape(-1, 3, 3, 3)


def _flat_templates(
    level: Level, reference: tuple[torch.Tensor, float], rotations: torch.Tensor, inside: torch.Tensor
) -> torch.Tensor:
    """(rotation, point) templates over their norms, their points `inside` the box."""
    radius = level.diameter / 2 / level.voxel_size
    templates = matching.rotated_templates(*reference, rotations, level.side, radius)
    return templates[:, inside] / matching.template_norms(templates, level.weight)[:, None]


def _best_rotation(
    level: Level, index: torch.Tensor, reference: tuple[torch.Tensor, float], rotations: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(hit, 3, 3) the rotation of the highest score at each voxel, and the score: hits times rotations as products."""
    values = _Values(level)
    data, inside = values.at(index), values.inside
    best = torch.full((len(index),), -torch.inf, device=index.device)
    which = torch.zeros(len(index), dtype=torch.long, device=index.device)
    for start in range(0, len(rotations), _TEMPLATES_AT_ONCE):
        templates = _flat_templates(level, reference, rotations[start : start + _TEMPLATES_AT_ONCE], inside)
        score, row = (data @ templates.T).max(1)
        which = torch.where(score > best, row + start, which)
        best = torch.maximum(best, score)
    return rotations[which], best


class _Values:
    """Samples of Y in the sphere that holds a template, about any voxel; Y is periodic, as in the search everywhere."""

    def __init__(self, level: Level) -> None:
        device, self._margin = level.filtered.device, level.side // 2 + 2
        self.inside = soft_sphere((level.side,) * 3, level.diameter / 2 / level.voxel_size, 1.5, device) > 0
        padded = torch.nn.functional.pad(level.filtered[None, None], (self._margin,) * 6, mode="circular")[0, 0]
        self._strides = torch.tensor(padded.stride(), device=device)
        self._offsets = (torch.nonzero(self.inside) - level.side // 2) @ self._strides
        self._flat = padded.reshape(-1)

    def at(self, index: torch.Tensor) -> torch.Tensor:
        """(hit, point) samples about voxels (hit, 3), which may lie up to 2 outside."""
        return self._flat[((index + self._margin) @ self._strides)[:, None] + self._offsets]

    def around(self, index: torch.Tensor, templates: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """(hit, 27) products of template `which` (hit,) of (template, point) with the samples about voxels (hit, 3) and
        their neighbours, z slowest."""
        if index.device.type != "cpu":
            return self._around_plain(index, templates, which)
        result = torch.empty(len(index), 27)
        start = (index + self._margin) @ self._strides
        arrays = (self._flat, start, self._offsets, self._strides, templates.contiguous(), which)
        score_around(*(array.numpy() for array in arrays), result.numpy())
        return result

    def _around_plain(self, index: torch.Tensor, templates: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """The plain twin of kernels.template_search.score_around, on any device."""
        steps = torch.cartesian_prod(*[torch.arange(-1, 2, device=index.device)] * 3)
        own = templates[which]
        return torch.stack([(self.at(index + step) * own).sum(1) for step in steps], dim=1)
