"""What the tests of the file formats share: the real data, and tilt series to write."""

import os
from pathlib import Path

import numpy as np
import pytest

from tiltwise.data.optics import Ctf, Optics
from tiltwise.data.tilt_series import GoldBeads, TiltGeometry, TiltSeries
from tiltwise.io.images import stack_image_names
from tiltwise.io.mrc import write_mrc


@pytest.fixture(scope="session")
def shared_data() -> Path:
    beside = Path(__file__).parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("TILTWISE_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip("the real data are not here")
    return folder


@pytest.fixture
def make_tilt_series(tmp_path):
    """A factory of tilt series whose stack lies in a file; `changes` replaces fields."""

    def make(name: str = "TS_1", number: int = 5, seed: int = 0, **changes) -> TiltSeries:
        rng = np.random.default_rng(seed)
        stack = tmp_path / "stacks" / f"{name}.mrc"
        stack.parent.mkdir(exist_ok=True)
        write_mrc(stack, rng.normal(size=(number, 8, 10)).astype(np.float32), 2.5, stack=True)
        fields = {
            "name": name,
            "images": np.zeros((number, 8, 10), np.float32),
            "image_names": stack_image_names(stack, number),
            "pixel_size": 2.5,
            "optics": Optics(),
            "stage_tilt_angle": np.linspace(-60, 60, number) + rng.normal(size=number),
            "nominal_tilt_axis_angle": 85.3,
            "exposure": rng.uniform(2, 4, number),
            "pre_exposure": rng.permutation(number) * 3.1,
            "acquisition_order": rng.permutation(number),
            "nominal_defocus": rng.uniform(1e4, 4e4, number),
            "use": np.arange(number) != 1,
            "why_not": tuple('dark: it\'s 3 "sigma" too dark' if i == 1 else "" for i in range(number)),
            "geometry": TiltGeometry(
                tilt_angle=rng.normal(size=number) * 40,
                tilt_axis_angle=85 + rng.normal(size=number),
                x_tilt=rng.normal(size=number),
                shift=rng.normal(size=(number, 2)) * 50,
            ),
            "specimen_thickness": 1234.5678,
            "beads": GoldBeads(position=rng.normal(size=(3, 3)) * 900, diameter=98.7),
            "ctf": Ctf(
                defocus_u=rng.uniform(1e4, 4e4, number),
                defocus_v=rng.uniform(1e4, 4e4, number),
                astigmatism_angle=rng.uniform(-90, 90, number),
                phase_shift=rng.uniform(0, 90, number),
                defocus_error=np.where(np.arange(number) == 2, np.nan, rng.uniform(10, 90, number)),
                fit_resolution=np.where(np.arange(number) == 2, np.nan, rng.uniform(4, 9, number)),
            ),
            "defocus_handedness": -1,
        }
        return TiltSeries(**(fields | changes))

    return make
