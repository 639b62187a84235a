"""States of the 70S ribosome told apart without references: with and without EF-Tu·tRNA, and with and without one tRNA.

The model file is seven entries one after the other. In the first case half of the particles lack the last two, A/T tRNA
and EF-Tu (68 kDa of 2.3 MDa); in the second (`trna_`) three in four lack the E-site tRNA with its mRNA (25 kDa). Each
case is series of 120 e⁻/Å² at 4 Å/px in 70 nm of ice, 40 particles a series, imaged by the simulated microscope (depth
of field, ice, counting, blur); true geometry and CTF are given, poses are off by errors of 0.5° about each axis and
1 Å along it. `accuracy` is the part of the particles in the right class, classes matched as is best;
`accuracy_expected` what the posteriors themselves promise; `halves_agree` the part that independent halves put into the
same class; `gain_per_particle` and its standard error are in units of log likelihood.

The third case (`found_`) is average-70s whose every second particle lacks A/T tRNA and EF-Tu: 2.1 Å/px, 150 nm of ice,
the full physics of average_case.py; nothing is given but geometry, CTF and a reference at 40 Å of the whole model, with
which particles are picked and refined before they are sorted. Its `accuracy` is over the particles that are true, its
`recall` the part of these among all. TILTWISE_MODELS names the folder of the model, TILTWISE_CLASSIFY_CASES=found_ the
cases (the prefixes, with commas; the first has none), TILTWISE_AVERAGE_SEED the third's seed.
"""

import gzip
import os
import tempfile
import time
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from average_70s import CASE
from average_case import find, in_standard_frame
from average_case import simulate as simulate_fields
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from tiltwise.data.particles import Particles
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.data.volume import Volume
from tiltwise.io.model import read_molecule
from tiltwise.ops.filters import low_pass
from tiltwise.ops.poses.comparison import match_points
from tiltwise.params.classify import ClassifyParams
from tiltwise.params.refine import RefineParams
from tiltwise.params.simulate import SimulateParams, SpecimenParams
from tiltwise.project.store import join
from tiltwise.project.threads import keep_freed_memory
from tiltwise.simulate.acquisition import acquire
from tiltwise.simulate.microscope import image_specimen
from tiltwise.simulate.potential import Scatterer, scatterer_from_atoms
from tiltwise.simulate.scene import Scene
from tiltwise.simulate.session import populate, series_name
from tiltwise.stages.classify import classify
from tiltwise.stages.refine import refine

MODELS = Path(os.environ.get("TILTWISE_MODELS", Path(__file__).parents[3] / "shared" / "data" / "models"))
MODEL = MODELS / "70s_ribosome_eftu_trna.pdb.gz"
CASES = {"": ((5, 6), 0.5), "trna_": ((3,), 0.75)}  # prefix of the figures: entries left out, and of which part
SERIES, SEED = 5, 0
PARAMS = SimulateParams(
    pixel_size=4.0,
    image_size=512,
    tilt_step=3.0,
    seed=SEED,
    specimen=SpecimenParams(thickness=700.0, particles=40, surroundings=False),
)
TURN, MOVE = 0.5, 1.0  # degrees and Å about and along each axis
DIAMETER, BOX = 280.0, 96
FOUND = "found_"


Case = tuple[dict[str, TiltSeries], Particles, np.ndarray]
"""Series by name, their particles as a refinement leaves them, and the state of each."""


def prepare() -> dict[str, Case] | None:
    """The cases by prefix, of those with given poses; None without the model."""
    if not MODEL.exists():
        return None
    return {prefix: make_case(*case) for prefix, case in CASES.items() if prefix in chosen_cases()}


def chosen_cases() -> list[str]:
    """Their prefixes."""
    return os.environ.get("TILTWISE_CLASSIFY_CASES", ",".join([*CASES, FOUND])).split(",")


def make_case(entries: tuple[int, ...], part: float) -> Case:
    """A case in which a part of the particles lacks some entries of the model."""
    states = two_states(MODEL, entries)
    made = [simulate(states, part, number) for number in range(1, SERIES + 1)]
    particles = join("particles", {series.name: own for series, own, _ in made})
    return {series.name: series for series, _, _ in made}, particles, np.concatenate([state for _, _, state in made])


def two_states(path: Path, entries: tuple[int, ...]) -> tuple[Scatterer, Scatterer]:
    """The whole model, and the same without some of its entries, in one frame."""
    scatterer = scatterer_from_atoms(read_molecule(path))
    return scatterer, without(scatterer, kept_atoms(path, entries))


def without(scatterer: Scatterer, kept: np.ndarray) -> Scatterer:
    """The kept (atom,) of a model, where they are in the whole."""
    return replace(scatterer, position=scatterer.position[kept], weight=scatterer.weight[kept])


def kept_atoms(path: Path, entries: tuple[int, ...]) -> np.ndarray:
    """(atom,) bool of the model: in none of the entries."""
    lines = gzip.decompress(path.read_bytes()).decode("ascii").splitlines(keepends=True)
    heads = [n for n, line in enumerate(lines) if line.startswith("HEADER")] + [len(lines)]
    with tempfile.TemporaryDirectory() as folder:
        factor = Path(folder) / "factor.pdb"
        factor.write_text("".join(line for e in entries for line in lines[heads[e] : heads[e + 1]]))
        whole, left_out = read_molecule(path), read_molecule(factor)
    return cKDTree(left_out.position).query(whole.position)[0] > 1e-3


