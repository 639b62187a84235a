"""The motions of movies as a file: bit by bit, movies opened as they were read, faults in one line."""

import random
from dataclasses import replace

import numpy as np
import pytest
from made_eer import write_eer

from tiltwise.data.defects import DefectMap
from tiltwise.data.errors import InputError
from tiltwise.data.motion import Motion, MovieMotions, MovieReading
from tiltwise.io.movie_motions import read_motions, write_motions
from tiltwise.io.movies import write_movie


def made(folder, *, amplitude=()):
    """Three tilts: local motion, no movie, motion of the whole."""
    rng = np.random.default_rng(0)
    names = []
    for number in (1, 3):
        path = folder / f"movies/tilt {number}.mrc"
        path.parent.mkdir(exist_ok=True)
        write_movie(path, rng.poisson(3, (4, 8, 10)).astype(np.uint8), 1.5)
        names.append(str(path))
    first, last = (
        Motion(
            exposure=rng.uniform(0.5, 1, 4),
            shift=rng.normal(size=(4, 2)),
            coefficient=inside,
            extent=(15.0, 12.0),
        )
        for inside in (rng.normal(size=(6, 4, 5, 2)), None)
    )
    return MovieMotions(
        movies=(None,) * 3,
        movie_names=(names[0], "", names[1]),
        faults=("",) * 3,
        motion=(first, None, last),
        defects=DefectMap(rectangles=np.array([[3, 0, 1, 8], [5, 5, 2, 1]]), shape=(8, 10) if amplitude else None),
        reading=MovieReading(gain_orientation=6, gain_inverted=True, find_defects=False, samples=1, binning=2),
        weighting="measured" if amplitude else "critical",
        amplitude=amplitude,
    )


def same(one, other):
    assert (one is None) == (other is None)
    if one is not None:
        assert one.extent == other.extent
        assert (one.coefficient is None) == (other.coefficient is None)
        for field in ("exposure", "shift", *(["coefficient"] if one.coefficient is not None else [])):
            assert np.array_equal(getattr(one, field), getattr(other, field))


@pytest.mark.parametrize("measured", [False, True])
def test_round_trip(tmp_path, measured):
    amplitude = np.random.default_rng(1).uniform(0.5, 1.5, (4, 2))
    motions = made(tmp_path, amplitude=(amplitude, None, amplitude[::-1]) if measured else ())
    write_motions(tmp_path / "motions.star", motions, root=tmp_path)
    assert str(tmp_path) not in (tmp_path / "motions.star").read_text()
    found = read_motions(tmp_path / "motions.star", root=tmp_path)
    assert found.reading == motions.reading and found.weighting == motions.weighting
    assert np.array_equal(found.defects.rectangles, motions.defects.rectangles)
    assert found.defects.shape == motions.defects.shape
    assert found.movie_names == motions.movie_names and found.faults == ("",) * 3
    for one, other in zip(found.motion, motions.motion, strict=True):
        same(one, other)
    assert [None if movie is None else movie.shape for movie in found.movies] == [(4, 8, 10), None, (4, 8, 10)]
    assert len(found.amplitude) == len(motions.amplitude)
    for one, other in zip(found.amplitude, motions.amplitude, strict=True):
        assert (one is None and other is None) or np.array_equal(one, other)


def test_electrons_are_counted_into_the_frames_of_then(tmp_path):
    rng = np.random.default_rng(0)
    pages = [[(int(y), int(x), 1, 2) for y, x in np.argwhere(rng.uniform(size=(16, 24)) < 0.1)] for _ in range(12)]
    write_eer(tmp_path / "a.eer", pages, (16, 24))
    motion = Motion(exposure=np.full(5, 0.4), shift=np.zeros((5, 2)), coefficient=None, extent=(24.0, 16.0))
    motions = MovieMotions(
        movies=(None,),
        movie_names=(str(tmp_path / "a.eer"),),
        faults=("",),
        motion=(motion,),
        reading=MovieReading(samples=2),
    )
    write_motions(tmp_path / "motions.star", motions)
    found = read_motions(tmp_path / "motions.star")
    assert found.movies[0].shape == (5, 32, 48)
    assert sum(int(frame.sum()) for frame in found.movies[0]) == sum(map(len, pages))


def test_a_movie_that_is_gone_or_other_says_so(tmp_path):
    motions = made(tmp_path)
    write_motions(tmp_path / "motions.star", motions)
    write_movie(motions.movie_names[0], np.zeros((3, 8, 10), np.uint8), 1.5)
    (tmp_path / "movies/tilt 3.mrc").unlink()
    found = read_motions(tmp_path / "motions.star")
    assert found.movies == (None, None, None)
    assert "has 3 frames, but the motion of 4 is known" in found.faults[0]
    assert "tilt 3.mrc" in found.faults[2] and not any("\n" in fault for fault in found.faults)


def test_damage_is_one_line(tmp_path):
    """The file cut or changed anywhere is read or refused in one line."""
    write_motions(tmp_path / "motions.star", made(tmp_path))
    text, chance = (tmp_path / "motions.star").read_text(), random.Random("motions")
    lines = text.split("\n")
    for _ in range(150):
        broken = list(lines)
        number = chance.randrange(len(lines))
        kind = chance.choice(("drop", "word", "cut"))
        if kind == "drop":
            del broken[number]
        elif kind == "cut":
            broken = broken[:number]
        else:
            words = broken[number].split("\t")
            words[chance.randrange(len(words))] = chance.choice(("x", "-3", "1e9", "nan"))
            broken[number] = "\t".join(words)
        (tmp_path / "broken.star").write_text("\n".join(broken))
        try:
            read_motions(tmp_path / "broken.star")
        except InputError as error:
            assert "\n" not in str(error)


def test_nothing_to_write_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no movie"):
        write_motions(tmp_path / "motions.star", replace(made(tmp_path), motion=(None,) * 3))
