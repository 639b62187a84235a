import numpy as np
import pytest
import tifffile
from made_eer import write_eer

from tiltwise.data.errors import InputError
from tiltwise.io.defects import read_defects
from tiltwise.io.eer import group_frames
from tiltwise.io.movies import EerReading, open_movie, read_gain, write_movie
from tiltwise.io.mrc import write_mrc
from tiltwise.ops.motion.defect_map import defective_pixels

SHAPE = (5, 24, 32)


@pytest.fixture
def frames():
    return np.random.default_rng(0).poisson(1.0, SHAPE).astype(np.uint8)


def write_tiff(path, frames, compression):
    with tifffile.TiffWriter(path) as tiff:
        for frame in frames:
            tiff.write(frame[::-1], compression=compression, photometric="minisblack", metadata=None)


@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
def test_tiff_movies_of_every_compression(tmp_path, frames, compression):
    write_tiff(tmp_path / "movie.tif", frames, compression)
    movie = open_movie(tmp_path / "movie.tif")
    assert movie.shape == SHAPE and movie.dtype == np.uint8
    assert np.array_equal(np.stack(list(movie)), frames)
    assert np.allclose(movie.exposure_shares, 0.2)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.float32])
def test_mrc_movies_are_mapped(tmp_path, frames, dtype):
    write_mrc(tmp_path / "movie.mrc", frames.astype(dtype), 1.0, stack=True)
    movie = open_movie(tmp_path / "movie.mrc")
    first = next(iter(movie))
    assert isinstance(first, np.memmap) and not first.flags.owndata
    assert np.array_equal(np.stack(list(movie)), frames)


