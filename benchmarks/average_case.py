"""The three averages of known structures: a scene is imaged, picked, refined and held against truth and oracle.

Simulated with more than the refinement knows: molecules cut into slabs of depth, each at its own defocus; partial
coherence in time and space; a B-factor of every image; DQE and MTF of the camera; ice that moves from image to image;
gold, other proteins, and copies beside the field that only tilted images see. True geometry and CTF are given; picks,
poses, weights and averages are not. Figures as in the design's section on the measuring rod. TILTWISE_AVERAGE_SERIES
and TILTWISE_AVERAGE_SEED set the number of tilt series (default: the case's own) and the seed (0); TILTWISE_MODELS
names the folder of the models.
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import gemmi
import numpy as np
import torch
from averaged_crossings import averaged_crossings
from scipy.spatial.transform import Rotation

from tiltwise.data.atoms import Atoms
from tiltwise.data.maps import HalfMaps
from tiltwise.data.particles import Particles
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.data.volume import Volume
from tiltwise.io.model import assembly_names, read_molecule
from tiltwise.ops.filters import low_pass
from tiltwise.ops.fsc import fourier_shell_correlation
from tiltwise.ops.maps.fsc_precision import crossing_with_range, independent_values
from tiltwise.ops.masks import soft_mask_from_map
from tiltwise.ops.poses.comparison import compare_poses, match_points, nearest_equivalent
from tiltwise.ops.symmetry import symmetry_order, symmetry_rotations
from tiltwise.params.microscope import CameraParams, MicroscopeParams, MotionParams, SchemeParams
from tiltwise.params.pick import PickParams
from tiltwise.params.postprocess import PostprocessParams
from tiltwise.params.reconstruct import ReconstructParams
from tiltwise.params.refine import RefineParams
from tiltwise.params.scene import CrowdParams, GoldParams, IceParams, SceneParams, TargetParams
from tiltwise.params.session import SessionParams
from tiltwise.project.store import join
from tiltwise.project.threads import keep_freed_memory
from tiltwise.simulate.image_scene import image_scene
from tiltwise.simulate.potential import potential_map, scatterer_from_atoms
from tiltwise.simulate.scene import Scene
from tiltwise.simulate.scene_session import prepare_series
from tiltwise.stages.pick import pick
from tiltwise.stages.postprocess import postprocess
from tiltwise.stages.reconstruct import reconstruct
from tiltwise.stages.refine import refine
from tiltwise.workflows.map_scores import average_as, score_maps, shell_frequency
from tiltwise.workflows.simulation import Truth

MODELS = Path(os.environ.get("TILTWISE_MODELS", Path(__file__).parents[2] / "shared" / "data" / "models"))
RATE = 0.05
"""False picks stated."""
_MASK_RESOLUTION, _MASK_GROW, _MASK_EDGE, _MASK_LEVEL = 15.0, 8.0, 24.0, 0.15  # as workflows/simulation.py has them


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What is imaged, and how it is averaged."""

    model: str
    """File name."""
    symmetry: str
    """Point group."""
    diameter: float
    """Of the particle, Å."""
    box_size: int
    """px, of refinement, oracle and truth."""
    lowpass: float
    """Of the reference that picking and refinement are given, Å."""
    voxel_size: float
    """Of the tomogram, Å."""
    number: int
    """Particles of a field."""
    thickness: float
    """Of the ice, Å."""
    defocus: tuple[float, float]
    """Least and greatest, Å."""
    series: int
    """Tilt series."""
    angular_step: float = 15.0
    """Of the template, degrees."""
    image_size: int = 1024
    """px."""
    pixel_size: float = 2.1
    """Å."""


def run_case(case: Case) -> dict:
    """All figures of a case."""
    path = MODELS / case.model
    if not path.is_file():
        return {"skipped": f"no model at {path}; set TILTWISE_MODELS"}
    keep_freed_memory()
    clock = [time.process_time()]
    known = simulate(case, in_standard_frame(path, case.symmetry))
    clock.append(time.process_time())
    density = torch.as_tensor(np.array(known.map.data))
    reference = Volume(data=low_pass(density, case.lowpass, case.pixel_size).numpy(), voxel_size=case.pixel_size)
    picks, figures = find(case, known, reference)
    clock.append(time.process_time())
    params = RefineParams(
        box_size=case.box_size,
        particle_diameter=case.diameter,
        symmetry=case.symmetry,
        reference_lowpass=case.lowpass,
    )
    result = refine(known.tilt_series, picks, reference, params, progress=tell)
    clock.append(time.process_time())
    figures |= measure(case, known, result)
    clock.append(time.process_time())
    names = ("simulate_cpu_s", "pick_cpu_s", "refine_cpu_s", "measure_cpu_s")
    return figures | {name: round(seconds, 1) for name, seconds in zip(names, np.diff(clock), strict=True)}


