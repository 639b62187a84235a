import pytest
from small_session import SMALL

from tiltwise.workflows.simulation import Recording, Truth, read_truth, write_simulation


@pytest.fixture(scope="session")
def simulation(tmp_path_factory) -> tuple[Recording, Truth]:
    """A session of two small series, as it lies on disk."""
    output = tmp_path_factory.mktemp("simulation")
    recording = write_simulation(output, SMALL, series=2, workers=1)
    return recording, read_truth(output / "truth")
