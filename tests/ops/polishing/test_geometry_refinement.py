"""The bundle adjustment on particles: derivatives by differences, poses eliminated exactly, truth recovered, gates."""

from dataclasses import replace

import numpy as np
import pytest
from made_series import geometry, series
from scipy.spatial.transform import Rotation

from tiltwise.data.deformation import Deformation
from tiltwise.data.tilt_series import TiltSeries
from tiltwise.ops.deformation import CUBIC, QUADRATIC, specimen_in_images
from tiltwise.ops.geometry import tilt_rotations
from tiltwise.ops.polishing.geometry_blocks import Block, pose_derivatives, see_particles
from tiltwise.ops.polishing.geometry_change import change_geometry, geometry_blocks
from tiltwise.ops.polishing.geometry_refinement import (
    AGAIN,
    LADDER,
    Reduced,
    fit_geometry,
    fit_kinds,
    follow_poses,
    reduce_over_poses,
)
from tiltwise.ops.poses.terms import PoseTerms

PARTICLES = 60


def field(number=13):
    images = np.zeros((number, 400, 360), np.float32)
    made = series(geometry(number), images)
    return replace(made, exposure=np.full(number, 3.0), pre_exposure=3.0 * np.random.default_rng(0).permutation(number))


def terms_of(tilts: TiltSeries, truth: TiltSeries, rng, number=PARTICLES, error=0.0, precision=4.0):
    """Quadratics whose top is where a truth puts the images: those of particles posed at the truth, seen in `tilts`.

    The rotations' information is that of a body of 100 Å radius in images of `precision` 1/Å² in each shift.
    """
    position = rng.uniform(-1, 1, (number, 3)) * (1500, 1600, 300)
    rotation = Rotation.random(number, random_state=int(rng.integers(1000))).as_matrix()
    ours, theirs = (specimen_in_images(s, position)[0] for s in (tilts, truth))
    turn = [tilt_rotations(s.geometry).numpy() for s in (tilts, truth)]
    best = np.zeros((number, tilts.number, 5))
    for i in range(tilts.number):
        relative = Rotation.from_matrix(turn[1][i] @ turn[0][i].T).as_rotvec()  # image frame
        best[:, i, :3] = relative @ (turn[0][i] @ rotation)
        best[:, i, 3:] = (theirs - ours)[i]
    information = np.zeros((number, tilts.number, 5, 5))
    information[...] = precision * np.diag([1e4, 1e4, 1e4, 1, 1])
    noise = rng.normal(size=best.shape) * np.sqrt(np.einsum("ptaa->pta", information)) * error
    return PoseTerms(
        index=np.arange(number),
        position=position,
        rotation=rotation,
        half_set=1 + np.arange(number) % 2,
        likelihood=np.zeros((number, tilts.number)),
        gradient=np.einsum("ptab,ptb->pta", information, best) + noise,
        information=information,
    )


def changed(tilts, rng, names, width=1.0):
    """A truth: the series with random changes of the blocks."""
    terms = terms_of(tilts, tilts, rng)
    seen = see_particles(tilts, terms.position, terms.rotation)
    blocks = geometry_blocks(tilts, seen, names)
    change = width * rng.normal(size=sum(b.number for b in blocks))
    return change_geometry(tilts, seen, blocks, change), change


@pytest.mark.parametrize("name", LADDER)
def test_derivatives_are_those_of_the_projection(name):
    """Central differences of what `change_geometry` does to places and rotations, of the same parameters."""
    rng, tilts = np.random.default_rng(1), field()
    terms = terms_of(tilts, tilts, rng, number=7)
    seen = see_particles(tilts, terms.position, terms.rotation)
    block = geometry_blocks(tilts, seen, [name])[0]
    step, direction = 0.05, rng.normal(size=block.number)
    there = [change_geometry(tilts, seen, [block], s * step * direction) for s in (1, -1)]
    place = [specimen_in_images(s, terms.position)[0] for s in there]
    turn = [tilt_rotations(s.geometry).numpy() for s in there]
    for i in range(tilts.number):
        index, derivatives = block.at_tilt(i)
        expected = derivatives @ direction[index]
        assert np.allclose((place[0] - place[1])[i] / (2 * step), expected[:, 3:], atol=2e-3)
        omega = Rotation.from_matrix(turn[0][i] @ turn[1][i].T).as_rotvec() / (2 * step)
        assert np.allclose(omega @ (seen.rotations[i] @ terms.rotation), expected[:, :3], atol=1e-7)


