import pytest

from tiltwise.params.simulate import ErrorParams, SimulateParams, SpecimenParams
from tiltwise.workflows.simulation import Recording, Truth, read_truth, write_simulation

SMALL = SimulateParams(
    pixel_size=6.0,
    image_size=128,
    tilt_step=10.0,
    exposure=10.0,
    motion_b_factor=100.0,
    specimen=SpecimenParams(molecular_weight=4e5, diameter=120.0, thickness=350.0, particles=12, margin=10.0),
    errors=ErrorParams(shift_step=3.0),
)


@pytest.fixture(scope="session")
def simulation(tmp_path_factory) -> tuple[Recording, Truth]:
    """A session of two small series, as it lies on disk."""
    output = tmp_path_factory.mktemp("simulation")
    recording = write_simulation(output, SMALL, series=2, workers=1)
    return recording, read_truth(output / "truth")
