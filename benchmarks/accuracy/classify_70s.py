"""States of the 70S ribosome told apart without references: with and without EF-Tu·tRNA, and with and without one tRNA.

The model file is seven entries one after the other. In the first case half of the particles lack the last two, A/T tRNA
and EF-Tu (68 kDa of 2.3 MDa); in the second (`trna_`) three in four lack the E-site tRNA with its mRNA (25 kDa). Each
case is series of 120 e⁻/Å² at 4 Å/px in 70 nm of ice, 40 particles a series, imaged by the simulated microscope (depth
of field, ice, counting, blur); true geometry and CTF are given, poses are off by errors of 0.5° about each axis and
1 Å along it. `accuracy` is the part of the particles in the right class, classes matched as is best;
`accuracy_expected` what the posteriors themselves promise; `halves_agree` the part that independent halves put into the
same class; `gain_per_particle` and its standard error are in units of log likelihood. TILTWISE_MODELS names the folder
of the model.
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
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from tiltwise.data.particles import Particles
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.io.model import read_molecule
from tiltwise.params.classify import ClassifyParams
from tiltwise.params.simulate import SimulateParams, SpecimenParams
from tiltwise.project.store import join
from tiltwise.project.threads import keep_freed_memory
from tiltwise.simulate.acquisition import acquire
from tiltwise.simulate.microscope import image_specimen
from tiltwise.simulate.potential import Scatterer, scatterer_from_atoms
from tiltwise.simulate.session import populate, series_name
from tiltwise.stages.classify import classify

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


Case = tuple[dict[str, TiltSeries], Particles, np.ndarray]
"""Series by name, their particles as a refinement leaves them, and the state of each."""


def prepare() -> dict[str, Case] | None:
    """The cases by prefix; None without the model."""
    return {prefix: make_case(*case) for prefix, case in CASES.items()} if MODEL.exists() else None


def make_case(entries: tuple[int, ...], part: float) -> Case:
    """A case in which a part of the particles lacks some entries of the model."""
    states = two_states(MODEL, entries)
    made = [simulate(states, part, number) for number in range(1, SERIES + 1)]
    particles = join("particles", {series.name: own for series, own, _ in made})
    return {series.name: series for series, _, _ in made}, particles, np.concatenate([state for _, _, state in made])


def two_states(path: Path, entries: tuple[int, ...]) -> tuple[Scatterer, Scatterer]:
    """The whole model, and the same without some of its entries, in one frame."""
    lines = gzip.decompress(path.read_bytes()).decode("ascii").splitlines(keepends=True)
    heads = [n for n, line in enumerate(lines) if line.startswith("HEADER")] + [len(lines)]
    with tempfile.TemporaryDirectory() as folder:
        factor = Path(folder) / "factor.pdb"
        factor.write_text("".join(line for e in entries for line in lines[heads[e] : heads[e + 1]]))
        whole, left_out = read_molecule(path), read_molecule(factor)
    kept = cKDTree(left_out.position).query(whole.position)[0] > 1e-3
    scatterer = scatterer_from_atoms(whole)
    return scatterer, replace(scatterer, position=scatterer.position[kept], weight=scatterer.weight[kept])


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
    return {f"{prefix}{name}": value for prefix, case in cases.items() for name, value in measure(*case).items()}


def measure(series: dict[str, TiltSeries], particles: Particles, state: np.ndarray) -> dict:
    """Figures of one case."""
    started = time.perf_counter()
    result = classify(series, particles, None, ClassifyParams(particle_diameter=DIAMETER, box_size=BOX, seed=SEED))
    quality = result.quality
    return {
        "accuracy": accuracy(result.particles.class_number, state),
        "accuracy_expected": round(quality["expected_accuracy"], 4),
        "halves_agree": round(quality["halves_agree"], 4),
        "particles": len(state),
        "class_size": [round(size, 3) for size in quality["class_size"]],
        "gain_per_particle": round(quality["likelihood_gain_per_particle"], 2),
        "gain_error": round(quality["likelihood_gain_error"], 2),
        "start_gains": [[round(gain, 1) for gain in start["likelihood_gain"]] for start in quality["starts"]],
        "classify_s": round(time.perf_counter() - started, 1),
    }


def accuracy(number: np.ndarray, state: np.ndarray) -> float:
    """Part of the particles in the right class, classes matched as is best."""
    orders = permutations(range(2))
    return round(float(max(np.mean(np.array(order)[number - 1] == state) for order in orders)), 4)


torch.set_grad_enabled(False)
