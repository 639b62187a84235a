"""The 70S ribosome in 150 nm of ice averaged from simulated series, against truth and oracle."""

from average_case import Case, run_case

CASE = Case(
    model="70s_ribosome_eftu_trna.pdb.gz",
    symmetry="C1",
    diameter=290.0,
    box_size=192,
    lowpass=40.0,
    voxel_size=8.4,
    number=40,
    thickness=1500.0,
    defocus=(25000.0, 40000.0),
    series=3,
)


def run() -> dict:
    return run_case(CASE)
