"""Gain references, defect maps, tilt series of the project, true motions and models with assemblies, each with
something broken some hundred times: read, or refused in one line that names the file; never slow, never by asking for
much memory."""

import dataclasses
import random
import time
import tracemalloc
import warnings

import numpy as np
import pytest
import tifffile
from test_mutations import broken

from tiltwise.data.deformation import Deformation, ImageWarp, SampleDeformation
from tiltwise.data.errors import InputError
from tiltwise.data.motion import FrameMotion
from tiltwise.io.defects import read_defects
from tiltwise.io.frame_motion import read_motion, write_motion
from tiltwise.io.images import ImageFile, read_image
from tiltwise.io.model import read_molecule
from tiltwise.io.movies import read_gain
from tiltwise.io.mrc import write_mrc
from tiltwise.io.relion import read_tilt_series, write_tilt_series

MEMORY = 1 << 30
"""Bytes that a reader may ask for: the file's image and a copy are at most half of it, whatever a small file states."""
SECONDS = 3.0
"""For a file that takes a few milliseconds, on a machine that may be busy."""


def struck(raw: bytes, rng: random.Random) -> bytes:
    """As `broken`, and some bytes among the first, where sizes and places stand, overwritten one by one."""
    data = bytearray(broken(raw, rng, binary=True))
    for _ in range(rng.choice((0, 0, 1, 4))):
        if data:
            data[rng.randrange(min(len(data), 400))] = rng.randrange(256)
    return bytes(data)


def read_or_refuse(reader, path, named=None, traced=False) -> bool:
    """Whether the file was read; what is refused is refused as it should be. Tracing memory takes time."""
    if traced:
        tracemalloc.start(1)
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            reader(path)
        read = True
    except InputError as error:
        read = False
        assert "\n" not in str(error) and str(named or path) in str(error) and len(str(error)) < 600
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert time.process_time() - start < SECONDS and peak < MEMORY
    return read


def an_image(path):
    return np.array(read_image(ImageFile(path=path, section=0)))


def write_camera_files(folder):
    """Gains and defect maps in every form that they come in."""
    rng = np.random.default_rng(0)
    gain, bad = rng.normal(1, 0.1, (24, 32)).astype(np.float32), rng.random((24, 32)) < 0.05
    write_mrc(folder / "gain.mrc", gain, 1.0)
    tifffile.imwrite(folder / "gain.tif", gain)
    tifffile.imwrite(folder / "gain.gain", gain, compression="lzw")
    tifffile.imwrite(folder / "big.tif", gain, compression="zlib", bigtiff=True)
    tifffile.imwrite(folder / "tiles.tif", gain, compression="zlib", tile=(16, 16))
    write_mrc(folder / "bad.mrc", bad.astype(np.int8), 1.0)
    tifffile.imwrite(folder / "bad.tif", bad.astype(np.uint8), compression="lzw")
    (folder / "bad.txt").write_text("# x y w h\n" + "".join(f"{n} {2 * n} 1 {n + 1}\n" for n in range(20)))


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        *((name, read_gain) for name in ("gain.mrc", "gain.tif", "gain.gain", "big.tif", "tiles.tif")),
        *((name, read_defects) for name in ("bad.mrc", "bad.tif", "bad.txt")),
        ("tiles.tif", an_image),
    ],
)
def test_gain_references_and_defect_maps(tmp_path, name, reader):
    write_camera_files(tmp_path)
    path, rng = tmp_path / name, random.Random(name)
    raw = path.read_bytes()
    read = [read_or_refuse(reader, path)]
    for turn in range(200):
        path.write_bytes(broken(raw, rng, binary=False) if path.suffix == ".txt" else struck(raw, rng))
        read.append(read_or_refuse(reader, path, traced=turn % 6 == 0))
    assert read[0] and 3 < sum(read) < 195


def test_a_picture_that_no_file_of_its_size_can_hold_is_refused(tmp_path):
    """40000 × 40000 pixels are stated, 1.6 GB, in a file of a few hundred bytes."""
    tifffile.imwrite(tmp_path / "gain.tif", np.zeros((24, 32), np.uint8), compression="lzw")
    with tifffile.TiffFile(tmp_path / "gain.tif", mode="r+b") as tiff:
        for side in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tiff.pages[0].tags[side].overwrite(40000)
    for reader in (read_gain, read_defects, an_image):
        assert not read_or_refuse(reader, tmp_path / "gain.tif", traced=True)


def test_a_map_of_few_defects_that_zstd_makes_tiny_is_read(tmp_path):
    bad = np.zeros((4096, 6000), np.uint8)
    bad[7, 9] = 1
    tifffile.imwrite(tmp_path / "bad.tif", bad, compression="zstd", rowsperstrip=4096)
    assert bad.nbytes > 4096 * (tmp_path / "bad.tif").stat().st_size
    assert read_defects(tmp_path / "bad.tif").rectangles.tolist() == [[9, 4088, 1, 1]]


def test_tilt_series_of_the_project(tmp_path, make_tilt_series):
    rng = np.random.default_rng(0)
    knots, controls = np.array([0.0, 60, 120]), rng.normal(size=(3, 10, 3))
    sample = SampleDeformation(exposure=knots, coefficient=controls, scale=900.0, magnification=np.ones(5))
    warp = ImageWarp(coefficient=rng.normal(size=(5, 3, 2, 2)), extent=(900.0, 800.0))
    series = dataclasses.replace(make_tilt_series(), deformation=Deformation(sample=sample, image=warp))
    path, chance = tmp_path / "tilts.star", random.Random("tilts")
    write_tilt_series(path, series)
    raw = path.read_bytes()
    read = [read_or_refuse(read_tilt_series, path)]
    for _ in range(300):
        path.write_bytes(broken(raw, chance, binary=False))
        read.append(read_or_refuse(read_tilt_series, path, named=tmp_path))  # or the images that it names
    assert read[0] and 3 < sum(read) < 290


def test_true_motions(tmp_path):
    rng = np.random.default_rng(0)
    motion = FrameMotion(
        exposure=rng.random((3, 4)), coefficient=rng.normal(size=(3, 4, 6, 2)), blur=np.zeros((3, 4, 2)), scale=900.0
    )
    path, chance = tmp_path / "motion.npz", random.Random("motion")
    write_motion(path, motion, None)
    raw = path.read_bytes()
    read = [read_or_refuse(read_motion, path)]
    for _ in range(300):
        path.write_bytes(struck(raw, chance))
        read.append(read_or_refuse(read_motion, path))
    assert read[0] and sum(read) < 290


def test_models_with_assemblies(tmp_path, shared_data):
    lines = (shared_data / "models" / "1bxn_rubisco.pdb").read_text().splitlines()
    head = [line for line in lines if line.startswith(("REMARK 350", "CRYST1"))]
    every = [line for line in lines if line.startswith("ATOM")]
    chains = dict.fromkeys(line[21] for line in every)
    atoms = [line for chain in chains for line in [one for one in every if one[21] == chain][:4]]
    raw, path, rng = "\n".join([*head, *atoms, "END\n"]).encode(), tmp_path / "model.pdb", random.Random("model")
    path.write_bytes(raw)
    read = [read_or_refuse(read_molecule, path)]
    for _ in range(300):
        path.write_bytes(broken(raw, rng, binary=False))
        read.append(read_or_refuse(read_molecule, path))
    assert read[0] and 3 < sum(read) < 290
