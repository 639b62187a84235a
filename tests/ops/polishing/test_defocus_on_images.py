"""Defoci refined on particles: kernel and twin, derivatives by differences, wrong defoci back within their errors."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "stages"))
import particle_scene  # noqa: E402
from particle_scene import DIAMETER  # noqa: E402

from tiltwise.ops.ctf import electron_wavelength  # noqa: E402
from tiltwise.ops.geometry import tilt_rotations  # noqa: E402
from tiltwise.ops.kernels.defocus import defocus_profile  # noqa: E402
from tiltwise.ops.particles.chunks import CropSettings, ImageSource, initial_weights  # noqa: E402
from tiltwise.ops.particles.half_maps import accumulate_halves, maps_and_fsc, measured_weights, posed_particles  # noqa: E402
from tiltwise.ops.particles.half_sets import assign_half_sets  # noqa: E402
from tiltwise.ops.particles.references import alignment_reference, sphere_mask  # noqa: E402
from tiltwise.ops.polishing.defocus_by_average import chance_of_best, refine_common_defoci  # noqa: E402
from tiltwise.ops.polishing.defocus_on_images import (  # noqa: E402
    STEP,
    DefocusSoFar,
    defocus_terms,
    profile_plain,
    refine_defocus,
)
from tiltwise.ops.polishing.species import Species  # noqa: E402
from tiltwise.ops.poses.terms import collect_terms  # noqa: E402

PIXEL, SIZE, BOX, NAME = 3.5, 256, 72, "TS_1"


@pytest.fixture(scope="module")
def species():
    """Twelve particles of fine matter (blobs of 3.5 Å), true poses, half maps."""
    keep = {name: getattr(particle_scene, name) for name in ("PIXEL", "SIZE", "SIGMA")}
    particle_scene.PIXEL, particle_scene.SIZE, particle_scene.SIGMA = PIXEL, SIZE, 3.5
    made = particle_scene.scene(series=1, noise=0.5)  # with less, particles would pass for gold and be cut out
    for name, value in keep.items():
        setattr(particle_scene, name, value)
    settings = CropSettings(box_size=BOX, pixel_size=PIXEL, particle_radius=DIAMETER / 2, device="cpu")
    source = ImageSource(tilt_series=made.tilt_series, settings=settings, ready={})
    posed = replace(posed_particles(made.particles), half_set=assign_half_sets(made.particles, 60.0, 0))
    weights, mask = initial_weights(source, posed), sphere_mask(BOX, PIXEL, DIAMETER / 2)
    maps, fsc = maps_and_fsc(accumulate_halves(source, posed, weights=weights), mask)
    references = {half: alignment_reference(one, mask, fsc, PIXEL) for half, one in maps.items()}
    weights = measured_weights(source, posed, references, weights=weights, radius=settings.radius_of(9.0))
    # of the other half: six particles would else meet their own noise, under the true CTF (`across` takes this back)
    references = {3 - half: one for half, one in references.items()}
    return Species.of(source, posed, references, weights=weights, resolution=9.0)


def wrong_by(series, change, astigmatism=0.0):
    ctf = series.ctf
    return replace(
        series,
        ctf=replace(
            ctf,
            defocus_u=ctf.defocus_u + change + astigmatism,
            defocus_v=ctf.defocus_v + change - astigmatism,
        ),
    )


def test_kernel_and_twin_agree():
    rng = np.random.default_rng(0)
    cross, power = (rng.normal(size=(5, 3, 40)).astype(np.float32) ** (1 + p) for p in (0, 1))
    phase = rng.uniform(0, 60, (5, 3, 40)).astype(np.float32)
    turn = rng.uniform(0, 0.3, 40).astype(np.float32)
    found = np.zeros((2, 3, 21))
    defocus_profile(cross, power, phase, turn, 10, found)
    expected = profile_plain(*(torch.as_tensor(a) for a in (cross, power, phase, turn)), 10)
    for ours, theirs in zip(found, expected, strict=True):
        assert np.allclose(ours, theirs.numpy(), atol=1e-4 * np.abs(theirs.numpy()).max())


def test_the_gradient_is_the_slope_of_the_profile(species):
    """Central difference over 2 × 50 Å; the third derivative adds (50 Å · π λ k²)² / 6 of it at 9 Å, 0.3 %."""
    series = species.source.tilt_series[NAME]
    for terms in defocus_terms([species], wrong_by(series, 400.0), searched=True).values():
        middle = terms.profile.shape[1] // 2
        slope = (terms.profile[:, middle + 1] - terms.profile[:, middle - 1]) / (2 * STEP)
        assert np.allclose(slope, terms.gradient[:, 0], rtol=0.02, atol=0.02 * np.abs(slope).max())


@pytest.mark.parametrize("common", [0.0, 400.0])
def test_wrong_defoci_come_back_within_their_errors_and_what_all_share_stays(species, common):
    """250 Å (sd) of each tilt's own; what remains is at most the stated error (21 tilts: 1.4), beside what all share,
    of which the references here would tell, but those that the tilts have made would tell the opposite."""
    series = species.source.tilt_series[NAME]
    error = np.random.default_rng(1).normal(0, 250, series.number)
    error -= error.mean()
    found = refine_defocus([species.across().with_series(wrong_by(series, error + common))], NAME)
    rest = found.tilt_series.ctf.mean_defocus - series.ctf.mean_defocus
    assert found.gates[0].accepted
    assert rest.mean() == pytest.approx(common, abs=STEP)
    rest -= rest.mean()
    assert np.sqrt(np.mean(rest**2)) < 0.6 * np.sqrt(np.mean(error**2))
    assert np.sqrt(np.mean((rest / found.error) ** 2)) < 1.4


def test_changes_add_up_and_the_prior_stays_where_the_defoci_were_given(species):
    """Searched for from half way there, which is known: the sum is the one found from the start, to a fifth of a step,
    and what the series has. A prior about where it stands would end some 10 Å beyond."""
    series = species.source.tilt_series[NAME]
    wrong = wrong_by(series, np.random.default_rng(1).normal(0, 250, series.number))
    first = refine_defocus([species.across().with_series(wrong)], NAME)
    half = first.so_far.joint / 2
    known = replace(DefocusSoFar.as_given(len(half)), joint=half)
    again = refine_defocus([species.across().with_series(wrong_by(wrong, half))], NAME, known)
    assert again.gates[0].accepted
    assert np.abs(again.so_far.joint - first.so_far.joint).max() < STEP / 5
    for found in (first, again):
        moved = found.tilt_series.ctf.mean_defocus - wrong.ctf.mean_defocus
        assert np.allclose(moved, found.so_far.joint)


@pytest.mark.parametrize("error", [600.0, -900.0])
def test_what_all_tilts_share_is_found_by_averaging(species, error):
    """The half maps here know the true defocus; the search makes its own under each that is tried."""
    series = species.source.tilt_series[NAME]
    (kind,), found = refine_common_defoci([species.with_series(wrong_by(series, error))], ["C1"])
    assert abs(found[NAME].change + error) < 150 and found[NAME].gain > found[NAME].chance.max()
    assert kind.source.tilt_series[NAME].ctf.mean_defocus[0] == pytest.approx(
        series.ctf.mean_defocus[0] + error + found[NAME].change
    )


@pytest.mark.parametrize("change", [-1000.0, 250.0, 1500.0])
def test_sums_turned_are_those_made_under_the_change(species, change):
    """What a change explains by the sums of three phases, and by sums made under it: half a node beside its place at
    9 Å, in a box of 252 Å with two nodes for each 1 / 252 Å, a value meets a φ wrong by 2π λ k |change| / 1008 Å, 0.02
    radians of 1500 Å; squares of such angles are gone beside what is explained, and where they add up it is to less
    than 2 % of the largest difference."""
    series = species.source.tilt_series[NAME]
    _, turned = refine_common_defoci([species], ["C1"])
    _, made = refine_common_defoci([species.with_series(wrong_by(series, change))], ["C1"])
    found, still = turned[NAME], turned[NAME].tried == 0
    apart = found.explained[found.tried == change] - made[NAME].explained[still]
    assert abs(float(apart[0])) < 0.02 * float(np.ptp(found.explained))


def test_what_noise_gains_is_what_is_said_of_it(species):
    """Images of noise alone at 14 Å, two draws: squares of the gains over their variance have the mean 1. Some three of
    the fourteen changes are independent, so that the mean of six squares is between 0.1 and 4 in 99 of 100 draws."""
    series, ratio = species.source.tilt_series[NAME], []
    for seed in (0, 1):
        images = np.random.default_rng(seed).normal(size=series.images.shape).astype(np.float32)
        noise = replace(series, images=images)
        source = replace(species.source, tilt_series={NAME: noise}, ready={})
        weights = initial_weights(source, species.particles)
        kind = replace(species, source=source, weights=weights, resolution=14.0)
        _, found = refine_common_defoci([kind], ["C1"])
        gain = found[NAME].explained - found[NAME].explained[found[NAME].tried == 0]
        variance = found[NAME].variance
        assert found[NAME].change == 0
        ratio.append(np.mean(gain[variance > 0] ** 2 / variance[variance > 0]))
    assert 0.1 < np.mean(ratio) < 4


def test_the_best_of_twelve_must_gain_more_than_one():
    """By hand: without noise of the product z² / 2 with P(Z > z) = 0.00135 / 12, z = 3.69; where that noise rules, z
    standard deviations of it."""
    chance = chance_of_best(np.array([0.0, 10000.0] + 11 * [0.0]))
    assert chance[0] == pytest.approx(3.69**2 / 2, rel=0.005)
    assert chance[1] == pytest.approx(369, rel=0.005)


def test_species_of_other_bands_add_what_they_know(species):
    """One known to 9 Å, one to 14 Å with fewer lobes: the log likelihoods of a change add up."""
    coarse, series = replace(species, resolution=14.0), species.source.tilt_series[NAME]
    change = np.random.default_rng(4).normal(0, 100, series.number)
    parts = [defocus_terms(kinds, series, searched=True) for kinds in ([species], [coarse], [species, coarse])]
    for half in (1, 2):
        single, other, both = (part[half].likelihood(change, 0.0) for part in parts)
        assert both == pytest.approx(single + other)
    assert refine_defocus([species, coarse], NAME).gates


def test_astigmatism_comes_back(species):
    """u - v wrong by 600 Å; A and B are told to 35 Å each in half a set of particles, so to some 100 Å of u - v."""
    series = species.source.tilt_series[NAME]
    found = refine_defocus([species.with_series(wrong_by(series, 0.0, 300.0))], NAME)
    assert found.gates[1].block == "astigmatism" and found.gates[1].accepted
    fields = [s.ctf for s in (found.tilt_series, series)]
    vectors = [(c.defocus_u - c.defocus_v) * np.exp(2j * np.radians(c.astigmatism_angle)) for c in fields]
    assert np.abs(vectors[0] - vectors[1]).max() < 300


def test_depth_is_told_by_parallax_not_by_rings(species):
    """What images tell of a particle's height, by where they show it and by their rings (amplitudes known).

    A shift t of an image in the direction of the tilt is known to Σ (2πk)² |m|² / 2, the defocus to Σ (πλk²)² cos²χ
    |a s|², m = sin χ a s, and t = z sin θ: with cos² and sin² alike on average the ratio is λ²k² / 2 <sin²θ>, at most
    that of the finest k. At 9 Å that is 1 in 130 000: the height is known at least 360 times better by parallax.
    """
    series = species.source.tilt_series[NAME]
    terms = collect_terms(
        species.source, species.particles, species.grids, weights=species.weights, resolution=species.resolution
    )[NAME]
    rows = tilt_rotations(series.geometry).numpy()[:, :2, 2]
    parallax = np.einsum("tc,ptcd,td->", rows, terms.information[..., 3:, 3:], rows)
    found = defocus_terms([species], series, searched=False).values()
    rings = sum(one.square[..., 0, 0].sum() for one in found)
    sine = np.sin(np.radians(series.geometry.tilt_angle))
    bound = (electron_wavelength(series.optics.voltage) / species.resolution) ** 2 / (2 * np.mean(sine**2))
    assert 0.1 * bound < rings / parallax < 1.1 * bound


def test_right_defoci_stay(species):
    series = species.source.tilt_series[NAME]
    found = refine_defocus([species], NAME)
    rest = found.tilt_series.ctf.mean_defocus - series.ctf.mean_defocus
    assert np.sqrt(np.mean(rest**2)) < 100


def test_without_a_ctf_nothing_is_done(species):
    plain = replace(species.source.tilt_series[NAME], ctf=None)
    found = refine_defocus([species.with_series(plain)], NAME)
    assert not found.accepted and found.tilt_series is plain