def tell(fraction: float, text: str) -> None:
    """Say on stderr how far the refinement is; the figures alone go to stdout."""
    sys.stderr.write(f"{100 * fraction:3.0f} %  {text}\n")


def simulate(case: Case, atoms: Atoms, change: Callable[[Scene], Scene] = lambda scene: scene) -> Truth:
    """The case's tilt series with their true geometry and CTF, and all that is known of them; `change` makes of each
    scene the one that is imaged."""
    seed, number = (int(os.environ.get(f"TILTWISE_AVERAGE_{n}", v)) for n, v in (("SEED", 0), ("SERIES", case.series)))
    session = SessionParams(
        scene=SceneParams(
            target=TargetParams(number=case.number),
            ice=IceParams(thickness=case.thickness),
            crowd=CrowdParams(fraction=0.005, masses=(2e5,)),
            gold=GoldParams(number=2),
        ),
        microscope=MicroscopeParams(
            scheme=SchemeParams(defocus_min=case.defocus[0], defocus_max=case.defocus[1]),
            camera=CameraParams(pixel_size=case.pixel_size, image_size=case.image_size),
            motion=MotionParams(local=0.0, deformation=0.0, magnification=0.0),
        ),
        seed=seed,
    )
    series: dict[str, TiltSeries] = {}
    particles: dict[str, Particles] = {}
    for i in range(1, number + 1):
        made = prepare_series(session, i, model=atoms, frames=False)
        scene = change(made.scene)
        images = image_scene(scene, made.series, made.params, made.seed, disturbances=made.disturbances)
        name, target = made.series.name, made.scene.populations[0]
        series[name] = replace(made.series, images=np.stack(list(images)))
        particles[name] = Particles(
            tilt_series=np.full(len(target.position), name),
            position=target.position,
            rotation=target.rotation,
            score=np.zeros(len(target.position)),
            half_set=np.zeros(len(target.position), dtype=int),
            region=np.full(len(target.position), -1),
        )
    density = potential_map(scatterer_from_atoms(atoms), case.pixel_size, case.box_size)
    return Truth(
        tilt_series=series,
        particles=join("particles", particles),
        map=density,
        mask=truth_mask(density),
        particle_diameter=case.diameter,
        reference_lowpass=case.lowpass,
        symmetry=case.symmetry,
    )


def truth_mask(density: Volume) -> Volume:
    """Soft mask about the truth, made as the demo's is."""
    filtered = low_pass(torch.as_tensor(density.data), _MASK_RESOLUTION, density.voxel_size)
    level = _MASK_LEVEL * float(np.percentile(filtered.numpy(), 99.9))
    mask = soft_mask_from_map(filtered, level, _MASK_GROW / density.voxel_size, _MASK_EDGE / density.voxel_size)
    return Volume(data=mask.numpy(), voxel_size=density.voxel_size)


def find(case: Case, known: Truth, reference: Volume) -> tuple[Particles, dict]:
    """Picks of every tomogram at the stated rate, and how many are false (none within half a particle radius)."""
    params = PickParams(
        particle_diameter=case.diameter,
        symmetry=case.symmetry,
        false_discovery_rate=RATE,
        angular_step=case.angular_step,
    )
    picks, good = {}, 0
    for name, series in known.tilt_series.items():
        volume = ReconstructParams(voxel_size=case.voxel_size, thickness=case.thickness + 400.0)
        picks[name] = pick(reconstruct(series, volume).tomogram, series, reference, None, None, params).particles
        own = known.particles.position[known.particles.tilt_series == name]
        good += len(match_points(picks[name].position, own, case.diameter / 4)[0])
    joined = join("particles", picks)
    return joined, {
        "pick_rate_stated": RATE,
        "pick_precision": round(good / len(joined), 4),
        "pick_recall": round(good / len(known.particles), 4),
        "picks": len(joined),
        "true_particles": len(known.particles),
    }


def measure(case: Case, known: Truth, result) -> dict:
    """Poses, resolutions and the oracle of what the refinement left."""
    ours, theirs = [], []
    for name in known.tilt_series:
        found, true = (np.flatnonzero(p.tilt_series == name) for p in (result.particles, known.particles))
        places = (result.particles.position[found], known.particles.position[true])
        first, second = match_points(*places, case.diameter / 4)
        ours.append(found[first])
        theirs.append(true[second])
    own, true = result.particles[np.concatenate(ours)], known.particles[np.concatenate(theirs)]
    rotation = nearest_equivalent(own.rotation, true.rotation, case.symmetry)
    errors = compare_poses(own.position, rotation, true.position, true.rotation)
    reached = {
        "measured": result.half_maps,
        "expected": average_as(result.tilt_series, result.particles, known, "expected"),
    }
    scores = score_maps(reached, np.concatenate(theirs), known, errors.reference_motion.inverse())
    halves = compare_with_halves(known, reached[scores["weighting"]["reached"]], scores)
    finished = postprocess(result.half_maps, PostprocessParams(local_resolution=False))
    return {
        **{key: value for key, value in scores.items() if not isinstance(value, list)},
        "resolution_fsc_A": finished.quality["resolution_fsc_A"],
        "resolution_fsc_range_A": finished.quality["resolution_range_A"],
        "resolution_fsc_sphere_A": result.quality["resolution_fsc_A"],
        **halves,
        "pose_error_median_deg": round(float(np.median(errors.angle)), 3),
        "pose_shift_median_A": round(float(np.median(errors.shift)), 3),
        "pose_outliers": round(float(np.mean(errors.angle > 15)), 4),
        "particles_refined": len(result.particles),
        "false_refined": len(result.particles) - len(own),
        "iterations": len(result.quality["iterations"]),
        "resolution_by_iteration_A": str([round(i["resolution_fsc_A"], 2) for i in result.quality["iterations"]]),
    }