def made_events(rng, shape, count):
    places = rng.choice(shape[0] * shape[1], count, replace=False)
    return [(int(p) // shape[1], int(p) % shape[1], *map(int, rng.integers(0, 4, 2))) for p in places]


@pytest.mark.parametrize("upsampling", [1, 2, 4])
def test_eer_events_fall_where_they_were_put(tmp_path, upsampling):
    rng, shape = np.random.default_rng(0), (40, 64)
    pages = [made_events(rng, shape, 30) for _ in range(7)]
    write_eer(tmp_path / "movie.eer", pages, shape)
    movie = open_movie(tmp_path / "movie.eer", reading=EerReading(frames=3, upsampling=upsampling))
    assert movie.shape == (3, shape[0] * upsampling, shape[1] * upsampling)
    expected = np.zeros(movie.shape, int)
    for group, pages_of_group in enumerate(movie.groups):
        for page in pages_of_group:
            for y, x, sub_y, sub_x in pages[page]:
                part = 4 // upsampling
                expected[group, y * upsampling + sub_y // part, x * upsampling + sub_x // part] += 1
    assert np.array_equal(np.stack(list(movie)), expected[:, ::-1])
    assert movie.exposure_shares == pytest.approx([len(g) / 7 for g in movie.groups])


def test_groups_leave_no_page_out():
    for pages, frames in [(7, 3), (240, 8), (5, 8)]:
        groups = group_frames(pages, frames)
        assert [page for group in groups for page in group] == list(range(pages))
        assert max(map(len, groups)) - min(map(len, groups)) <= 1


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("kind", ["mrc", "tif", "eer"])
def test_a_truncated_movie_is_one_line(tmp_path, frames, kind):
    path = tmp_path / f"movie.{kind}"
    if kind == "mrc":
        write_mrc(path, frames, 1.0, stack=True)
    elif kind == "tif":
        write_tiff(path, frames, "lzw")
    else:
        write_eer(path, [made_events(np.random.default_rng(i), (40, 64), 300) for i in range(6)], (40, 64))
    data = path.read_bytes()
    for part in (0.02, 0.3, 0.6, 0.9):
        path.write_bytes(data[: int(part * len(data))])
        with pytest.raises(InputError) as error:
            list(open_movie(path))
        assert str(path) in one_line(error)


def test_a_tiff_whose_last_frame_is_cut_off_is_refused_when_it_is_opened(tmp_path, frames):
    path = tmp_path / "movie.tif"
    write_movie(path, frames.astype(np.uint8), 1.0)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="beyond its end"):
        open_movie(path)


def test_mutated_movies_never_end_in_another_error(tmp_path, frames):
    rng = np.random.default_rng(0)
    sources = {}
    write_tiff(tmp_path / "a.tif", frames, "lzw")
    write_eer(tmp_path / "a.eer", [made_events(rng, (40, 64), 60) for _ in range(4)], (40, 64))
    write_mrc(tmp_path / "a.mrc", frames, 1.0, stack=True)
    for suffix in ("tif", "eer", "mrc"):
        sources[suffix] = (tmp_path / f"a.{suffix}").read_bytes()
    for trial in range(300):
        suffix = ("tif", "eer", "mrc")[trial % 3]
        data = bytearray(sources[suffix])
        for at in rng.integers(0, len(data), rng.integers(1, 6)):
            data[at] = rng.integers(0, 256)
        path = tmp_path / f"m.{suffix}"
        path.write_bytes(data[: rng.integers(8, len(data) + 1)])
        try:
            movie = open_movie(path)
            if np.prod(movie.shape, dtype=object) < 10**7:
                list(movie)
        except InputError as error:
            assert "\n" not in str(error)


def test_absent_and_foreign_files_are_one_line(tmp_path):
    for name in ("movie.mrc", "movie.tif", "movie.eer"):
        with pytest.raises(InputError, match="cannot be read"):
            open_movie(tmp_path / name)
    with pytest.raises(InputError, match="movies are read from MRC, TIFF and EER"):
        open_movie(tmp_path / "movie.mp4")


def test_gain_references(tmp_path):
    gain = np.random.default_rng(0).normal(1, 0.1, (24, 32)).astype(np.float32)
    write_mrc(tmp_path / "gain.mrc", gain, 1.0)
    tifffile.imwrite(tmp_path / "gain.tif", gain[::-1])
    (tmp_path / "gain.gain").write_bytes((tmp_path / "gain.tif").read_bytes())
    for name, divided in [("gain.mrc", False), ("gain.tif", False), ("gain.gain", True)]:
        found, by_sensitivity = read_gain(tmp_path / name)
        assert np.array_equal(found, gain) and by_sensitivity is divided
    with pytest.raises(InputError, match="a gain reference is an MRC"):
        read_gain(tmp_path / "gain.dm4")


def test_defect_maps(tmp_path):
    path = tmp_path / "defects.txt"
    path.write_text("# x y w h\n3 4 2 1\n10 0 1 24 # a column\n")
    found = read_defects(path)
    assert found.rectangles.tolist() == [[3, 4, 2, 1], [10, 0, 1, 24]] and found.shape is None
    bad = np.zeros((24, 32), bool)
    bad[4, 3:5], bad[:, 31], bad[9, 0] = True, True, True
    write_mrc(tmp_path / "bad.mrc", bad.astype(np.int8), 1.0)
    tifffile.imwrite(tmp_path / "bad.tif", bad[::-1].astype(np.uint8))
    for name in ("bad.mrc", "bad.tif"):
        found = read_defects(tmp_path / name)
        assert found.shape == (24, 32) and np.array_equal(defective_pixels(found, (24, 32), 1), bad)


@pytest.mark.parametrize("line", ["3 4 two 1", "3 4 2", "-1 0 1 1", "0 0 0 5", "0 0 1 99999999", "1.5 0 1 1", "\0"])
def test_a_wrong_defect_list_is_one_line(tmp_path, line):
    (tmp_path / "defects.txt").write_text(f"1 1 1 1\n{line}\n")
    with pytest.raises(InputError, match=r"defects.txt: (each line of a defect list|this is not a text file)") as error:
        read_defects(tmp_path / "defects.txt")
    one_line(error)
