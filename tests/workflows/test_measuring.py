"""`tiltwise bfactor` and `tiltwise model-fsc` on a finished project, as the user calls them: what they print, what they
write, and that both say what the closed form of the particle says."""

import json
import math
import struct
from dataclasses import replace

import gemmi
import numpy as np
import pytest
from blob_project import BOX, PIXEL, particle_scene, picked_project, put

from tiltwise.cli import main
from tiltwise.data.volume import Volume
from tiltwise.ops.particles.half_maps import average_particles
from tiltwise.ops.particles.references import sphere_mask
from tiltwise.workflows import model_fit, particle_number
from tiltwise.workflows.particle_number import ParticleNumber, Subset

DIAMETER = particle_scene.DIAMETER
SERIES, PER_SERIES = 6, 12
TRUE_B = 8 * math.pi**2 * particle_scene.SIGMA**2
"""Å²: exp(-B k² / 4) is the amplitude exp(-2 π² σ² k²) of each Gaussian."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project refined to the true poses and averaged, every third tilt in use; the mask is the sphere."""
    scene = particle_scene.scene(series=11, particles=12, noise=6.0)
    use = np.arange(21) % 3 == 0
    halves = 1 + np.random.default_rng(0).permutation(len(scene.particles)) % 2
    scene = particle_scene.Scene(
        tilt_series={name: replace(one, use=use) for name, one in scene.tilt_series.items()},
        particles=replace(scene.particles, half_set=halves),
        centres=scene.centres,
    )
    project, series = picked_project(tmp_path_factory.mktemp("blobs"), scene)
    maps = average_particles(series, scene.particles, box_size=BOX, particle_diameter=DIAMETER)
    values = {"particles": scene.particles, "half_maps": maps, "tilt_series": series}
    put(project, "refine", "all", {"box_size_px": BOX}, values)
    mask = Volume(data=sphere_mask(BOX, PIXEL, DIAMETER / 2).numpy(), voxel_size=PIXEL)
    mean = Volume(data=(maps.half1.data + maps.half2.data) / 2, voxel_size=PIXEL)
    put(project, "postprocess", "all", {}, {"map": mean, "mask": mask})
    return project


@pytest.fixture
def tiltwise(capsys):
    """Run a command in this process: exit code and standard output."""

    def run(*words):
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        return left.value.code, capsys.readouterr().out

    return run


def is_picture(path):
    """Whether a file is a PNG of a figure's size."""
    head = path.read_bytes()[:24]
    return head[:8] == b"\x89PNG\r\n\x1a\n" and min(struct.unpack(">II", head[16:24])) > 200


def steepest_b(number, resolution):
    """B of the line through 1/d² over ln N for what the Gaussians, the CTF (its first top is at 34 Å, its first zero at
    24 Å) and the thinning of slices leave of the signal, exp(-B k² / 2) sin²χ / k, were shells independent and fine."""
    k = np.linspace(1 / 34, 1 / 25, 2000)
    chi = np.pi * 0.0196875 * k**2 * (29850 - 0.5 * 0.0196875**2 * k**2 * 2.7e7) + np.arcsin(0.07)
    signal = np.log(np.exp(-TRUE_B * k**2 / 2) * np.sin(chi) ** 2 / k)
    wanted = np.interp(1 / resolution, k, signal) + np.log(number.max() / number)
    return 2 / np.polyfit(np.log(number), np.interp(-wanted, -signal, k) ** 2, 1)[0]


def test_bfactor_lies_between_that_of_the_particle_and_of_its_images(finished, tiltwise, monkeypatch):
    """Halves, quarters and eighths of 66 + 66 particles, three times each. The Gaussians alone bound B from below,
    their images, which fall faster, from above. The standard error is small enough to tell it from none."""
    code, out = tiltwise("bfactor", finished, "--json")
    found, kept = json.loads(out.splitlines()[-1]), json.loads((finished / "bfactor.json").read_text())
    assert code == 0 and kept == found | {"seed": 0, "nyquist_A": 2 * PIXEL}
    number = np.array([one["particles"] for one in found["subsets"]])
    inverse = np.array([one["resolution"] for one in found["subsets"]]) ** -2.0
    assert number.tolist() == [132, 66, 66, 66, 32, 32, 32, 16, 16, 16]
    assert inverse.max() < (1.03 * 2 * PIXEL) ** -2  # the pixel limits none
    sizes = np.unique(number)
    slope = np.polyfit(np.log(sizes), [inverse[number == size].mean() for size in sizes], 1)[0]
    assert found["b_factor"] == pytest.approx(2 / slope, rel=1e-9)
    steepest, error = steepest_b(sizes, found["subsets"][0]["resolution"]), found["b_factor_error"]
    assert TRUE_B - 3 * error < found["b_factor"] < steepest + 3 * error and 6 * error < found["b_factor"]
    assert is_picture(finished / "bfactor.png")

    again = ParticleNumber(**found | {"subsets": tuple(Subset(**one) for one in found["subsets"])})
    files = [finished / "bfactor.json", finished / "bfactor.png"]
    monkeypatch.setattr(particle_number, "measure_particle_number", lambda *args, **more: (again, files))
    code, out = tiltwise("bfactor", finished)
    assert code == 0 and f"B-factor {again.b_factor:.0f} ± {again.b_factor_error:.0f} Å²" in out
    assert out.splitlines()[-1] == ", ".join(map(str, files)) and "note: at poses refined with all particles" in out


def write_model(path, position):
    """An mmCIF file with a carbon atom at each position (atom, 3), Å."""
    structure, model, chain = gemmi.Structure(), gemmi.Model("1"), gemmi.Chain("A")
    for number, place in enumerate(position, start=1):
        residue, atom = gemmi.Residue(), gemmi.Atom()
        residue.name, residue.seqid = "ALA", gemmi.SeqId(str(number))
        atom.name, atom.element, atom.pos, atom.b_iso = "CA", gemmi.Element("C"), gemmi.Position(*place), 30.0
        residue.add_atom(atom)
        chain.add_residue(residue)
    model.add_chain(chain)
    structure.add_model(model)
    structure.setup_entities()
    structure.make_mmcif_document().write_file(str(path))
    return path


def test_model_fsc_finds_the_particle_in_its_place_and_its_hand(finished, tiltwise, tmp_path, monkeypatch):
    """Carbon atoms where the Gaussians are: an FSC does not see how wide they are. Voxel 0 is the file's origin. The
    model reaches what the halves promise of a perfect one, to a shell, and the edge of the particle is off its place by
    no more than a tenth of that; the mirror image does worse. Of the mirror image one place of the search is fitted."""
    monkeypatch.setattr(model_fit, "_TRIED", 1)
    model = write_model(tmp_path / "blobs.cif", particle_scene.blobs() + BOX // 2 * PIXEL)
    code, out = tiltwise("model-fsc", finished, model)
    kept = json.loads((finished / "model-fsc.json").read_text())
    assert code == 0 and f"{kept['resolution']:.4g}" in out and is_picture(finished / "model-fsc.png")
    reached, promised = kept["resolution"], kept["resolution_expected"]
    assert abs(1 / reached - 1 / promised) < 1 / (BOX * PIXEL)
    assert not kept["searched"] and kept["resolution_mirrored"] > reached
    assert kept["shift"] < promised / 10 and np.radians(kept["rotation_angle"]) * DIAMETER / 2 < promised / 10
    assert len(kept["frequency"]) == len(kept["fsc_model"]) == len(kept["fsc_expected"]) == BOX // 2 + 1
    assert all(f"note: {note}" in out for note in kept["notes"])
