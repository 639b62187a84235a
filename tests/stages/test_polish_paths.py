"""Polishing particles that move on paths of their own: found, carried by particles and files, and worth resolution."""

from dataclasses import replace

import numpy as np
import pytest
from particle_scene import DIAMETER, project_blobs, scene, with_noise

from tiltwise.io.relion import read_particles, write_particles
from tiltwise.ops.particles.half_maps import average_particles
from tiltwise.ops.particles.trajectories import mode_deviations, trajectory_basis
from tiltwise.ops.polishing.trajectory_refinement import path_length
from tiltwise.params.polish import PolishParams
from tiltwise.project import store
from tiltwise.stages.polish import polish

NAME = "TS_1"
PARAMS = PolishParams(
    box_size=32,
    particle_diameter=DIAMETER,
    cycles=3,
    refine_tilts=False,
    refine_deformation=False,
    refine_defocus=False,
)


@pytest.fixture(scope="module")
def made():
    """Twelve particles of one series on paths of 8 Å (a pixel) in the first mode, and the coefficients of these."""
    still, rng = scene(series=1, noise=0.5), np.random.default_rng(6)
    series, particles = still.tilt_series[NAME], still.particles
    paths = rng.normal(size=(len(particles), 3, 3)) * mode_deviations(8.0)[:, None]
    moved = np.einsum("tj,pjd->tpd", trajectory_basis(series), paths)
    images = project_blobs(series, particles.position, particles.rotation, still.centres, moved)
    series = replace(series, images=with_noise(images, 0.5, rng))
    return {NAME: series}, replace(particles, half_set=1 + np.arange(12) % 2), paths


@pytest.fixture(scope="module")
def polished(made):
    series, particles, _ = made
    return polish(series, particles, PARAMS.model_copy(update={"refine_trajectories": True}))


def test_paths_are_found_and_sharpen_the_map(made, polished):
    """Of 11 Å (rms) 2 remain, and 20 Å between the halves become 18."""
    series, particles, paths = made
    basis = trajectory_basis(series[NAME])
    truth, found = (p.reshape(12, -1) for p in (paths, polished.particles.trajectory))
    without = polish(series, particles, PARAMS)
    assert path_length(found - truth, basis) < 0.5 * path_length(truth, basis)
    assert without.particles.trajectory is None
    assert polished.quality["resolution_fsc_A"] < without.quality["resolution_fsc_A"]
    assert polished.quality["cycles"][1]["gates"][NAME]["motion"][""]["accepted"]


def test_paths_travel_with_the_particles(polished, made, tmp_path):
    """Through a file, a choice of particles, and a join with particles that have none."""
    particles = polished.particles
    write_particles(tmp_path / "particles.star", particles)
    again = read_particles(tmp_path / "particles.star")
    assert np.allclose(again.trajectory, particles.trajectory, atol=1e-6)
    assert np.array_equal(particles[np.array([3, 5])].trajectory, particles.trajectory[[3, 5]])
    joined = store.join("particles", {"a": particles, "b": made[1]})
    assert np.array_equal(joined.trajectory[:12], particles.trajectory) and not joined.trajectory[12:].any()
    assert store.join("particles", {"a": made[1], "b": made[1]}).trajectory is None


def test_whoever_averages_follows_the_paths(polished):
    """The same particles with and without what was found of them: the halves agree better with it."""
    agreement = []
    for particles in (polished.particles, replace(polished.particles, trajectory=None)):
        halves = average_particles(polished.tilt_series, particles, box_size=32, particle_diameter=DIAMETER)
        first, second = (half.data.ravel() for half in (halves.half1, halves.half2))
        agreement.append(np.corrcoef(first, second)[0, 1])
    assert agreement[0] > agreement[1] + 0.02