def test_a_quadratic_deformation_is_carried_on():
    """One from beads, without a part of third order, changes as that with a part of zero does."""
    rng, tilts = np.random.default_rng(5), field()
    bent, _ = changed(tilts, rng, ["sample"])
    sample = bent.deformation.sample
    whole = replace(sample, coefficient=sample.coefficient * (np.arange(CUBIC) < QUADRATIC)[:, None])
    quadratic = replace(sample, coefficient=sample.coefficient[:, :QUADRATIC])
    terms = terms_of(tilts, tilts, rng)
    seen = see_particles(tilts, terms.position, terms.rotation)
    block = geometry_blocks(tilts, seen, ["sample"])
    change = rng.normal(size=block[0].number)
    left, right = (
        change_geometry(replace(bent, deformation=Deformation(sample=one)), seen, block, change).deformation.sample
        for one in (quadratic, whole)
    )
    assert np.array_equal(left.coefficient, right.coefficient) and left.coefficient[:, QUADRATIC:].any()


def test_poses_are_eliminated_exactly():
    """The reduced quadratic is the likelihood with poses set to their best: compared with the joint solution."""
    rng, tilts = np.random.default_rng(2), field()
    truth, _ = changed(tilts, rng, ["shift"])
    terms = terms_of(tilts, truth, rng, number=9, error=1.0)
    seen = see_particles(tilts, terms.position, terms.rotation)
    blocks = geometry_blocks(tilts, seen, ["shift", "angles"])
    reduced = reduce_over_poses(seen, terms, blocks)
    theta = rng.normal(size=len(reduced.gradient)) * 0.3

    def likelihood(change, poses):
        total = -0.5 * (poses**2 @ np.array([np.radians(5.0) ** -2] * 3 + [20.0**-2] * 3)).sum()
        for i in range(tilts.number):
            y = poses @ pose_derivatives(seen, i).T
            first = 0
            for block in blocks:
                index, derivatives = block.at_tilt(i)
                y = y + derivatives @ change[first + index]
                first += block.number
            h = terms.information[:, i]
            total += (terms.gradient[:, i] * y).sum() - 0.5 * np.einsum("pa,pab,pb->", y, h, y)
        return total

    best, still = (follow_poses(seen, terms, blocks, c) for c in (theta, 0 * theta))
    expected = likelihood(theta, best) - likelihood(0 * theta, still)
    assert reduced.gain(theta) == pytest.approx(expected, rel=1e-9, abs=1e-6)
    for _ in range(5):
        assert likelihood(theta, best + 1e-3 * rng.normal(size=best.shape)) < likelihood(theta, best)


def run(tilts, truth, rng, names=LADDER, **of_terms):
    terms = terms_of(tilts, truth, rng, **of_terms)
    halves = []
    for half in (1, 2):
        own = terms[terms.half_set == half]
        seen = see_particles(tilts, own.position, own.rotation)
        halves.append(reduce_over_poses(seen, own, geometry_blocks(tilts, seen, names)))
    return fit_geometry(halves[0], halves[1], geometry_blocks(tilts, seen, names)), terms, seen


def places_apart(found, truth, position):
    """(tilt,) rms distance of points in the images, Å, poses (a shift of each point) free."""
    difference = specimen_in_images(truth, position)[0] - specimen_in_images(found, position)[0]
    rows = tilt_rotations(truth.geometry).numpy()[:, :2].reshape(-1, 3)
    right = difference.transpose(0, 2, 1).reshape(-1, len(position))
    rest = right - rows @ np.linalg.lstsq(rows, right, rcond=None)[0]
    return float(np.sqrt((rest**2).mean() * 2))


