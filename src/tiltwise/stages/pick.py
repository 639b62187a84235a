"""Find particles: by template matching with the missing wedge in the score, or on spheres, filaments, membranes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from tiltwise.data.errors import InputError, StageError
from tiltwise.data.particles import Particles
from tiltwise.data.progress import Progress, no_progress
from tiltwise.data.shapes import Shapes
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.data.volume import Volume
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.ops.moments import median, slabs
from tiltwise.ops.particles.references import size_notes
from tiltwise.ops.peaks import expected_above, keep_separate, noise_tail
from tiltwise.ops.picking import shape_particles
from tiltwise.ops.picking import spheres as sphere_ops
from tiltwise.ops.picking.decoys import Competition, compete, false_discovery, margin_threshold, twisted_decoy
from tiltwise.ops.picking.exclusion import REASONS, Exclusion, exclude
from tiltwise.ops.picking.matching import TiltTransfer, tilt_amplitudes
from tiltwise.ops.picking.search_memory import search_bytes
from tiltwise.ops.picking.template_search import (
    Hits,
    Level,
    candidates,
    climb,
    match_everywhere,
    prepare_level,
    resemblance,
    scout,
    shrink_volume,
)
from tiltwise.ops.projection import tilt_widths
from tiltwise.params.pick import PickParams

_CLIP = 5.0
"""Robust standard deviations at which the tomogram is clipped: gold is not a particle, nor is its halo."""
_DECOYS = 2
_MOST_RESEMBLANCE = 0.7
"""Of template and decoy at its best turn, r: a particle that scores s wins by (1 - r) s, less what the decoy gains as
the best of its turns in noise, some 3.5 sqrt(1 - r²). At 0.7 that is 3.0 - 2.5 where s = 10; above, decoys win."""
_FREQUENCY_STEP = 2e-4
_MOST_SPHERES = 200
_LEAST_COVERAGE = 0.62
"""Part of the visible surface that must stand out: by chance 0.50 does, give or take 0.05 (some 100 patches)."""
_EXPECTED_FALSE_SPHERES = 1.0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PickResult:
    particles: Particles
    """Best first; half_set is 0. Template: rotation of the best template, region -1. Spheres, tubes, membranes: the
    reference's z on the outward normal; filaments: along their direction; region the number of each."""
    quality: dict
    """particles, scores; of a template margins, their threshold, false_discovery, the rate at which each is still
    called, decoys, decoy_margins and contest, score and margin of every place that the template won and that it lost,
    excluded, the candidates of template and decoys that each reason left out, and excluded_part, its part of the
    tomogram, planned_memory_GB; spheres [{x_A, y_A, z_A,
    radius_A, score, coverage}]; on_shape, the points on each filament, tube or membrane."""


