"""Gold beads: their size measured, found in every image, and followed over the tilts to places in the specimen.

A bead is a homogeneous sphere, far denser than ice: the matched filter is the transform of its projection,
3 (sin x - x cos x) / x³ with x = 2π k r, less that of a sphere _AROUND times as wide, which takes the background off.
Its response in robust standard deviations, largest at the true radius, gives the size. A bead found in one image may
lie at any depth on the ray through it: the depth at which the most images show a bead where it would appear is its own.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree

from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.ops.alignment.bundle_system import BundleState, Observations, predict, rotations_of
from tiltwise.ops.alignment.image_cleaning import Frames
from tiltwise.ops.alignment.track_alignment import Tracks, keep_followed
from tiltwise.ops.fourier import frequency_norm
from tiltwise.ops.peaks import keep_separate, parabola_offset

SMALLEST, LARGEST = 50.0, 200.0
"""Diameters looked for, Å."""
_SIZES = 10
_AROUND = 1.8
"""Radius of the background in radii of the bead: a bead's neighbour is further."""
_FEWEST = 4
"""Beads below which a series counts as one without."""
_CLEAR, _FAINT = 9.0, 5.0
"""Standard deviations: what tells the size; what may be a bead, if it is one in other tilts too. Particles reach 5."""
_MOST = 400
"""Candidates an image."""
_IN_VIEW = 0.6
"""Part of the tilts in which a bead must be found."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Candidates:
    """What looks like a bead in one image."""

    position: np.ndarray
    """(candidate, 2) x, y from the image centre, Å."""
    score: np.ndarray
    """(candidate,) response of the matched filter in robust standard deviations."""


def measure_bead_diameter(frames: Frames, tilt_angle: np.ndarray) -> float | None:
    """Diameter (Å) of the beads in the five images of lowest tilt; None where fewer than four stand out.

    Of diameters from 50 to 200 Å in steps of a sixth the one with the largest summed response of its clear peaks, the
    strongest 40 of an image, between sizes by a parabola in log diameter. No diameter below three pixels is tried.
    """
    low = np.argsort(np.abs(tilt_angle), kind="stable")[:5]
    smallest = max(SMALLEST, 3 * frames.pixel_size)
    if smallest >= LARGEST:
        return None
    diameters = np.geomspace(smallest, LARGEST, _SIZES)
    strength, number = np.zeros(_SIZES), np.zeros(_SIZES)
    for rank, diameter in enumerate(diameters):
        for i in low:
            score = np.sort(find_beads(frames, int(i), diameter).score)[::-1]
            strength[rank] += score[:40][score[:40] > _CLEAR].sum()
            number[rank] += (score > _CLEAR).sum() / len(low)
    best = int(strength.argmax())
    if number[best] < _FEWEST:
        return None
    offset = 0.0
    if 0 < best < _SIZES - 1:
        offset = float(parabola_offset(*torch.as_tensor(strength[best - 1 : best + 2])))
    return float(diameters[best] * (diameters[1] / diameters[0]) ** offset)


def find_beads(frames: Frames, tilt: int, diameter: float) -> Candidates:
    """Places in one image whose response to a bead of this diameter (Å) is a maximum and above 5 sd."""
    response = bead_response(frames, tilt, diameter)
    reach = max(1, round(0.6 * diameter / frames.pixel_size))
    highest = torch.nn.functional.max_pool2d(response[None, None], 2 * reach + 1, stride=1, padding=reach)[0, 0]
    peak = (response == highest) & (response > _FAINT) & (frames.window > 0.5)
    peak[0], peak[-1], peak[:, 0], peak[:, -1] = False, False, False, False
    y, x = torch.nonzero(peak, as_tuple=True)
    score = response[y, x]
    best = torch.argsort(score, descending=True, stable=True)[:_MOST]
    y, x, score = y[best], x[best], score[best]
    fine_x = x + parabola_offset(response[y, x - 1], score, response[y, x + 1])
    fine_y = y + parabola_offset(response[y - 1, x], score, response[y + 1, x])
    position = (torch.stack([fine_x, fine_y], dim=1).double() - len(response) // 2) * frames.pixel_size
    return Candidates(position=position.cpu().numpy(), score=score.cpu().numpy())


def bead_response(frames: Frames, tilt: int, diameter: float) -> torch.Tensor:
    """(n, n) matched-filter response of one image in its robust standard deviations."""
    image = frames.data[tilt] * frames.window
    k = frequency_norm(tuple(image.shape), frames.pixel_size, image.device)
    transfer = sphere_transform(k, diameter / 2) - sphere_transform(k, _AROUND * diameter / 2)
    response = torch.fft.irfft2(torch.fft.rfft2(image) * transfer, s=image.shape)
    inside = response[frames.window > 0.5]
    centre = inside.median()
    return (response - centre) / (1.4826 * (inside - centre).abs().median()).clamp_min(1e-30)


def sphere_transform(frequency: torch.Tensor, radius: float) -> torch.Tensor:
    """Fourier transform of the projection of a homogeneous sphere of unit mass: 3 (sin x - x cos x) / x³."""
    x = (2 * torch.pi * frequency * radius).double()
    safe = x.clamp_min(1e-2)
    value = torch.where(x < 1e-2, 1 - x**2 / 10, 3 * (torch.sin(safe) - safe * torch.cos(safe)) / safe**3)
    return value.to(frequency)


def track_beads(
    candidates: list[Candidates], geometry: TiltGeometry, diameter: float, depth: float, tolerance: float
) -> Tracks:
    """Beads that a known geometry makes out of candidates (one entry a tilt), each in six tilts of ten or more.

    depth (Å) bounds |z|; tolerance (Å) is how far a candidate may lie from where the geometry says. Seeds are the
    candidates of the lowest tilt and of those nearest to ±25°, best first; beads nearer than half a diameter are one.
    """
    trees = [cKDTree(c.position) if len(c.position) else None for c in candidates]
    order = np.argsort(np.abs(geometry.tilt_angle), kind="stable")
    seeds = [int(order[0])] + [int(np.abs(geometry.tilt_angle - angle).argmin()) for angle in (-25.0, 25.0)]
    found, votes = [], []
    for tilt in dict.fromkeys(seeds):
        for place in candidates[tilt].position:
            ray = _ray(geometry, tilt, place, depth, tolerance)
            point, vote = _best_on_ray(ray, trees, geometry, tolerance)
            found.append(point)
            votes.append(vote)
    if not found:
        return match_beads(candidates, BundleState.undistorted(geometry, np.zeros((0, 3))), tolerance)
    points, votes = np.array(found), np.array(votes)
    kept = keep_separate(points, votes, 0.5 * diameter)
    kept = kept[votes[kept] > 0.5 * _IN_VIEW * len(trees)]
    return match_beads(candidates, BundleState.undistorted(geometry, points[kept]), tolerance)


def match_beads(candidates: list[Candidates], state: BundleState, tolerance: float) -> Tracks:
    """Observations of beads near where a state predicts them: pairs that are each other's nearest.

    A bead must be seen in six of ten of the tilts, or goes; weight 1 throughout.
    """
    number, tilts = len(state.points), len(candidates)
    rows = []
    for tilt, candidate in enumerate(candidates):
        if not len(candidate.position) or not number:
            continue
        place = predict(state, np.full(number, tilt), np.arange(number))
        distance, nearest = cKDTree(candidate.position).query(place, distance_upper_bound=tolerance)
        back = cKDTree(place).query(candidate.position)[1]
        for bead in np.flatnonzero(np.isfinite(distance)):
            if back[nearest[bead]] == bead:
                rows.append((tilt, bead, *candidate.position[nearest[bead]]))
    table = np.array(rows).reshape(-1, 4)
    observations = Observations(
        tilt=table[:, 0].astype(int),
        point=table[:, 1].astype(int),
        position=table[:, 2:],
        weight=np.ones(len(table)),
    )
    return keep_followed(Tracks(observations=observations, points=state.points), _IN_VIEW * tilts)


def _ray(geometry: TiltGeometry, tilt: int, place: np.ndarray, depth: float, step: float) -> np.ndarray:
    """(sample, 3) points that appear at this place (Å) of this tilt, |z| up to depth, a step apart in depth."""
    rotation = rotations_of(geometry)[tilt]
    in_view = np.append(place - geometry.shift[tilt], 0.0)
    base, direction = rotation.T @ in_view, rotation.T[:, 2]
    along = np.arange(-depth, depth + step, step)
    return base + ((along - base[2]) / direction[2])[:, None] * direction


def _best_on_ray(
    ray: np.ndarray, trees: list[cKDTree | None], geometry: TiltGeometry, tolerance: float
) -> tuple[np.ndarray, float]:
    """The sample of a ray that the most tilts agree to, and the sum of 1 - (distance / tolerance)² over them."""
    vote = np.zeros(len(ray))
    rotation = rotations_of(geometry)[:, :2]
    for tilt, tree in enumerate(trees):
        if tree is None:
            continue
        distance = tree.query(ray @ rotation[tilt].T + geometry.shift[tilt], distance_upper_bound=tolerance)[0]
        vote += np.where(np.isfinite(distance), 1 - (np.minimum(distance, tolerance) / tolerance) ** 2, 0.0)
    best = int(vote.argmax())
    return ray[best], float(vote[best])