@pytest.mark.parametrize("names", [["shift"], ["shift", "angles"], ["shift", "sample"], ["warp"], list(LADDER)])
def test_the_truth_is_recovered(names):
    """Without noise, places come back to a hundredth of what was wrong: what is left is of second order and the prior's
    pull, 1 / (information of 60 particles) of each parameter."""
    rng, tilts = np.random.default_rng(3), field()
    truth, _ = changed(tilts, rng, names, 0.5)
    fit, terms, seen = run(tilts, truth, rng, precision=400.0)
    blocks = geometry_blocks(tilts, seen, LADDER)
    found = change_geometry(tilts, seen, blocks, fit.found.joint)
    before, after = (places_apart(s, truth, terms.position) for s in (tilts, found))
    assert {gate.block for gate in fit.gates if gate.accepted} & set(names)
    assert after < 0.02 * before + 0.02


def test_noise_alone_passes_no_gate_or_does_next_to_no_harm():
    """With nothing wrong, what is taken by chance moves images by less than noise would allow: 5 Å priors shrunk."""
    accepted, moved = 0, []
    for seed in range(6):
        rng, tilts = np.random.default_rng(seed), field()
        fit, terms, seen = run(tilts, tilts, rng, error=1.0, precision=0.25)
        accepted += sum(gate.accepted for gate in fit.gates)
        found = change_geometry(tilts, seen, geometry_blocks(tilts, seen, LADDER), fit.found.joint)
        moved.append(places_apart(found, tilts, terms.position))
    assert accepted <= 3 and np.median(moved) < 0.1


def test_five_particles_do_not_harm():
    """A true error of nothing, five particles of poor images: the ladder leaves the series as it is, where the same
    blocks without gates, fitted to the noise, move images by 4 Å.

    Chance passes a gate once in a thousand times at most: of six trials of five blocks at two widths 0.06.
    """
    moved, ungated = [], []
    for seed in range(6):
        rng, tilts = np.random.default_rng(seed), field()
        fit, terms, seen = run(tilts, tilts, rng, error=1.0, precision=0.02, number=5)
        blocks = geometry_blocks(tilts, seen, LADDER)
        every = see_particles(tilts, terms.position, terms.rotation)
        reduced = reduce_over_poses(every, terms, geometry_blocks(tilts, every, LADDER))
        for found, change in ((moved, fit.found.joint), (ungated, reduced.fit(np.ones(len(fit.found.joint))))):
            found.append(places_apart(change_geometry(tilts, seen, blocks, change), tilts, terms.position))
    assert max(moved) == 0 and min(ungated) > 3


def test_held_out_gain_needs_both_halves():
    """Halves that pull apart: what one half fits costs the other, and nothing is taken."""
    pull = np.array([10.0, -10.0])
    halves = [Reduced(gradient=s * pull, information=np.diag([5.0, 5.0])) for s in (1, -1)]
    fit = fit_geometry(halves[0], halves[1], one_tilt())
    assert not fit.gates[0].accepted and not fit.found.joint.any()


def test_what_is_known_is_fitted_again_though_both_halves_made_it():
    """Better references bring what all images say 0.1 nearer to the truth, five times less than what separates the fit
    of a half from that of both. Against what the same half said before, each refit gains n H 0.1² / 2 = 100 units in
    the other, the noise of both staying the same, and 31 that the prior of both held back; against the joint fit it
    would begin 3 n / 4 = 300 behind.
    """
    rng, number, information = np.random.default_rng(4), 400, 50.0
    noise = rng.normal(0, information**-0.5, (2, number))
    blocks = [Block(name="shift", number=number, at_tilt=lambda _: None)]

    def halves(told):
        return [Reduced(gradient=information * (told + e), information=information * np.eye(number)) for e in noise]

    known = fit_geometry(*halves(0.8), blocks).found
    again = fit_geometry(*halves(0.9), blocks, known)
    assert again.gates[0].block == AGAIN and again.gates[0].accepted
    part = information / (information + 1)  # of the truth, under the prior
    gain = number * information * (0.1 * part * (0.9 - 0.8 * part) - (0.1 * part) ** 2 / 2)
    assert np.mean(again.gates[0].gain) == pytest.approx(gain, abs=1)  # both together: their noise has cancelled
    both = 2 * information / (2 * information + 1)
    assert again.found.joint.mean() == pytest.approx(0.9 * both, abs=3 * (2 * information * number) ** -0.5)
    from_both = replace(known, by_half={1: known.joint, 2: known.joint})
    refused = fit_geometry(*halves(0.9), blocks, from_both)
    assert not any(gate.accepted for gate in refused.gates) and refused.found is from_both