def pick(
    tomogram: Volume,
    tilt_series: TiltSeries,
    reference: Volume | None,
    centres: np.ndarray | None,
    shapes: Shapes | Volume | None,
    params: PickParams,
    *,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> PickResult:
    """Particles of one tomogram, made by `reconstruct` from this tilt series, with its defaults where they matter.

    Template matching takes the tomogram as phase-flipped where a CTF is known and as exposure-weighted. centres are
    (sphere, 3 or 4) x, y, z from the tomogram centre and, if known (else nan), radius, Å; None searches for spheres.
    shapes are the points of filaments or membranes, or a segmentation of membranes on the tomogram's grid.
    """
    if params.method in ("filaments", "tubes", "membranes"):
        return _pick_on_shapes(tomogram, tilt_series, shapes, params, progress)
    ready = _clipped(tomogram, tilt_series.name, device)
    if params.method == "spheres":
        return _pick_on_spheres(ready, tilt_series, centres, params, progress)
    if reference is None:
        raise InputError(f"{tilt_series.name}: template matching needs a reference map; give one, or pick on spheres")
    exclusion = exclude(tomogram, tilt_series, params.particle_diameter)
    return _pick_by_template(ready, reference, exclusion, params, progress)


def _clipped(tomogram: Volume, name: str, device: str) -> Volume:
    """In robust standard deviations from the median, clipped; a few planes are read and worked on at a time."""
    parts = slabs(np.shape(tomogram.data))

    def planes() -> Iterator[torch.Tensor]:
        return (torch.as_tensor(np.array(tomogram.data[part], dtype=np.float32), device=device) for part in parts)

    middle = median(planes)
    spread = 1.4826 * median(lambda: ((part - middle).abs_() for part in planes()))
    if not spread > 0:
        raise StageError(f"{name}: the tomogram is constant; there is nothing to find")
    ready = torch.empty(np.shape(tomogram.data), device=device)
    for part, values in zip(parts, planes(), strict=True):
        ready[part] = ((values - middle) / spread).clamp_(-_CLIP, _CLIP)
    return Volume(data=ready, voxel_size=tomogram.voxel_size)


def _pick_by_template(
    tomogram: Volume, reference: Volume, exclusion: Exclusion, params: PickParams, progress: Progress
) -> PickResult:
    """Search for the reference and for decoys alike; keep what wins its place by more than decoys explain."""
    template = torch.as_tensor(np.array(reference.data, dtype=np.float32), device=tomogram.data.device)
    if len(set(template.shape)) > 1:
        raise InputError(f"the reference is {tuple(template.shape)}; a template must be a cube")
    planned = _planned_bytes(tomogram, reference, params) / 1e9
    progress(0.0, f"planned {planned:.2f} GB")
    transfer = _transfer(exclusion.tilt_series, tomogram.data.device)
    levels = tuple(
        prepare_level(tomogram.data, tomogram.voxel_size, transfer, params.particle_diameter, step)
        for step in (2 * params.angular_step, params.angular_step)
    )
    template, voxel_size = shrink_volume(template, reference.voxel_size, levels[-1].voxel_size / 2)
    decoys = [_decoy(levels[-1], template, voxel_size, params, number) for number in range(_DECOYS)]
    hits, excluded = _hits_at_shared_places(levels, [template, *decoys], voxel_size, exclusion, params, progress)
    contest = compete(
        [(one.position.cpu().numpy(), one.score.double().cpu().numpy()) for one in hits],
        params.particle_diameter / 2,
        exclusion.allows,
    )
    notes, name = size_notes(reference, params.particle_diameter), exclusion.tilt_series.name
    taken = _called(contest, params)
    if len(taken) == 0:
        raise StageError(
            "; ".join(
                (
                    f"{name}: nothing matches the reference better than decoys do (best score "
                    f"{contest.score.max(initial=0.0):.1f})",
                    *(notes or ("check the reference's contrast, size and hand",)),
                )
            )
        )
    quality = _contest_quality(contest, taken, params) | {
        "excluded": dict(zip(REASONS, excluded.tolist(), strict=True)),
        "excluded_part": exclusion.parts(),
        "planned_memory_GB": round(planned, 3),
        "notes": list(notes),
        "spheres": [],
    }
    return PickResult(particles=_particles(contest, taken, hits[0], name), quality=quality)


def _called(contest: Competition, params: PickParams) -> np.ndarray:
    """Places that the template wins by enough for the rate, best score first, as many as are wanted at most."""
    threshold = margin_threshold(contest, params.false_discovery_rate)
    called = np.flatnonzero((contest.place >= 0) & (contest.margin >= threshold))
    return called[np.argsort(-contest.score[called], kind="stable")][: params.max_particles]


def _particles(contest: Competition, taken: np.ndarray, found: Hits, name: str) -> Particles:
    number, kept = len(taken), torch.as_tensor(contest.place[taken], device=found.score.device)
    return Particles(
        tilt_series=np.full(number, name),
        position=found.position[kept].cpu().numpy(),
        rotation=Rotation.from_matrix(found.rotation[kept].cpu().numpy()),
        score=contest.score[taken],
        half_set=np.zeros(number, dtype=int),
        region=np.full(number, -1),
    )


def _contest_quality(contest: Competition, taken: np.ndarray, params: PickParams) -> dict:
    decoy_won = contest.place < 0
    return {
        "particles": len(taken),
        "scores": contest.score[taken].tolist(),
        "margins": contest.margin[taken].tolist(),
        "false_discovery": false_discovery(contest)[taken].tolist(),
        "threshold": margin_threshold(contest, params.false_discovery_rate),
        "decoys": contest.decoys,
        "decoy_margins": contest.margin[decoy_won].tolist(),
        "contest": {"won": _places(contest, ~decoy_won), "lost": _places(contest, decoy_won)},
    }


def _planned_bytes(tomogram: Volume, reference: Volume, params: PickParams) -> float:
    return search_bytes(
        tuple(tomogram.data.shape),
        tomogram.voxel_size,
        params.particle_diameter,
        params.angular_step,
        1 + _DECOYS,
        reference.data.shape[0],
    )


def _places(contest: Competition, chosen: np.ndarray) -> list[list[float]]:
    """(place, 2) score and margin."""
    return np.column_stack([contest.score, contest.margin])[chosen].tolist()


def _decoy(level: Level, template: torch.Tensor, voxel_size: float, params: PickParams, number: int) -> torch.Tensor:
    """A decoy that is not the template over again: with its radial profile, unless that is nearly all of it."""
    seed = _DECOYS * params.seed + number
    decoy = twisted_decoy(template, voxel_size, params.particle_diameter, seed)
    if resemblance(level, template, decoy, voxel_size, params.symmetry) <= _MOST_RESEMBLANCE:
        return decoy
    return twisted_decoy(template, voxel_size, params.particle_diameter, seed, moved=(number + 1) / (_DECOYS + 1))


def _hits_at_shared_places(
    levels: tuple[Level, Level],
    references: list[torch.Tensor],
    voxel_size: float,
    exclusion: Exclusion,
    params: PickParams,
    progress: Progress,
) -> tuple[list[Hits], np.ndarray]:
    """What each reference scores at the candidates of all; of these the better half by the best of any is climbed.

    Also (reason,) how many candidates were excluded for each reason.
    """
    coarse, fine = levels
    maps, places, scores, excluded = [], [], [], np.zeros(len(REASONS), dtype=int)
    for number, reference in enumerate(references):
        progress(0.4 * number / len(references), f"searching everywhere: {_name(number)}")
        maps.append(match_everywhere(coarse, reference, voxel_size, params.symmetry))
        position, score, left_out = candidates(coarse, maps[-1], exclusion)
        places.append(position)
        scores.append(score)
        excluded += left_out
    if not any(map(len, places)):
        raise StageError(
            f"{exclusion.tilt_series.name}: every place lies at an edge of the tomogram, in gold or on carbon"
        )
    position, score = np.concatenate(places), np.concatenate(scores)
    position = position[keep_separate(position, score, params.particle_diameter / 4)]
    scouts = []
    for number, (reference, one) in enumerate(zip(references, maps, strict=True)):
        progress(0.4 + 0.4 * number / len(references), f"matching at {len(position)} places: {_name(number)}")
        scouts.append(scout(levels, one, position, (reference, voxel_size), params.symmetry))
    best = torch.stack([one.score[:, 0] for one in scouts]).max(dim=0).values
    chosen = best.topk((len(best) + 1) // 2).indices
    progress(0.8, "climbing to the peaks")
    hits = [
        climb(fine, one, chosen, (reference, voxel_size)) for reference, one in zip(references, scouts, strict=True)
    ]
    return hits, excluded


def _name(number: int) -> str:
    return f"decoy {number}" if number else "the reference"


def _transfer(tilt_series: TiltSeries, device: torch.device) -> TiltTransfer:
    """What the used tilts pass on, from the alignment, the CTF where known, and the exposure."""
    if tilt_series.geometry is None:
        raise StageError(f"{tilt_series.name}: not aligned yet; run align first")
    tilts, fitted = np.flatnonzero(tilt_series.use), tilt_series.ctf
    frequency = torch.arange(0, 0.5 / tilt_series.pixel_size, _FREQUENCY_STEP)
    amplitude = tilt_amplitudes(
        frequency,
        tilt_series.optics,
        (tilt_series.pre_exposure[tilts], tilt_series.exposure[tilts]),
        None if fitted is None else fitted.mean_defocus[tilts],
        None if fitted is None else fitted.phase_shift[tilts],
    )
    return TiltTransfer(
        rotations=tilt_rotations(tilt_series.geometry)[torch.as_tensor(tilts)].to(device),
        widths=torch.as_tensor(tilt_widths(tilt_series.geometry.tilt_angle[tilts])),
        amplitude=amplitude.to(device),
        frequency_step=_FREQUENCY_STEP,
    )


def _pick_on_spheres(
    tomogram: Volume, tilt_series: TiltSeries, centres: np.ndarray | None, params: PickParams, progress: Progress
) -> PickResult:
    transfer = _transfer(tilt_series, tomogram.data.device)
    tilt_max = float(np.abs(tilt_series.geometry.tilt_angle[tilt_series.use]).max())
    if centres is None:
        spheres = _find_spheres(tomogram, transfer, params, tilt_max)
    else:
        spheres = _given_spheres(tomogram, np.asarray(centres, dtype=float), params, tilt_max)
    progress(0.8, f"{len(spheres.radius)} spheres")
    if len(spheres.radius) == 0:
        raise StageError(
            f"{tilt_series.name}: no sphere of radius {params.radius_min:g} to {params.radius_max:g} Å stands out; "
            "set the radii, or give the centres in a file"
        )
    particles = _surface_particles(spheres, tomogram, tilt_series.name, params)
    quality = {"particles": len(particles), "scores": [float(s) for s in particles.score], "spheres": _rows(spheres)}
    progress(1.0, f"{len(particles)} points")
    return PickResult(particles=particles, quality=quality)


def _find_spheres(tomogram: Volume, transfer: TiltTransfer, params: PickParams, tilt_max: float) -> sphere_ops.Spheres:
    """Shells that the tail of all shells' scores does not explain, fitted, with coats that stand out all round."""
    radii = (params.radius_min, params.radius_max)
    centre, radius, score = sphere_ops.find_shells(tomogram.data, tomogram.voxel_size, transfer, radii, _MOST_SPHERES)
    likely = expected_above(score, noise_tail(score), len(score)) <= _EXPECTED_FALSE_SPHERES
    fits = [
        sphere_ops.fit_sphere(tomogram.data, tomogram.voxel_size, start, tilt_max)
        for start in zip(centre[likely], radius[likely], strict=True)
    ]
    good = np.array([covered >= _LEAST_COVERAGE and radii[0] <= r <= radii[1] for _, r, covered in fits], dtype=bool)
    return _spheres([f for f, ok in zip(fits, good, strict=True) if ok], score[likely][good])


def _given_spheres(tomogram: Volume, centres: np.ndarray, params: PickParams, tilt_max: float) -> sphere_ops.Spheres:
    """The user's centres, each with its radius or the best of the range, fitted to the coat."""
    fits = []
    for row in centres:
        radius = row[3] if len(row) > 3 and np.isfinite(row[3]) else None
        if radius is None:
            radii = (params.radius_min, params.radius_max)
            radius = sphere_ops.best_radius(tomogram.data, tomogram.voxel_size, row[:3], radii, tilt_max)
        fits.append(sphere_ops.fit_sphere(tomogram.data, tomogram.voxel_size, (row[:3], radius), tilt_max))
    return _spheres(fits, np.full(len(fits), np.nan))


def _spheres(fits: list[tuple[np.ndarray, float, float]], score: np.ndarray) -> sphere_ops.Spheres:
    return sphere_ops.Spheres(
        centre=np.array([centre for centre, _, _ in fits]).reshape(-1, 3),
        radius=np.array([radius for _, radius, _ in fits], dtype=float),
        score=score,
        coverage=np.array([coverage for _, _, coverage in fits], dtype=float),
    )


def _surface_particles(spheres: sphere_ops.Spheres, tomogram: Volume, name: str, params: PickParams) -> Particles:
    """Points on the surfaces within the tomogram, the reference's z outward along the normal, turned at random."""
    rng = np.random.default_rng(params.seed)
    size = np.array(tomogram.data.shape[::-1]) * tomogram.voxel_size / 2
    position, rotation, region = [], [], []
    for i, (centre, radius) in enumerate(zip(spheres.centre, spheres.radius, strict=True)):
        normals = sphere_ops.surface_points(radius, params.surface_spacing)
        points = centre + radius * normals
        inside = (np.abs(points) < size).all(1)
        position.append(points[inside])
        rotation.append(sphere_ops.rotations_to_normals(normals, rng).as_matrix()[inside])
        region.append(np.full(int(inside.sum()), i))
    index = np.concatenate(region)
    order = slice(None, params.max_particles)
    score = np.where(np.isfinite(spheres.score), spheres.score, spheres.coverage)[index]
    return Particles(
        tilt_series=np.full(len(index), name)[order],
        position=np.concatenate(position)[order],
        rotation=Rotation.from_matrix(np.concatenate(rotation)[order]),
        score=score[order],
        half_set=np.zeros(len(index), dtype=int)[order],
        region=index[order],
    )


def _pick_on_shapes(
    tomogram: Volume, tilt_series: TiltSeries, shapes: Shapes | Volume | None, params: PickParams, progress: Progress
) -> PickResult:
    """Points on what the user has pointed out, those within the tomogram, shape by shape in their order."""
    if shapes is None:
        raise InputError(
            f"{tilt_series.name}: method {params.method} needs shapes: points clicked along or on them, or a "
            "segmentation; name a file that holds them for this series"
        )
    placed = _placed(tomogram, tilt_series.name, shapes, params)
    size = np.array(np.shape(tomogram.data)[::-1]) * tomogram.voxel_size / 2
    kept = np.flatnonzero((np.abs(placed.position) < size).all(1))[: params.max_particles]
    if len(kept) == 0:
        raise StageError(
            f"{tilt_series.name}: no point of the shapes lies in the tomogram; are they in its Å, or voxels?"
        )
    particles = Particles(
        tilt_series=np.full(len(kept), tilt_series.name),
        position=placed.position[kept],
        rotation=placed.rotation[kept],
        score=np.full(len(kept), np.nan),
        half_set=np.zeros(len(kept), dtype=int),
        region=placed.region[kept],
    )
    progress(1.0, f"{len(kept)} points")
    numbers = np.unique(particles.region, return_counts=True)[1].tolist()
    quality = {"particles": len(kept), "scores": [], "spheres": [], "on_shape": numbers}
    return PickResult(particles=particles, quality=quality)


def _placed(tomogram: Volume, name: str, shapes: Shapes | Volume, params: PickParams) -> shape_particles.Placed:
    rng, spacing = np.random.default_rng(params.seed), params.surface_spacing
    shape = tuple(np.shape(tomogram.data))
    if isinstance(shapes, Volume):
        if params.method != "membranes":
            raise InputError(f"{name}: a segmentation is for method membranes; {params.method} needs clicked points")
        if tuple(np.shape(shapes.data)) != shape:
            sizes = (" × ".join(map(str, one[::-1])) for one in (np.shape(shapes.data), shape))
            raise InputError(f"{name}: the segmentation has {' voxels, the tomogram '.join(sizes)}; make them alike")
        return shape_particles.on_segmentation(np.asarray(shapes.data), tomogram.voxel_size, spacing=spacing, rng=rng)
    points = _points_in_angstrom(shapes, shape, tomogram.voxel_size, name)
    least = shape_particles.LEAST_POINTS if params.method == "membranes" else 2
    few = [number for number in np.unique(shapes.shape) if (shapes.shape == number).sum() < least]
    if few:
        raise InputError(f"{name}: shape {few[0] + 1} has fewer than {least} points, too few for {params.method}")
    if params.method == "filaments":
        return shape_particles.on_filaments(points, shapes.shape, rise=spacing, twist=params.twist, rng=rng)
    if params.method == "tubes":
        return shape_particles.on_tubes(points, shapes.shape, radius=params.tube_radius, spacing=spacing)
    return shape_particles.on_membranes(points, shapes.shape, spacing=spacing, rng=rng)


def _points_in_angstrom(shapes: Shapes, shape: tuple[int, ...], voxel_size: float, name: str) -> np.ndarray:
    """(point, 3) Å from the tomogram centre; InputError for points drawn on another tomogram, or twice at one place."""
    if shapes.drawn_on is not None and shapes.drawn_on != shape[::-1]:
        drawn, own = (" × ".join(map(str, one)) for one in (shapes.drawn_on, shape[::-1]))
        raise InputError(f"{name}: the model was drawn on {drawn} voxels, the tomogram has {own}")
    points = shapes.points
    if shapes.unit == "voxel":
        points = (points - np.array([n // 2 for n in shape[::-1]])) * voxel_size
    for number in np.unique(shapes.shape):
        own = points[shapes.shape == number]
        if len(own) > 1 and not (np.linalg.norm(np.diff(own, axis=0), axis=1) > 0).all():
            raise InputError(f"{name}: two points of shape {number + 1} that follow each other are one; take one away")
    return points


def _rows(spheres: sphere_ops.Spheres) -> list[dict]:
    return [
        {
            "x_A": float(centre[0]),
            "y_A": float(centre[1]),
            "z_A": float(centre[2]),
            "radius_A": float(radius),
            "score": float(score) if np.isfinite(score) else None,
            "coverage": float(coverage),
        }
        for centre, radius, score, coverage in zip(
            spheres.centre, spheres.radius, spheres.score, spheres.coverage, strict=True
        )
    ]