def simulate(states: tuple[Scatterer, Scatterer], part: float, number: int) -> tuple[TiltSeries, Particles, np.ndarray]:
    """One series, its particles at poses in error, and the state of each."""
    errors, specimen, noise = (np.random.default_rng(s) for s in np.random.SeedSequence([SEED, 70, number]).spawn(3))
    series = acquire(PARAMS, series_name(number), errors)
    particles, _ = populate(states[0], PARAMS, series, specimen)
    state = (specimen.permutation(len(particles)) < part * len(particles)).astype(int)
    copies = [(states[s], particles[state == s]) for s in (0, 1)]
    images = image_specimen(copies, series, PARAMS, noise)
    count = (len(particles), 3)
    posed = replace(
        particles,
        position=particles.position + errors.normal(0, MOVE, count),
        rotation=particles.rotation * Rotation.from_rotvec(errors.normal(0, TURN, count), degrees=True),
    )
    return replace(series, images=images), posed, state


def run(cases: dict[str, Case] | None) -> dict:
    if cases is None:
        return {"skipped": f"no model at {MODEL}; set TILTWISE_MODELS"}
    keep_freed_memory()
    found = {prefix: measure(*case) for prefix, case in cases.items()}
    if FOUND in chosen_cases():
        found[FOUND] = measure_found()
    return {f"{prefix}{name}": value for prefix, figures in found.items() for name, value in figures.items()}


def measure_found() -> dict:
    """Figures of the case in which particles and poses are found first."""
    kept = kept_atoms(MODEL, CASES[""][0])
    known = simulate_fields(CASE, in_standard_frame(MODEL, CASE.symmetry), lambda scene: every_second(scene, kept))
    density = torch.as_tensor(np.array(known.map.data))
    reference = Volume(data=low_pass(density, CASE.lowpass, CASE.pixel_size).numpy(), voxel_size=CASE.pixel_size)
    picks, _ = find(CASE, known, reference)
    params = RefineParams(box_size=CASE.box_size, particle_diameter=CASE.diameter, reference_lowpass=CASE.lowpass)
    refined = refine(known.tilt_series, picks, reference, params)
    started = time.perf_counter()
    params = ClassifyParams(particle_diameter=CASE.diameter, box_size=CASE.box_size, seed=SEED)
    result = classify(refined.tilt_series, refined.particles, None, params)
    ours, state = true_states(result.particles, known.particles)
    return {
        "accuracy": accuracy(result.particles.class_number[ours], state),
        **classified(result.quality),
        "particles": len(result.particles),
        "recall": round(len(ours) / len(known.particles), 4),
        "resolution_refined_A": round(refined.quality["resolution_fsc_A"], 2),
        "classify_s": round(time.perf_counter() - started, 1),
    }


def every_second(scene: Scene, kept: np.ndarray) -> Scene:
    """The scene whose every second target has the kept atoms alone."""
    parts = []
    for body in scene.populations:
        if body.name != "target":
            parts.append(body)
            continue
        for state, scatterer in enumerate((body.scatterer, without(body.scatterer, kept))):
            own = slice(state, None, 2)
            parts.append(replace(body, scatterer=scatterer, position=body.position[own], rotation=body.rotation[own]))
    return replace(scene, populations=tuple(parts))


def true_states(particles: Particles, known: Particles) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the particles that are true, one to one, and the state of each: in each series every second's."""
    ours, states = [], []
    for name in sorted(set(known.tilt_series.tolist())):
        own, true = (np.flatnonzero(p.tilt_series == name) for p in (particles, known))
        first, second = match_points(particles.position[own], known.position[true], CASE.diameter / 4)
        ours.append(own[first])
        states.append(second % 2)
    return np.concatenate(ours), np.concatenate(states)


def measure(series: dict[str, TiltSeries], particles: Particles, state: np.ndarray) -> dict:
    """Figures of one case."""
    started = time.perf_counter()
    result = classify(series, particles, None, ClassifyParams(particle_diameter=DIAMETER, box_size=BOX, seed=SEED))
    quality = result.quality
    return {
        "accuracy": accuracy(result.particles.class_number, state),
        **classified(quality),
        "particles": len(state),
        "classify_s": round(time.perf_counter() - started, 1),
    }


def classified(quality: dict) -> dict:
    """What a classification says of itself."""
    return {
        "accuracy_expected": round(quality["expected_accuracy"], 4),
        "halves_agree": round(quality["halves_agree"], 4),
        "class_size": [round(size, 3) for size in quality["class_size"]],
        "gain_per_particle": round(quality["likelihood_gain_per_particle"], 2),
        "gain_error": round(quality["likelihood_gain_error"], 2),
        "start_gains": [[round(gain, 1) for gain in start["likelihood_gain"]] for start in quality["starts"]],
    }


def accuracy(number: np.ndarray, state: np.ndarray) -> float:
    """Part of the particles in the right class, classes matched as is best."""
    orders = permutations(range(2))
    return round(float(max(np.mean(np.array(order)[number - 1] == state) for order in orders)), 4)


torch.set_grad_enabled(False)