def test_a_species_of_noise_does_not_take_over_later():
    """One sees 0.8, then 0.9 of the truth; the other finds its images wherever the series stands, twice as surely. By
    drawing the fits of the halves to the joint one it would gain hundreds of units in both, and be asked alone."""
    rng, number = np.random.default_rng(8), 400
    noise = rng.normal(0, 50.0**-0.5, (2, number))
    blocks = [Block(name="shift", number=number, at_tilt=lambda _: None)]

    def halves(place, information, noise):
        return tuple(
            Reduced(gradient=information * (place + e), information=information * np.eye(number)) for e in noise
        )

    still = np.zeros((2, number))
    first, telling = fit_kinds([halves(0.8, 50.0, noise), halves(0.0, 100.0, still)], blocks)
    assert telling == [0] == list(first.found.telling)
    stands = first.found.joint
    again, telling = fit_kinds([halves(0.9, 50.0, noise), halves(stands, 100.0, still)], blocks, first.found)
    assert telling == [0] and again.gates[0].accepted
    alone = fit_geometry(*halves(0.9, 50.0, noise), blocks, first.found)
    assert np.array_equal(again.found.joint, alone.found.joint)


def test_priors_are_about_the_geometry_as_given():
    """Newton's steps from wherever the series stands end at the same most probable change, not ever nearer to what the
    images alone would have."""
    root = np.random.default_rng(6).normal(size=(4, 4))
    given = Reduced(gradient=np.ones(4), information=root @ root.T)
    width, reached = np.full(4, 0.5), np.zeros(4)
    for _ in range(3):
        here = Reduced(gradient=given.gradient - given.information @ reached, information=given.information)
        reached = here.about(reached).fit(width)
        assert np.allclose(reached, np.linalg.solve(given.information + 4 * np.eye(4), given.gradient))


def one_tilt():
    """The block of the shifts of one tilt: two parameters."""
    terms = terms_of(field(1), field(1), np.random.default_rng(0))
    return geometry_blocks(field(1), see_particles(field(1), terms.position, terms.rotation), ["shift"])


def test_species_that_say_the_same_are_taken_together():
    """Each knows the truth 1 with an information of 50: (50 + 1)⁻¹ 50 alone, (100 + 1)⁻¹ 100 together."""
    alike = Reduced(gradient=np.full(2, 50.0), information=np.diag([50.0, 50.0]))
    fit, taken = fit_kinds([(alike, alike), (alike, alike)], one_tilt())
    assert taken == [0, 1]
    assert fit.found.by_half[1] == pytest.approx(100 / 101)


def test_a_species_that_meets_its_own_noise_holds_nothing_back():
    """It is sure that nothing is wrong, and told to an information ten times that of the other: it would leave a tenth
    of the change. Whichever comes first, it is not asked, and what is fitted is what the other fits alone."""
    tells = Reduced(gradient=np.full(2, 50.0), information=np.diag([50.0, 50.0]))
    stiff = Reduced(gradient=np.zeros(2), information=np.diag([500.0, 500.0]))
    for kinds, telling in (((tells, stiff), [0]), ((stiff, tells), [1])):
        fit, taken = fit_kinds([(one, one) for one in kinds], one_tilt())
        assert taken == telling
        assert fit.found.joint == pytest.approx(100 / 101)
