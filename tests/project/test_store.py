"""Every kind of value comes back from disk as it was."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tiltwise.data.classes import ClassMaps
from tiltwise.data.errors import InputError
from tiltwise.data.maps import HalfMaps
from tiltwise.data.particles import Particles
from tiltwise.data.volume import Volume
from tiltwise.io.mrc import write_volume
from tiltwise.project import store


def particles(name, number, seed=0):
    rng = np.random.default_rng(seed)
    return Particles(
        tilt_series=np.full(number, name),
        position=rng.normal(size=(number, 3)),
        rotation=Rotation.from_quat(rng.normal(size=(number, 4))) if number else Rotation.identity(0),
        score=rng.normal(size=number),
        half_set=rng.integers(1, 3, number),
        region=rng.integers(-1, 3, number),
    )


def test_volumes(tmp_path):
    volume = Volume(data=np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32), voxel_size=3.5)
    for kind in ("tomogram", "map", "mask"):
        store.save(kind, volume, tmp_path)
        back = store.load(kind, tmp_path, tmp_path)
        np.testing.assert_array_equal(back.data, volume.data)
        assert back.voxel_size == volume.voxel_size
    for symmetry in ("C1", "O", "H(41,27.7,9)"):
        store.save("half_maps", HalfMaps(half1=volume, half2=volume, symmetry=symmetry), tmp_path)
        back = store.load("half_maps", tmp_path, tmp_path)
        np.testing.assert_array_equal(back.half2.data, volume.data)
        assert back.symmetry == symmetry
    write_volume(tmp_path / "half1.mrc", volume)  # of an older version, or another program
    assert store.load("half_maps", tmp_path, tmp_path).symmetry == "C1"


def test_particles_of_one_series_and_joined(tmp_path):
    both = store.join(
        "particles", {"A": particles("A", 3), "none": particles("none", 0), "B": particles("B", 2, seed=1)}
    )
    assert both.tilt_series.tolist() == list("AAABB")
    store.save("particles", both, tmp_path)
    back = store.load("particles", tmp_path, tmp_path)
    np.testing.assert_array_equal(back.position, both.position)
    np.testing.assert_array_equal(back.region, both.region)
    assert (back.rotation * both.rotation.inv()).magnitude().max() < 1e-9
    assert len(store.load("particles", tmp_path, tmp_path, series="B")) == 2
    assert len(store.load("particles", tmp_path, tmp_path, series="C")) == 0


def test_classes_of_particles(tmp_path):
    """Posteriors and the number of the likeliest class come back; joined with particles without, they are not known."""
    rng = np.random.default_rng(2)
    posterior = rng.dirichlet(np.ones(3), size=5)
    classified = replace(particles("A", 5), class_posterior=posterior)
    store.save("particles", classified, tmp_path)
    back = store.load("particles", tmp_path, tmp_path)
    np.testing.assert_allclose(back.class_posterior, posterior, rtol=1e-12)
    np.testing.assert_array_equal(back.class_number, posterior.argmax(1) + 1)
    np.testing.assert_array_equal(back[[3, 1]].class_number, back.class_number[[3, 1]])
    assert "rlnClassNumber" in (tmp_path / "particles.star").read_text()
    assert len(store.join("particles", {"A": back, "B": back}).class_posterior) == 10
    assert store.join("particles", {"A": back, "B": particles("B", 2)}).class_posterior is None


def test_uncertainties_of_particles(tmp_path):
    """They come back, go with the particles chosen, and are not known of particles joined that have none."""
    known = replace(particles("A", 4), uncertainty=np.array([[0.5, 1.25], [np.nan, np.nan], [2.0, 0.75], [1.0, 1.0]]))
    store.save("particles", known, tmp_path)
    back = store.load("particles", tmp_path, tmp_path)
    np.testing.assert_array_equal(back.uncertainty, known.uncertainty)
    np.testing.assert_array_equal(back[[2, 0]].uncertainty, known.uncertainty[[2, 0]])
    both = store.join("particles", {"A": back, "B": particles("B", 3)})
    np.testing.assert_array_equal(both.uncertainty[:4], known.uncertainty)
    assert np.isnan(both.uncertainty[4:]).all()
    assert store.join("particles", {"B": particles("B", 3)}).uncertainty is None
    assert "tiltwiseRotationErrorDeg" in (tmp_path / "particles.star").read_text()


def test_class_maps(tmp_path):
    volumes = tuple(Volume(data=np.full((4, 4, 4), float(k), np.float32), voxel_size=2.0) for k in range(11))
    files = store.save("class_maps", ClassMaps(maps=volumes), tmp_path)
    assert files[0].name == "class1.mrc" and len(files) == 11
    back = store.load("class_maps", tmp_path, tmp_path)
    assert [one.data[0, 0, 0] for one in back.maps] == list(range(11))


def test_no_particles_at_all(tmp_path):
    store.save("particles", store.join("particles", {"A": particles("A", 0)}), tmp_path)
    assert len(store.load("particles", tmp_path, tmp_path)) == 0


def test_tilt_series_points_to_the_images(project):
    series = store.load("tilt_series", project / "import" / "A", project)
    assert isinstance(series.images, np.memmap)
    assert series.images.shape == (3, 8, 6)
    assert not list(project.glob("import/*/*.mrc"))


@pytest.mark.parametrize(("data", "fault"), [(np.ones((4, 4, 4)), "constant"), (np.zeros((2, 4, 4)), "cube")])
def test_a_reference_at_fault_is_named(tmp_path, data, fault):
    store.save("map", Volume(data=data.astype(np.float32), voxel_size=2.0), tmp_path)
    with pytest.raises(InputError, match=f"map.mrc: .*{fault}"):
        store.load("reference", tmp_path / "map.mrc", tmp_path)


def test_centres_of_a_series(tmp_path):
    (tmp_path / "centres.txt").write_text("# mine\nA 1 2 3\nB 4, 5, 6, 370\nA -1 -2 -3\n")
    centres = store.load("centres", tmp_path / "centres.txt", tmp_path, series="A")
    np.testing.assert_array_equal(centres[:, :3], [[1, 2, 3], [-1, -2, -3]])
    assert np.isnan(centres[:, 3]).all()
    assert store.load("centres", tmp_path / "centres.txt", tmp_path, series="C") is None
    (tmp_path / "centres.txt").write_text("A 1 2\n")
    with pytest.raises(InputError, match="line 1"):
        store.load("centres", tmp_path / "centres.txt", tmp_path)
