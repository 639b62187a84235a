"""RuBisCO L8S8 (D4, 540 kDa) averaged from simulated series, against truth and oracle."""

from average_case import Case, run_case

CASE = Case(
    model="1bxn_rubisco.pdb",
    symmetry="D4",
    diameter=135.0,
    box_size=128,
    lowpass=20.0,
    voxel_size=8.4,
    number=60,
    thickness=700.0,
    defocus=(15000.0, 30000.0),
    series=2,
)


def run() -> dict:
    return run_case(CASE)