def compare_with_halves(known: Truth, maps: HalfMaps, scores: dict) -> dict:
    """Half maps (0.143) and FSC to truth (0.5) of ours and the oracle's within the truth's mask, all averaged over
    shells that hold too few independent values (ops/maps/fsc_precision.py), with their 95 % ranges; `fsc_excess`, the
    mean over the shells down to the first of C_ref = sqrt(2 FSC / (1 + FSC)) less the FSC to truth.

    Halves that share nothing but the signal let expect C_ref of the merged map: noise that they share would show as an
    excess.
    """
    mask = torch.as_tensor(np.array(known.mask.data))
    first, second = (torch.as_tensor(np.array(v.data, dtype=np.float32)) * mask for v in (maps.half1, maps.half2))
    fsc, to_truth = fourier_shell_correlation(first, second), torch.as_tensor(scores["fsc_to_truth"])
    frequency, values = shell_frequency(known), independent_values(len(mask), mask, symmetry_order(known.symmetry))
    halves, halves_range = crossing_with_range(frequency, fsc, values, 0.143)
    averaged = averaged_crossings(known, scores)
    expected = (2 * fsc / (1 + fsc)).clamp_min(0).sqrt()
    inside = frequency <= 1 / halves
    return {
        "halves_truth_mask_A": halves,
        "halves_truth_mask_range_A": halves_range,
        **averaged,
        "fsc_over_truth": round(halves / averaged["truth_averaged_A"], 4),
        "fsc_excess": round(float((expected - to_truth)[inside][1:].mean()), 4),
    }


def in_standard_frame(path: Path, symmetry: str) -> Atoms:
    """The biological assembly about the origin, its axes those of ops/symmetry.py."""
    atoms = read_molecule(path)
    if symmetry == "C1":
        return replace(atoms, position=atoms.position - atoms.position.mean(axis=0))
    mates = assembly_rotations(path)
    wanted = symmetry_rotations(symmetry).numpy()
    if len(mates) != len(wanted):
        raise ValueError(f"{path}: {len(mates)} copies of its first chain, {symmetry} has {len(wanted)}")
    main = _axis(mates, 90.0, None)
    across = _axis(mates, 90.0 if symmetry == "O" else 180.0, main)
    frame = np.stack([across, np.cross(main, across), main])
    turned = frame @ mates @ frame.T
    missing = max(float(np.abs(turned - g).max(axis=(1, 2)).min()) for g in wanted)
    if missing > 0.02:
        raise ValueError(f"{path}: its assembly is {missing:.3f} off the group {symmetry}")
    return replace(atoms, position=(atoms.position - atoms.position.mean(axis=0)) @ frame.T)


def assembly_rotations(path: Path) -> np.ndarray:
    """(mate, 3, 3) rotations that bring the first chain onto each chain of the same sequence, by its C-alpha atoms."""
    structure = gemmi.read_structure(str(path))
    structure.transform_to_assembly(assembly_names(path)[0], gemmi.HowToNameCopiedChain.AddNumber)
    traces = [_trace(chain) for chain in structure[0]]
    traces = [t - t.mean(axis=0) for t in traces if len(t) == len(traces[0])]
    return np.stack([Rotation.align_vectors(t, traces[0])[0].as_matrix() for t in traces])


def _trace(chain: gemmi.Chain) -> np.ndarray:
    return np.array([r["CA"][0].pos.tolist() for r in chain.get_polymer() if "CA" in r])


def _axis(mates: np.ndarray, angle: float, across: np.ndarray | None) -> np.ndarray:
    """Axis of a mate turned by `angle` degrees, perpendicular to another axis where one is given."""
    for vector in Rotation.from_matrix(mates).as_rotvec(degrees=True):
        length = float(np.linalg.norm(vector))
        if abs(length - angle) < 2 and (across is None or abs(vector @ across) < 0.03 * length):
            axis = vector / length
            if across is not None:
                axis = axis - (axis @ across) * across
            return axis / np.linalg.norm(axis)
    raise ValueError(f"no mate is turned by {angle:g} degrees")


torch.set_grad_enabled(False)
