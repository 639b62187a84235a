"""RELION's 2D stacks: what RELION reconstructs of them is what we average, everything read back from the files."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from tiltwise.cli import main
from tiltwise.data.errors import InputError
from tiltwise.io.images import stack_image_names
from tiltwise.io.mrc import read_mrc, write_mrc
from tiltwise.io.relion import TomogramFile, read_optimisation_set, read_particles, read_tilt_series_set
from tiltwise.io.star import read_star
from tiltwise.ops.ctf import ctf_phase
from tiltwise.ops.fsc import fourier_shell_correlation
from tiltwise.ops.particles.half_maps import average_particles
from tiltwise.ops.particles.stacks import relion_stack
from tiltwise.project import store
from tiltwise.project.create import new_project
from tiltwise.project.importing import import_tilt_series
from tiltwise.project.layout import given_folder
from tiltwise.workflows import particle_stacks
from tiltwise.workflows.particle_stacks import export_relion

sys.path.append(str(Path(__file__).parents[1] / "stages"))
import particle_scene  # noqa: E402

BOX = 32


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A scene of 24 particles in two series, its set written for a project that holds just these."""
    folder = tmp_path_factory.mktemp("relion")
    scene = particle_scene.scene(noise=0.3)
    series = {}
    for name, one in scene.tilt_series.items():
        write_mrc(folder / f"{name}.mrc", one.images, one.pixel_size, stack=True)
        use = np.arange(one.number) != 3  # a tilt left out has no row in RELION's file
        series[name] = replace(one, use=use, image_names=stack_image_names(folder / f"{name}.mrc", one.number))
    rng = np.random.default_rng(0)
    number = len(scene.particles)
    region = rng.integers(-1, 4, number)
    particles = replace(scene.particles, half_set=1 + rng.permutation(number) % 2, region=region)
    tomogram = TomogramFile(path=folder / "t.mrc", shape=(30, 64, 64), voxel_size=16.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(particle_stacks, "ProjectState", lambda folder: SimpleNamespace(save_digests=lambda: None))
        patch.setattr(particle_stacks, "newest_particles", lambda state, only, kind: (particles, series))
        patch.setattr(particle_stacks, "_tomogram", lambda state, name: tomogram)
        files, note = export_relion(folder, folder / "out", box_size=BOX)
        with pytest.raises(InputError, match="RELION takes even boxes"):
            export_relion(folder, folder / "odd", box_size=BOX + 1)
        series["TS_1"] = replace(series["TS_1"], ctf=None)
        with pytest.raises(InputError, match="TS_1: has no defocus in every used tilt"):
            export_relion(folder, folder / "none", box_size=BOX)
    series["TS_1"] = replace(series["TS_1"], ctf=series["TS_2"].ctf)
    assert files[0].name == "optimisation_set.star" and note == ""
    return SimpleNamespace(folder=folder / "out", series=series, particles=particles)


def test_columns_and_stacks(exported):
    names = read_optimisation_set(exported.folder / "optimisation_set.star")
    blocks = read_star(exported.folder / names["particles"])
    assert blocks["general"] == {"rlnTomoSubTomosAre2DStacks": "1"}
    optics, table = blocks["optics"], blocks["particles"]
    expected = {"rlnImageDimensionality": "2", "rlnCtfDataAreCtfPremultiplied": "1", "rlnImageSize": str(BOX)}
    assert {key: optics[key][0] for key in expected} == expected
    assert float(optics["rlnImagePixelSize"][0]) == particle_scene.PIXEL
    for name, seen in zip(table["rlnImageName"], table["rlnTomoVisibleFrames"], strict=True):
        flags = [int(flag) for flag in seen.strip("[]").split(",")]
        assert len(flags) == 20  # 21 tilts, one left out
        assert read_mrc(exported.folder / name)[0].shape == (sum(flags), BOX, BOX)
    back = read_particles(exported.folder / names["particles"])
    assert np.abs(back.position - exported.particles.position).max() < 1e-9
    assert np.degrees((back.rotation.inv() * exported.particles.rotation).magnitude()).max() < 1e-6
    assert np.array_equal(back.half_set, exported.particles.half_set)


def test_the_set_with_stacks_comes_back_as_particles(exported, tmp_path, capsys):
    """`import --particles optimisation_set.star` of a project of the same series, which the set names; to 1e-3 Å and
    1e-4 degrees, far above the rounding of what is written."""
    for name, one in exported.series.items():
        shutil.copy(exported.folder.parent / f"{name}.mrc", tmp_path)
        (tmp_path / f"{name}.rawtlt").write_text("".join(f"{angle}\n" for angle in one.stage_tilt_angle))
    project = new_project(tmp_path / "project")
    import_tilt_series(project, [tmp_path])
    with pytest.raises(SystemExit) as left:
        main(["import", str(project), "--particles", str(exported.folder / "optimisation_set.star"), "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert not left.value.code and [row["form"] for row in rows] == ["relion"] * len(exported.series)
    for name in exported.series:
        own = exported.particles[exported.particles.tilt_series == name]
        back = store.load("given_particles", given_folder(project, name), project, series=name)
        assert np.abs(back.position - own.position).max() < 1e-3
        assert np.degrees((back.rotation.inv() * own.rotation).magnitude()).max() < 1e-4
        for field in ("half_set", "region", "score"):
            assert np.array_equal(getattr(back, field), getattr(own, field)), field


def test_binned_stack_is_the_stack_cut_in_fourier_space(exported):
    """Grey values divided by the binning, as RELION does; beyond the disc's edge of 5 px both differ."""
    one = exported.series["TS_2"]
    images = torch.as_tensor(np.array(one.images)[one.use])
    inside = exported.particles.position[exported.particles.tilt_series == "TS_2"][4]
    (fine, seen), (coarse, same) = (
        relion_stack(images, one, inside, box_size=box, binning=b) for box, b in ((2 * BOX, 1), (BOX, 2))
    )
    assert np.array_equal(seen, same) and fine.shape[1] == 2 * coarse.shape[1]
    spectra = np.fft.fftshift(np.fft.fft2(fine), axes=(1, 2))[:, BOX // 2 : -BOX // 2, BOX // 2 : -BOX // 2]
    cut = np.fft.ifft2(np.fft.ifftshift(spectra, axes=(1, 2))).real / 4 / 2
    inner = slice(8, -8)
    difference = (cut - coarse)[:, inner, inner]
    assert np.sqrt((difference**2).mean()) < 0.05 * coarse[:, inner, inner].std()


def relion_reconstruction(exported):
    """Σ c F / Σ c² by nearest-neighbour insertion, with nothing but the files and RELION's own convention: its CTF is
    +sin chi and its images are inverted, so the stacks are density times c²."""
    names = read_optimisation_set(exported.folder / "optimisation_set.star")
    series = read_tilt_series_set(exported.folder / names["tomograms"])
    table = read_star(exported.folder / names["particles"])["particles"]
    particles = read_particles(exported.folder / names["particles"])
    pixel, half = particle_scene.PIXEL, BOX // 2
    k = np.stack(np.meshgrid(np.arange(-half, half), np.arange(-half, half), indexing="ij")[::-1], -1)
    data, weight = np.zeros((BOX,) * 3, complex), np.zeros((BOX,) * 3)
    inner = np.linalg.norm(k, axis=-1) < half - 1
    for row, (name, text) in enumerate(zip(table["rlnImageName"], table["rlnTomoVisibleFrames"], strict=True)):
        one = series[str(particles.tilt_series[row])]
        stack = iter(np.asarray(read_mrc(exported.folder / name)[0]))
        turned = particles.rotation[row].inv().as_matrix()
        for tilt in np.flatnonzero([int(flag) for flag in text.strip("[]").split(",")]):
            g, c = one.geometry, one.ctf
            angles = [g.tilt_axis_angle[tilt], g.tilt_angle[tilt], g.x_tilt[tilt]]
            specimen = Rotation.from_euler("ZYX", angles, degrees=True).as_matrix()
            depth = (specimen @ particles.position[row])[2]
            azimuth, frequency = np.arctan2(k[..., 1], k[..., 0]), np.linalg.norm(k, axis=-1) / (BOX * pixel)
            u, v = c.defocus_u[tilt], c.defocus_v[tilt]
            spread = (u - v) * np.cos(2 * (azimuth - np.radians(c.astigmatism_angle[tilt])))
            defocus = (u + v + spread) / 2 + one.defocus_handedness * depth
            chi = ctf_phase(torch.as_tensor(frequency), torch.as_tensor(defocus), one.optics).numpy()
            dose = np.exp(-one.pre_exposure[tilt] / 2 / (0.245 * np.maximum(frequency, 1e-9) ** -1.665 + 2.81))
            squared = (np.sin(chi) * dose) ** 2
            image = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(next(stack))))
            place = k @ (turned @ specimen.T)[:, :2].T
            x, y, z = (np.rint(place[inner]).astype(int) + half).T
            np.add.at(data, (z, y, x), image[inner])
            np.add.at(weight, (z, y, x), squared[inner])
    spectrum = data / np.maximum(weight, 0.05 * weight.max())
    return np.real(np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(spectrum))))


