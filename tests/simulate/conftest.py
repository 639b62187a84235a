import os
from pathlib import Path

import pytest

from tiltwise.params.simulate import SimulateParams, SpecimenParams
from tiltwise.simulate.potential import scatterer_from_atoms
from tiltwise.simulate.specimen import procedural_molecule

SMALL = SpecimenParams(molecular_weight=2e5, diameter=100.0, thickness=300.0, particles=4, margin=10.0)


@pytest.fixture
def small_params() -> SimulateParams:
    """A session of seconds: 96 px of 6 Å, five tilts, four molecules of 0.2 MDa."""
    return SimulateParams(pixel_size=6.0, image_size=96, tilt_max=60.0, tilt_step=30.0, specimen=SMALL)


@pytest.fixture(scope="session")
def small_scatterer():
    return scatterer_from_atoms(procedural_molecule(SMALL, 0))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    beside = Path(__file__).parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("TILTWISE_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip("the real data are not here")
    return folder
