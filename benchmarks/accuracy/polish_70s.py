"""The 70S ribosome at 2.1 Å/px with geometry, defoci and poses in error as in practice: what polishing makes of it.

Sessions like EMPIAR-10304 (preset ribosome-70s, 100 nm of ice), smaller: two series of 1024 × 1024 px with 50 ribosomes
each by default. What is wrong, and what the figures are, stands at the head of polish_case.py. TILTWISE_POLISH_SIDE,
_SERIES, _PARTICLES (of a field), _SEED make it larger or another; TILTWISE_POLISH_ROWS (before,after) leaves rows of
the ladder out.
"""

import os

from polish_case import LADDER, MODELS, climb, make_case

from tiltwise.io.model import read_molecule
from tiltwise.params.polish import PolishParams
from tiltwise.params.session import SessionParams

MODEL = MODELS / "70s_ribosome_eftu_trna.pdb.gz"
SIDE, SERIES, PARTICLES, SEED = (
    int(os.environ.get(f"TILTWISE_POLISH_{name}", default))
    for name, default in (("SIDE", 1024), ("SERIES", 2), ("PARTICLES", 50), ("SEED", 0))
)
ROWS = tuple(os.environ.get("TILTWISE_POLISH_ROWS", ",".join(LADDER)).split(","))


def prepare():
    """The spoiled case; None without the model."""
    return make_case(session(), SERIES, read_molecule(MODEL), "C1") if MODEL.exists() else None


def session() -> SessionParams:
    """The preset on a smaller field, without gold and lumps of ice."""
    preset = SessionParams.preset("ribosome-70s", SEED)
    scene, microscope = preset.scene, preset.microscope
    return SessionParams(
        scene=scene.model_copy(
            update={
                "target": scene.target.model_copy(update={"number": PARTICLES}),
                "ice": scene.ice.model_copy(update={"thickness": 1000.0}),
                "gold": scene.gold.model_copy(update={"number": 0}),
                "contamination": scene.contamination.model_copy(update={"number": 0}),
            }
        ),
        microscope=microscope.model_copy(
            update={"camera": microscope.camera.model_copy(update={"image_size": SIDE, "pixel_size": 2.1})}
        ),
        seed=SEED,
    )


def run(case) -> dict:
    if case is None:
        return {"skipped": f"no model at {MODEL}; set TILTWISE_MODELS"}
    box, diameter = case.known.map.data.shape[0], case.known.particle_diameter
    return climb(case, PolishParams(box_size=box, particle_diameter=diameter), ROWS)
