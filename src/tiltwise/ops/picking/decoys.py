"""Decoys for template matching: what the template would be if it were another molecule, and who wins where.

A threshold is worth what its null hypothesis is. Against noise a template of random phases would do; but what a
template finds by mistake are other molecules, compact and dense as it is itself. So a decoy is the template twisted:
every shell of radius r is turned by a rotation Q(r) that changes with r, x -> Q(|x|) x. That keeps the values of the
density in each shell, hence its radial profile, its compactness and its skewness, and destroys what is particular; the
power of each Fourier shell is then restored.

Template and decoys compete for every place. Where there is no target, each is as likely to win, and by as much: of K
decoys, the places that decoys win by a margin of m or more, over K, are as many as the false ones that the template
wins by as much (target-decoy competition: Elias & Gygi 2007; margins as in knock-offs: Barber & Candès 2015). The
margin, winner less second, is what calls a place: a bright blob has high scores and small margins.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree

from tiltwise.ops.filters import radial_filter
from tiltwise.ops.interpolate import centred_points, sample_volume
from tiltwise.ops.maps.sharpening import shell_amplitude
from tiltwise.ops.peaks import keep_separate
from tiltwise.ops.rotations import rotation_vector_to_matrix

_BANDS, _TURN = 3, 120.0
"""Shells that turn about one axis each, and by how many degrees from the inside of one to its outside."""
_MOST_GAIN = 3.0
"""By which the amplitude of a Fourier shell is raised at most."""
_SURE_RATE, _FEWEST_SURE = 0.01, 10
"""Wins that are false at this rate, by the decoys, are sure; and how many must be to say what a target scores."""
_TAIL, _FEWEST_IN_TAIL = 0.1, 10
"""Part of the margins, and number at least, whose exponential tells how many exceed any of them."""
_FLANK = 0.5
"""Part of a neighbour's score below which a place within a diameter is its flank: balls half a diameter apart share
0.31 of their volume, and a template laid on a particle's flank reached 0.35 of its score."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Competition:
    """Places apart from each other, of which the template or a decoy fits best."""

    place: np.ndarray
    """(place,) which hit of the template lies there: its index in the template's hits; -1 where a decoy wins."""
    score: np.ndarray
    """(place,) of the winner."""
    margin: np.ndarray
    """(place,) score of the winner less that of the second."""
    decoys: int
    """Number of decoys, K."""


def twisted_decoy(
    volume: torch.Tensor, voxel_size: float, diameter: float, seed: int, *, moved: float = 0.0
) -> torch.Tensor:
    """A decoy of a template (cube, voxel_size Å) of a particle of this diameter (Å).

    Of a symmetric template it has no symmetry, and is to be turned through the same part of all rotations: every turn
    of that part looks different, of the template as of the decoy, so that both try as many patterns on the noise. A
    decoy made symmetric would be an average over the group, near to a ball, and try hardly more than one.

    moved is the part of the ball's volume by which every shell is moved outwards, the outermost coming in: r³ -> r³ +
    moved R³ modulo R³, which keeps volumes and so density values. It makes decoys of a template that is little more
    than its radial profile, a hollow shell above all.

    Mean over all turns and rest have the template's power in every Fourier shell, each by itself: a twist shears the
    rest out of the band, and a decoy that varies less with its turn finds less in noise.
    """
    generator = torch.Generator().manual_seed(seed)
    axes = torch.nn.functional.normalize(torch.randn(_BANDS, 3, generator=generator, dtype=torch.float64), dim=1)
    points = centred_points(tuple(volume.shape))
    rim = diameter / (2 * voxel_size)
    part = points.norm(dim=-1) / rim * _BANDS
    source = _moved_in(points, rim, moved)
    for band, axis in enumerate(axes):
        turn = rotation_vector_to_matrix((part - band).clamp(0, 1)[..., None] * (_TURN * axis))
        source = torch.einsum("zyxij,zyxj->zyxi", turn, source)
    decoy = sample_volume(volume, source.to(volume.device))
    mean, other = radial_part(volume), radial_part(decoy)
    both = _with_amplitude(other, mean, voxel_size) + _with_amplitude(decoy - other, volume - mean, voxel_size)
    return _with_amplitude(both, volume, voxel_size)


