"""False discoveries of template matching against what it states, in fields with gold, membranes and two other proteins.

Fields of 0.41 µm at 8 Å/px, 120 nm of ice: 200 targets of 2.3 MDa, two other proteins (1 MDa, 400 kDa), membranes,
gold; 41 tilts of ±60°, 3 e⁻/Å² each, true geometry and CTF. A false pick has no true particle within half a particle
radius, one to one. `fdr_ratio_5` is the part of false picks over the stated 5 %, each field judged by itself, its picks
pooled, with its 95 % interval (Wilson); `fdr_ratio_5_together` that of all fields judged as one.
TILTWISE_PICK_FIELDS sets the fields (default 28, for 5000 picks and more; "12" the first twelve, "12:20" the eight
after them); each is said on stderr as it is done.
"""

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

import numpy as np
import torch
from chosen import chosen

from tiltwise.data.volume import Volume
from tiltwise.ops.filters import low_pass
from tiltwise.ops.picking.decoys import Competition, margin_threshold
from tiltwise.ops.poses.comparison import match_points
from tiltwise.params.microscope import CameraParams, MicroscopeParams, MotionParams, SchemeParams
from tiltwise.params.pick import PickParams
from tiltwise.params.reconstruct import ReconstructParams
from tiltwise.params.scene import CrowdParams, GoldParams, IceParams, MembraneParams, SceneParams, TargetParams
from tiltwise.params.session import SessionParams
from tiltwise.project.threads import count_cores, keep_freed_memory, prepare_process
from tiltwise.simulate.build_scene import target_atoms
from tiltwise.simulate.image_scene import image_scene
from tiltwise.simulate.potential import merge_points, potential_map, scatterer_from_atoms
from tiltwise.simulate.scene import Scene
from tiltwise.simulate.scene_session import prepare_series
from tiltwise.stages.pick import pick
from tiltwise.stages.reconstruct import reconstruct

FIELDS = chosen("TILTWISE_PICK_FIELDS", 28)
RATES = (0.01, 0.05, 0.2)
LOOSEST = 0.5
"""At which picks are kept, so that every rate that is asked for can be told of them."""
PIXEL, SIDE, DIAMETER, LOWPASS = 8.0, 512, 250.0, 20.0
DETAIL = 5.0
"""Å: atoms nearer together are one point."""