def test_relions_reconstruction_of_the_stacks_is_our_average(exported):
    """Nearest-neighbour insertion and RELION's weights against our grid and measured weights: the same map, of the same
    sign and in the same place. A sign of the CTF or of the hand of a tilt gone wrong would leave no correlation."""
    relion = relion_reconstruction(exported)
    halves = average_particles(
        exported.series, exported.particles, box_size=BOX, particle_diameter=particle_scene.DIAMETER
    )
    ours = (halves.half1.data + halves.half2.data) / 2
    truth = particle_scene.reference(particle_scene.blobs(), BOX, particle_scene.SIGMA).data
    z, y, x = np.meshgrid(*[np.arange(BOX) - BOX // 2] * 3, indexing="ij")
    mask = np.clip((13 - np.sqrt(x**2 + y**2 + z**2)) / 3, 0, 1)
    first, second, known = (torch.as_tensor((one - one.mean()) * mask) for one in (relion, ours, truth))
    mutual = fourier_shell_correlation(first, second).numpy()
    to_truth = [fourier_shell_correlation(one, known).numpy() for one in (first, second)]
    signal = slice(1, 8)  # to 32 Å; the Gaussians of sigma 9 Å have little beyond
    print(mutual, to_truth)
    assert mutual[signal].min() > 0.98
    assert (to_truth[0][signal] > to_truth[1][signal] - 0.02).all()