def radial_part(volume: torch.Tensor) -> torch.Tensor:
    """(z, y, x) mean of a cube over all turns about its centre, linear between shells a voxel apart."""
    radius = centred_points(tuple(volume.shape)).norm(dim=-1).to(volume.device)
    low, number = radius.long(), int(radius.max()) + 2
    high = (radius - low).to(volume)
    sums, counts = volume.new_zeros(number), volume.new_zeros(number)
    for shell, weight in ((low, 1 - high), (low + 1, high)):
        sums.index_add_(0, shell.flatten(), (weight * volume).flatten())
        counts.index_add_(0, shell.flatten(), weight.flatten())
    means = sums / counts.clamp_min(1e-6)
    return means[low] * (1 - high) + means[low + 1] * high


def _with_amplitude(volume: torch.Tensor, like: torch.Tensor, voxel_size: float) -> torch.Tensor:
    """The volume with the mean amplitude of another in every Fourier shell, but raised no more than `_MOST_GAIN`."""
    wanted, there = shell_amplitude(like), shell_amplitude(volume)
    frequency = torch.arange(len(wanted), dtype=torch.float64) / (len(volume) * voxel_size)
    gain = (wanted / there.clamp_min(1e-12 * float(there.max()))).clamp(max=_MOST_GAIN)
    return radial_filter(volume, frequency, gain, voxel_size)


def _moved_in(points: torch.Tensor, rim: float, part: float) -> torch.Tensor:
    """Points (..., 3) of a ball of radius rim at (r³ - part rim³ modulo rim³)^(1/3) in their own direction."""
    if part == 0:
        return points
    r = points.norm(dim=-1, keepdim=True)
    there = rim * ((r / rim) ** 3 - part).remainder(1.0) ** (1 / 3)
    return torch.where(r < rim, points * (there / r.clamp_min(0.5)), points)