SESSION = SessionParams(
    scene=SceneParams(
        target=TargetParams(number=200, mass=2.3e6, diameter=DIAMETER),
        ice=IceParams(thickness=1200.0),
        crowd=CrowdParams(fraction=0.02, masses=(1e6, 4e5)),
        membranes=MembraneParams(spheres=2, radius_min=300.0, radius_max=450.0),
        gold=GoldParams(number=8),
    ),
    microscope=MicroscopeParams(
        scheme=SchemeParams(exposure=3.0, defocus_min=25000.0, defocus_max=40000.0),
        camera=CameraParams(pixel_size=PIXEL, image_size=SIDE),
        motion=MotionParams(local=0.0, deformation=0.0, magnification=0.0),
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Field:
    contest: Competition
    """Who won each place, and by how much."""
    margin: np.ndarray
    """(pick,) by which the template won it."""
    good: np.ndarray
    """(pick,) bool: a true particle."""
    true: int
    """Particles in the field."""
    seconds: float
    """CPU time of picking."""


def run() -> dict:
    context = get_context("spawn")
    workers = min(len(FIELDS), count_cores())
    with ProcessPoolExecutor(workers, mp_context=context, initializer=prepare_process, initargs=(1,)) as pool:
        fields = list(pool.map(measure_field, [n + 1 for n in FIELDS]))
    figures = {"fields": len(FIELDS), "true_particles": sum(field.true for field in fields)}
    together = pooled(fields)
    for rate in RATES:
        called = [field.good[field.margin >= margin_threshold(field.contest, rate)] for field in fields]
        picks, good = sum(map(len, called)), sum(int(own.sum()) for own in called)
        name, low_high = f"{100 * rate:g}", wilson(picks - good, picks)
        figures |= {
            f"picks_{name}": picks,
            f"fdr_ratio_{name}": round((picks - good) / max(picks, 1) / rate, 3),
            f"fdr_ratio_{name}_95": [round(end / rate, 3) for end in low_high],
            f"fdr_ratio_{name}_together": round(false_part(fields, margin_threshold(together, rate)) / rate, 3),
            f"pick_precision_{name}": round(good / max(picks, 1), 4),
            f"pick_recall_{name}": round(good / figures["true_particles"], 4),
        }
    figures |= {"pick_precision": figures["pick_precision_5"], "pick_recall": figures["pick_recall_5"]}
    figures["pick_cpu_s"] = round(float(np.median([field.seconds for field in fields])), 1)
    return figures


def pooled(fields: list[Field]) -> Competition:
    """The contests of all fields as one."""
    contests = [field.contest for field in fields]
    place, score, margin = (np.concatenate([getattr(c, n) for c in contests]) for n in ("place", "score", "margin"))
    return Competition(place=place, score=score, margin=margin, decoys=contests[0].decoys)


def false_part(fields: list[Field], threshold: float) -> float:
    """Of the picks of all fields from a margin on."""
    called = np.concatenate([field.good[field.margin >= threshold] for field in fields])
    return float((~called).mean()) if len(called) else 0.0


def measure_field(number: int) -> Field:
    """Image one field, reconstruct it, pick, and tell true picks from false ones."""
    keep_freed_memory()
    made = prepare_series(SESSION, number, frames=False)
    scene = fewer_points(made.scene)
    images = np.stack(list(image_scene(scene, made.series, made.params, made.seed, disturbances=made.disturbances)))
    series = replace(made.series, images=images)
    target = made.scene.populations[0]
    tomogram = reconstruct(series, ReconstructParams(voxel_size=PIXEL, thickness=1600.0)).tomogram
    params = PickParams(particle_diameter=DIAMETER, false_discovery_rate=LOOSEST)
    before = time.process_time()
    result = pick(tomogram, series, template(), None, None, params)
    seconds = time.process_time() - before
    won, lost = (np.array(result.quality["contest"][key]).reshape(-1, 2) for key in ("won", "lost"))
    score, margin = np.concatenate([won, lost]).T
    place = np.concatenate([np.arange(len(won)), np.full(len(lost), -1)])
    good = np.zeros(len(result.particles), dtype=bool)
    good[match_points(result.particles.position, target.position, DIAMETER / 4)[0]] = True
    found = Field(
        contest=Competition(place=place, score=score, margin=margin, decoys=result.quality["decoys"]),
        margin=np.array(result.quality["margins"]),
        good=good,
        true=len(target.position),
        seconds=seconds,
    )
    counts = {rate: np.bincount(good[found.margin >= margin_threshold(found.contest, rate)]) for rate in RATES}
    sys.stderr.write(f"field {number}: of {found.true}, false and true at each rate {counts}\n")
    return found


def fewer_points(scene: Scene) -> Scene:
    """The scene with targets of fewer points, as the crowd has them already: their FSC with the whole is above 0.99
    down to 24 Å, and the search uses nothing finer than 33 Å."""
    targets = [replace(p, scatterer=merge_points(p.scatterer, DETAIL)) for p in scene.populations if p.name == "target"]
    return replace(scene, populations=(*targets, *[p for p in scene.populations if p.name != "target"]))


def template() -> Volume:
    """The target at 20 Å."""
    scatterer = scatterer_from_atoms(target_atoms(SESSION.scene.target))
    density = potential_map(scatterer, PIXEL, 48)
    filtered = low_pass(torch.as_tensor(density.data), LOWPASS, PIXEL)
    return Volume(data=filtered.numpy(), voxel_size=PIXEL)


def wilson(count: int, total: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927)."""
    if not total:
        return 0.0, 1.0
    z, part = 1.96, count / total
    middle = part + z**2 / (2 * total)
    half = z * np.sqrt(part * (1 - part) / total + z**2 / (4 * total**2))
    return (middle - half) / (1 + z**2 / total), (middle + half) / (1 + z**2 / total)
