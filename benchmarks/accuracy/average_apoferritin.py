"""Apoferritin (octahedral, 480 kDa) averaged from a simulated series, against truth and oracle."""

from average_case import Case, run_case

CASE = Case(
    model="4v1w_apoferritin.cif",
    symmetry="O",
    diameter=135.0,
    box_size=128,
    lowpass=20.0,
    voxel_size=8.4,
    number=60,
    thickness=500.0,
    defocus=(12000.0, 25000.0),
    series=1,
)


def run() -> dict:
    return run_case(CASE)
