"""The 70S ribosome at 2.1 Å/px with geometry, defoci and poses in error as in practice: what polishing makes of it.

Sessions like EMPIAR-10304 (preset ribosome-70s, 100 nm of ice), smaller: two series of 1024 × 1024 px with 50 ribosomes
each by default. What is wrong, and what the figures are, stands at the head of polish_case.py. TILTWISE_POLISH_SIDE,
_SERIES, _PARTICLES (of a field) make it larger, _SEED another.
"""

from polish_case import MODELS, Case, climb_all, make_case, missing, setting, small_session

from tiltwise.io.model import read_molecule
from tiltwise.params.polish import PolishParams

MODEL = MODELS / "70s_ribosome_eftu_trna.pdb.gz"
SIDE, SERIES, PARTICLES = setting("SIDE", 1024), setting("SERIES", 2), setting("PARTICLES", 50)


def make(seed: int) -> Case:
    session = small_session("ribosome-70s", particles=PARTICLES, side=SIDE, pixel_size=2.1, thickness=1000.0, seed=seed)
    return make_case(session, SERIES, read_molecule(MODEL), "C1")


def params(case: Case) -> PolishParams:
    return PolishParams(box_size=case.known.map.data.shape[0], particle_diameter=case.known.particle_diameter)


def run() -> dict:
    return climb_all(make, params, missing(MODEL))
