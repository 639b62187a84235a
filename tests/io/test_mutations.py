"""Some hundred real files with something broken in each: what cannot be read is an InputError of one line, and no other
error."""

import random
import shutil

import pytest

from tiltwise.data.errors import InputError
from tiltwise.io.acquisition import read_acquisition
from tiltwise.io.centres import read_centres
from tiltwise.io.imod import read_tlt, read_xf
from tiltwise.io.mdoc import acquisition_order, read_mdoc, tilt_axis_angle
from tiltwise.io.model import read_atoms
from tiltwise.io.mrc import read_mrc, read_volume
from tiltwise.io.relion import read_optimisation_set, read_particles, read_tilt_series, read_tilt_series_set
from tiltwise.io.star import read_star


def every_meaning_of_an_mdoc(path):
    mdoc = read_mdoc(path)
    return acquisition_order(mdoc), tilt_axis_angle(mdoc)


def as_any_star(path):
    for reader in (read_star, read_particles, read_tilt_series, read_tilt_series_set, read_optimisation_set):
        attempt(reader, path)
    attempt(read_centres, path)


def beside_a_stack(path):
    return read_acquisition(path.parent / "TS_03.mrc")


READERS = {
    "mdoc/*/*.mdoc": (every_meaning_of_an_mdoc, 4),
    "hiv_empiar10164/stacks/TS_03.mrc.mdoc": (beside_a_stack, 60),
    "hiv_empiar10164/stacks/TS_03.rawtlt": (beside_a_stack, 20),
    "hiv_empiar10164/relion5/Picks/job009/**/*.star": (as_any_star, 8),
    "hiv_empiar10164/relion5/Tomograms/job006/tomograms.star": (read_tilt_series_set, 20),
    "hiv_empiar10164/relion5/CtfRefine/job067/optimisation_set.star": (as_any_star, 10),
    "particle_tables/star/*.star": (as_any_star, 3),
    "alignment_text/*/*.xf": (read_xf, 4),
    "alignment_text/imod_bb/*.tlt": (read_tlt, 4),
    "maps/*3197.map": (read_volume, 40),
    "microtubule/beta-tubulin.mrc": (read_mrc, 40),
    "models/ca_sp1*.cif": (read_atoms, 8),
    "models/1bxn*.pdb": (read_atoms, 8),
}


def broken(raw: bytes, rng: random.Random, binary: bool) -> bytes:
    """Cut, doubled, shuffled or overwritten somewhere; half of the time near the beginning, where headers are."""
    end = len(raw) if rng.random() < 0.5 else min(len(raw), 1200)
    start = rng.randrange(max(end, 1))
    stop = min(len(raw), start + rng.choice((1, 4, 40, 400)))
    kind = rng.randrange(6)
    if kind == 0:
        return raw[:start]
    if kind == 1:
        return raw[:start] + raw[stop:]
    if kind == 2:
        return raw[:stop] + raw[start:]
    if kind == 3:
        return raw[:start] + bytes(rng.randrange(256) for _ in range(stop - start)) + raw[stop:]
    if kind == 4 or binary:
        return raw[:start] + rng.choice((b"\xff\xff\xff\x7f", b"\0\0\0\0", b"nan ", b"-1 ", b"\x00")) + raw[start + 4 :]
    lines = raw.split(b"\n")
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]
    return b"\n".join(lines)


def attempt(reader, path):
    try:
        reader(path)
    except InputError as error:
        assert str(error) and "\n" not in str(error) and len(str(error)) < 600


@pytest.mark.parametrize("pattern", READERS)
def test_only_input_errors_of_one_line(shared_data, tmp_path, pattern):
    reader, times = READERS[pattern]
    rng = random.Random(pattern)
    files = sorted(shared_data.glob(pattern))
    assert files
    for path in files:
        if reader is beside_a_stack:
            for other in path.parent.glob("TS_03*"):
                shutil.copyfile(other, tmp_path / other.name)
        if reader is read_tilt_series_set:
            shutil.copytree(path.parent / "tilt_series", tmp_path / "Tomograms/job006/tilt_series")
        raw = path.read_bytes()
        for _ in range(times):
            (tmp_path / path.name).write_bytes(broken(raw, rng, binary=path.suffix in (".map", ".mrc")))
            attempt(reader, tmp_path / path.name)