def compete(
    hits: list[tuple[np.ndarray, np.ndarray]],
    distance: float,
    allowed: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Competition:
    """Places at least `distance` (Å) apart and who wins them.

    hits are (hit, 3) positions, Å, and (hit,) scores of the template, first, and of each decoy, all tried at the same
    places. At a place each has its best hit within `distance`, or, where it has none, the least score of all. A place
    on the flank of a far better one, within twice the distance, is left out, whoever wins it: there the template fits
    the particle beside it, which is not chance. `allowed` tells of positions (place, 3) whether a particle may be
    there, (place,) bool; a place where it may not is left out before it can make flanks, and also whoever wins it.
    """
    position, score = (np.concatenate(values) for values in zip(*hits, strict=True))
    owner = np.repeat(np.arange(len(hits)), [len(scores) for _, scores in hits])
    kept = keep_separate(position, score, distance)
    if allowed is not None:
        kept = kept[allowed(position[kept])]
    kept = kept[~_on_flanks(position[kept], score[kept], 2 * distance)]
    scores = np.full((len(kept), len(hits)), score.min())
    for column, (places, values) in enumerate(hits):
        for row, near in enumerate(cKDTree(places).query_ball_point(position[kept], distance)):
            if near:
                scores[row, column] = values[near].max()
    first_two = np.sort(scores, axis=1)[:, :-3:-1]
    return Competition(
        place=np.where(owner[kept] == 0, kept, -1),
        score=score[kept],
        margin=first_two[:, 0] - first_two[:, 1],
        decoys=len(hits) - 1,
    )


def _on_flanks(position: np.ndarray, score: np.ndarray, distance: float) -> np.ndarray:
    """(place,) bool: a place within `distance` scores so much better that it explains this one."""
    pairs = cKDTree(position).query_pairs(distance, output_type="ndarray")
    flank = np.zeros(len(position), dtype=bool)
    for one, other in (pairs.T, pairs.T[::-1]):
        flank[one[score[one] < _FLANK * score[other]]] = True
    return flank


def margin_threshold(competition: Competition, rate: float) -> float:
    """Least margin at which at most this rate of the places that the template wins are false; infinite if none is."""
    called = competition.margin[false_discovery(competition) <= rate]
    return float(called.min()) if len(called) else math.inf


def false_discovery(competition: Competition) -> np.ndarray:
    """(place,) q-value (Storey 2002): the lowest rate of false places among those called at which this one is called
    too; nan where a decoy wins. It never rises with the margin, and means the same in every tomogram.

    How many are false the decoys say (`_false_by_decoys`), and what scores too little to be a target
    (`_false_by_score`) where there are wins to tell that by: those that are sure by the decoys, false at a rate of 1 %
    at most.
    """
    wins = np.flatnonzero(competition.place >= 0)
    wins = wins[np.argsort(-competition.margin[wins], kind="stable")]
    won = competition.margin[wins]
    false = _false_by_decoys(competition, won)
    sure = won[_lowest_rates(false) <= _SURE_RATE]
    if len(sure) >= _FEWEST_SURE:
        false = np.maximum(false, _false_by_score(competition, won, float(sure[-1])))
    rates = np.full(len(competition.margin), np.nan)
    rates[wins] = _lowest_rates(false)
    return rates


def _lowest_rates(false: np.ndarray) -> np.ndarray:
    """(win,) the least part of false ones, 1 at most, of all runs of wins from the first on that hold a win."""
    parts = false / np.arange(1, len(false) + 1)
    return np.minimum(np.minimum.accumulate(parts[::-1])[::-1], 1.0)


def _false_by_decoys(competition: Competition, won: np.ndarray) -> np.ndarray:
    """(win,) false wins by at least each margin: as many as the decoys win by it, over their number."""
    return _as_many_by(competition.margin[competition.place < 0], won) / competition.decoys


def _as_many_by(margins: np.ndarray, won: np.ndarray) -> np.ndarray:
    """(win,) how many margins (n,) are to be expected at each of `won` or more.

    As many as there are; of the largest, a tenth and ten at least, as many as an exponential of their mean excess over
    the next one leaves (peaks over a threshold: Pickands 1975). Counts of one or two are chance, and below one they say
    nothing; an exponential through all margins falls off too slowly where large ones are rarer than small ones promise.
    """
    falling = -np.sort(-margins)
    number = min(max(math.ceil(_TAIL * len(margins)), _FEWEST_IN_TAIL), len(margins))
    if number == 0:
        return np.zeros_like(won)
    threshold = falling[number] if number < len(margins) else 0.0
    excess = max(float(falling[:number].mean() - threshold), 1e-6)
    tail = number * np.exp(-np.clip(won - threshold, 0.0, None) / excess)
    return np.where(won > threshold, tail, (margins[:, None] >= won).sum(0))


def _false_by_score(competition: Competition, won: np.ndarray, sure: float) -> np.ndarray:
    """(win,) false wins by at least each margin, of which those below half the median score of the sure ones are seen.

    Other molecules are compact and dense as the template is, and where the field is full of them it may win more places
    than any decoy: then the decoys say too little, and these wins themselves say how many are false. Some are weak
    targets: so not more are counted than fall off exponentially from the median of their margins. Wins that score more
    are left to the decoys.
    """
    wins = competition.place >= 0
    least = np.median(competition.score[wins & (competition.margin >= sure)]) / 2
    low = competition.margin[wins & (competition.score < least)]
    high = competition.margin[~wins & (competition.score >= least)]
    seen = _as_many_by(low, won)
    if len(low):
        seen = np.minimum(seen, len(low) * 2 ** (-won / max(float(np.median(low)), 1e-6)))
    return seen + (high[:, None] >= won).sum(0) / competition.decoys
