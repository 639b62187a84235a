"""`tiltwise simulate` from the request to the files: whole, readable, and the same bits every time."""

import hashlib
import json

import numpy as np
import pytest
from click.testing import CliRunner

from tiltwise.cli import tiltwise
from tiltwise.data.errors import InputError
from tiltwise.io.acquisition import read_acquisition
from tiltwise.io.frame_motion import read_motion
from tiltwise.io.mdoc import read_mdoc
from tiltwise.io.movies import open_movie
from tiltwise.io.mrc import read_mrc
from tiltwise.params.microscope import CameraParams, FaultParams, MicroscopeParams, SchemeParams
from tiltwise.params.scene import IceParams, SceneParams, TargetParams
from tiltwise.params.session import SessionParams
from tiltwise.workflows import scene_simulation
from tiltwise.workflows.scene_simulation import write_session
from tiltwise.workflows.session_request import session_params
from tiltwise.workflows.simulation import read_truth

SMALL = SessionParams(
    scene=SceneParams(target=TargetParams(number=2, mass=1e5, diameter=80.0), ice=IceParams(thickness=300.0)),
    microscope=MicroscopeParams(
        scheme=SchemeParams(tilt_max=60.0, tilt_step=30.0, frames=3, exposure=3.0),
        camera=CameraParams(pixel_size=6.0, image_size=96),
        faults=FaultParams(dark=1, blocked=1, missing=1),
    ),
    seed=1,
)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    output = tmp_path_factory.mktemp("session") / "out"
    return output, write_session(output, SMALL, movies="tif", workers=1)


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_what_the_microscope_leaves_can_be_read(session):
    output, recording = session
    series = read_acquisition(recording.stacks[0]).tilt_series
    assert series.stage_tilt_angle.tolist() == sorted(series.stage_tilt_angle)
    assert series.number == 4 and series.use.all()  # of five, one was never taken, but its exposure counts
    assert set(series.pre_exposure) < {0.0, 3.0, 6.0, 9.0, 12.0}
    assert series.geometry is None and series.ctf is None


def test_movies_sum_to_the_stack(session):
    output, recording = session
    mdoc = read_mdoc(f"{recording.stacks[0]}.mdoc")
    images, gain = read_mrc(recording.stacks[0])[0], read_mrc(output / "data" / "gain.mrc")[0][0]
    for section, image in zip(mdoc.images, images, strict=True):
        name = section.keys["SubFramePath"].split("\\")[-1]
        frames = np.stack(list(open_movie(output / "data" / "frames" / name)))
        assert frames.shape == (3, 96, 96) and frames.dtype == np.uint8
        assert section.keys["FrameDosesAndNumber"].split() == ["1", "3"]
        assert np.array_equal(np.rint(frames.sum(axis=0, dtype=np.float32) * gain), image)


def test_the_truth_beside_it(session):
    output, _ = session
    truth = read_truth(output / "truth")
    series = truth.tilt_series["TS_01"]
    assert len(truth.particles) == 2 and series.ctf is not None and series.defocus_handedness in (-1, 1)
    assert sorted(bool(reason) for reason in series.why_not)[-1] and "dark" in "".join(series.why_not)
    motion, deformation = read_motion(output / "truth" / "TS_01_motion.npz")
    assert motion.coefficient.shape == (4, 3, 6, 2) and deformation.magnification.shape == (4,)


def test_the_same_seed_gives_the_same_bits(session, tmp_path):
    write_session(tmp_path / "again", SMALL, movies="tif", workers=1)
    assert digests(tmp_path / "again") == digests(session[0])


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing(session, tmp_path):
    write_session(tmp_path / "two", SMALL, movies="tif", workers=2)
    assert digests(tmp_path / "two") == digests(session[0])


def test_nothing_is_left_of_a_session_that_failed(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("the beam is gone")

    monkeypatch.setattr(scene_simulation, "image_tilt", fail)
    with pytest.raises(RuntimeError):
        write_session(tmp_path / "out", SMALL, workers=1)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_not_touched(tmp_path):
    with pytest.raises(InputError, match="is there already"):
        write_session(tmp_path, SMALL)


def test_request_values_go_before_the_file_and_the_file_before_the_preset(tmp_path):
    file = tmp_path / "params.toml"
    file.write_text("[microscope.scheme]\nexposure = 2.0\ntilt_max = 45.0\n[scene.ice]\nthickness = 900.0\n")
    found = session_params(preset="ribosome-70s", params=file, seed=4, values={"tilt_max": 30.0, "frames": None})
    assert found.microscope.scheme.exposure == 2.0 and found.microscope.scheme.tilt_max == 30.0
    assert found.scene.ice.thickness == 900.0 and found.microscope.camera.pixel_size == 2.1 and found.seed == 4


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"preset": "ribosom"}, "no preset"),
        ({"values": {"exposure": -1.0}}, "microscope.scheme.exposure"),
        ({"values": {"tilt_max": 85.0}}, "microscope.scheme.tilt_max"),
    ],
)
def test_faults_of_a_request_are_one_line(request_, said):
    with pytest.raises(InputError, match=said) as error:
        session_params(**request_)
    assert "\n" not in str(error.value)


def test_the_command(tmp_path):
    words = "--preset apoferritin --image-size 64 --pixel-size 8 --particles 1 --tilt-step 30 --workers 1 --json"
    done = CliRunner().invoke(tiltwise, ["simulate", str(tmp_path / "out"), *words.split()])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.output.splitlines()]
    assert lines[-1]["kind"] == "summary" and (tmp_path / "out" / "data" / "TS_01.mrc").is_file()
