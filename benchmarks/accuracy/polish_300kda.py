"""A particle of 300 kDa and D3 symmetry with geometry, defoci and poses in error: what polishing makes of it.

The procedural particle of the preset small-300kda, at 2.0 Å/px in 70 nm of ice: by default two series of 1024 × 1024 px
with 130 particles each. What is wrong, and what the figures are, stands at the head of polish_case.py; the settings are
those of polish-70s.
"""

from polish_case import Case, climb_all, make_case, missing, setting, small_session

from tiltwise.params.polish import PolishParams

SIDE, SERIES, PARTICLES = setting("SIDE", 1024), setting("SERIES", 2), setting("PARTICLES", 130)


def make(seed: int) -> Case:
    session = small_session("small-300kda", particles=PARTICLES, side=SIDE, pixel_size=2.0, thickness=700.0, seed=seed)
    return make_case(session, SERIES, None, "D3")


def params(case: Case) -> PolishParams:
    box, diameter = case.known.map.data.shape[0], case.known.particle_diameter
    return PolishParams(box_size=box, particle_diameter=diameter, symmetry=case.known.symmetry)


def run() -> dict:
    return climb_all(make, params, missing())
