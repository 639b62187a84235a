"""Paths of single particles: their prior, exact elimination, truth recovered, errors as stated, no harm by noise."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

sys.path.insert(0, str(Path(__file__).parents[2] / "stages"))
import particle_scene
from test_geometry_on_images import species_of
from test_geometry_refinement import field, terms_of

from tiltwise.ops.particles.trajectories import mode_deviations, trajectory_basis
from tiltwise.ops.polishing.geometry_blocks import pose_derivatives, see_particles
from tiltwise.ops.polishing.trajectory_refinement import (
    MOTION,
    deal_tilts,
    motion_terms,
    path_length,
    refine_trajectories,
    try_widths,
)


def test_modes_are_those_of_a_brownian_path():
    """Eigenvectors of the covariance of a path less its mean, on 400 places: (π j)⁻² and cos π j s."""
    s = (np.arange(400) + 0.5) / 400
    centred = np.eye(400) - 1 / 400
    value, vector = np.linalg.eigh(centred @ np.minimum.outer(s, s) @ centred / 400)
    tilts = field(400)
    tilts = replace(tilts, pre_exposure=3.0 * np.arange(400))
    basis = trajectory_basis(tilts)
    for mode in range(3):
        assert abs(vector[:, -1 - mode] @ basis[:, mode]) / np.linalg.norm(basis[:, mode]) > 0.9999
        assert value[-1 - mode] == pytest.approx((np.pi * (mode + 1)) ** -2, rel=1e-3)
    assert mode_deviations(6.0) == pytest.approx([6, 3, 2])


def moved_terms(rng, width, **of_terms):
    """Terms of particles that move on paths of this width; and the paths (particle, 3 · mode)."""
    tilts = field(41)
    terms = terms_of(tilts, tilts, rng, **of_terms)
    seen, basis = see_particles(tilts, terms.position, terms.rotation), trajectory_basis(tilts)
    paths = rng.normal(size=(len(terms), 3, 3)) * mode_deviations(1.0)[:, None] * width
    images = np.einsum("tj,pjd,tcd->ptc", basis, paths, seen.rotations[:, :2])
    gradient = terms.gradient.copy()
    gradient[..., 3:] += np.einsum("ptcd,ptd->ptc", terms.information[..., 3:, 3:], images)
    return tilts, seen, replace(terms, gradient=gradient), basis, paths.reshape(len(terms), -1)


def test_poses_are_eliminated_exactly():
    """The quadratic of a path, with the pose at its best, against the joint quadratic of both."""
    rng = np.random.default_rng(1)
    tilts, seen, terms, basis, _ = moved_terms(rng, 2.0, number=3, error=1.0)
    part = deal_tilts(tilts) == 1
    found = motion_terms(seen, terms, basis, part)
    change = rng.normal(size=(3, 9))

    def likelihood(paths, poses):
        total = -0.5 * (poses**2 @ np.array([np.radians(5.0) ** -2] * 3 + [20.0**-2] * 3)).sum()
        for i in np.flatnonzero(part):
            y = poses @ pose_derivatives(seen, i).T
            y[:, 3:] += np.einsum("j,pjd,cd->pc", basis[i], paths.reshape(3, 3, 3), seen.rotations[i, :2])
            total += (terms.gradient[:, i] * y).sum() - 0.5 * np.einsum("pa,pab,pb->", y, terms.information[:, i], y)
        return total

    still = np.zeros_like(change)
    best = [found.follow(c) for c in (change, still)]
    expected = likelihood(change, best[0]) - likelihood(still, best[1])
    assert found.gain(change) == pytest.approx(expected, rel=1e-9)
    assert found.left_by_poses == pytest.approx(likelihood(still, best[1]) - likelihood(still, np.zeros((3, 6))))
    for _ in range(5):
        assert likelihood(change, best[0] + 1e-3 * rng.normal(size=(3, 6))) < likelihood(change, best[0])


def judged(rng, width, **of_terms):
    tilts, seen, terms, basis, paths = moved_terms(rng, width, **of_terms)
    part = deal_tilts(tilts)
    parts = {number: motion_terms(seen, terms, basis, part == number) for number in (1, 2)}
    gate = try_widths(parts, np.zeros_like(paths))
    whole = motion_terms(seen, terms, basis, np.ones(len(part), bool))
    return gate, whole, basis, paths


def test_paths_are_recovered_within_their_errors():
    """Shifts known to 2 Å in each image, paths of 3 Å: what is left has the covariance (H̃ + P)⁻¹. Its mean square in
    units of that, over 60 particles of 9 numbers, is 1 ± sqrt(2 / 540) = 0.06."""
    gate, whole, basis, paths = judged(np.random.default_rng(2), 0.3 * MOTION * 1.0, error=1.0, precision=0.25)
    assert gate.accepted and gate.width == 0.3
    found = whole.fit(np.zeros_like(paths), gate.width * MOTION)
    assert path_length(found - paths, basis) < 0.5 * path_length(paths, basis)
    precision = whole.information + np.diag(np.repeat(mode_deviations(gate.width * MOTION) ** -2.0, 3))
    rest = np.einsum("pa,pab,pb->p", found - paths, precision, found - paths).mean() / 9
    assert rest == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(("number", "precision"), [(60, 0.25), (5, 0.25), (5, 0.02)])
def test_noise_alone_moves_nothing(number, precision):
    """Nothing moves; ten trials. By chance a gate is passed once in a thousand times, and three widths are tried."""
    trials = [
        judged(np.random.default_rng(seed), 0.0, number=number, error=1.0, precision=precision) for seed in range(10)
    ]
    assert not any(gate.accepted for gate, *_ in trials)


def test_what_was_found_is_not_found_again():
    """A second fit about the first: the prior holds the whole path, so that nothing is added."""
    _, whole, _, paths = judged(np.random.default_rng(2), 2.0, error=1.0, precision=0.25)
    first = whole.fit(np.zeros_like(paths), MOTION)
    rest = replace(whole, gradient=whole.gradient - np.einsum("pab,pb->pa", whole.information, first))
    assert np.abs(rest.fit(first, MOTION)).max() < 1e-9


def test_tilts_are_dealt_by_their_angles():
    """Whatever the order in which they were taken, neighbours in angle are in different parts."""
    tilts = field(12)
    part = deal_tilts(replace(tilts, use=np.arange(12) != 4))
    order = np.argsort(np.delete(tilts.geometry.tilt_angle, 4))
    assert part[order].tolist() == [1, 2] * 5 + [1]


NAME = "TS_1"


@pytest.fixture(scope="module")
def restless():
    """Twelve particles of one series on paths of 8 Å (a pixel) in the first mode, and the coefficients of these."""
    made, rng = particle_scene.scene(series=1, noise=0.5), np.random.default_rng(6)
    series = made.tilt_series[NAME]
    paths = rng.normal(size=(len(made.particles), 3, 3)) * mode_deviations(8.0)[:, None]
    moved = np.einsum("tj,pjd->tpd", trajectory_basis(series), paths)
    place, turn = made.particles.position, made.particles.rotation
    images = particle_scene.project_blobs(series, place, turn, made.centres, moved)
    images = particle_scene.with_noise(images, 0.5, rng)
    return replace(made, tilt_series={NAME: replace(series, images=images)}), paths.reshape(len(paths), -1)


def apart(kind, paths, series):
    return path_length(kind.paths(np.arange(len(paths)), 3) - paths, trajectory_basis(series))


def test_paths_are_found_on_images(restless):
    """Against half maps that the motion has blurred; half of 11 Å is left (a fifth after cycles, tests/stages)."""
    made, paths = restless
    series, kind = made.tilt_series[NAME], species_of(made)
    found = refine_trajectories(kind, NAME)
    assert found.accepted and found.record()["blocks"]["motion"]["accepted"]
    assert apart(found.species, paths, series) < 0.6 * apart(kind, paths, series)


@pytest.mark.parametrize("bodies", [0, 36])
def test_still_particles_stay(bodies):
    """Alone, and with three other bodies of their size within 150 to 250 Å of each, which pull at it in neighbouring
    tilts alike: by chance the gate is passed once in a thousand times."""
    made, rng = particle_scene.scene(series=1, noise=0.5), np.random.default_rng(bodies)
    series, place = made.tilt_series[NAME], made.particles.position
    images = particle_scene.project_blobs(series, place, made.particles.rotation, made.centres)
    spread = 1.5 * images.std()
    if bodies:
        away = rng.normal(size=(bodies, 3))
        away *= rng.uniform(150, 250, (bodies, 1)) / np.linalg.norm(away, axis=1, keepdims=True)
        turn, others = Rotation.random(bodies, random_state=0), particle_scene.blobs(seed=5)
        images = images + particle_scene.project_blobs(series, place[np.arange(bodies) % 12] + away, turn, others)
    images = (images + spread * rng.normal(size=images.shape) + 100).astype(np.float32)
    kind = species_of(replace(made, tilt_series={NAME: replace(series, images=images)}))
    found = refine_trajectories(kind, NAME)
    assert found.gate is not None and not found.accepted and found.species is kind
