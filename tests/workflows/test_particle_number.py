"""The B-factor from subsets: the closed form, what cannot be fitted, and random subsets."""

import math

import numpy as np
import pytest

from tiltwise.data.errors import InputError
from tiltwise.project.create import new_project
from tiltwise.workflows.particle_number import Subset, fit_particle_number, measure_particle_number, random_subset


def subsets(b_factor, numbers, scatter=0.0):
    random = np.random.default_rng(0)
    inverse = [2 / b_factor * math.log(n / 10) + scatter * random.normal() for n in numbers]
    return [Subset(particles=n, resolution=1 / math.sqrt(i)) for n, i in zip(numbers, inverse, strict=True)]


def test_the_line_gives_back_its_b_factor():
    found = fit_particle_number(subsets(150.0, [6400, 3200, 1600, 800, 400]), nyquist=2.0)
    assert found.b_factor == pytest.approx(150.0, rel=1e-9)
    assert found.b_factor_error < 1e-6


def test_the_error_is_that_of_the_scatter():
    numbers = [100 * 2**i for i in range(8)]
    found = fit_particle_number(subsets(150.0, numbers, scatter=0.002), nyquist=2.0)
    x = np.log(numbers)
    slope_error = 0.002 / math.sqrt(((x - x.mean()) ** 2).sum())
    assert found.b_factor_error == pytest.approx(150.0**2 / 2 * slope_error, rel=0.8)
    assert abs(found.b_factor - 150.0) < 4 * 150.0**2 / 2 * slope_error


def test_what_the_pixel_limits_takes_no_part():
    numbers = [6400, 3200, 1600, 800, 400]
    limited = [Subset(particles=s.particles, resolution=max(s.resolution, 4.45)) for s in subsets(150.0, numbers)]
    found = fit_particle_number(limited, nyquist=4.4)
    kept = [s for s in limited if s.resolution > 1.03 * 4.4]
    assert len(kept) < len(limited)
    assert found.b_factor is None or found.b_factor == pytest.approx(150.0, rel=1e-6)
    few = fit_particle_number([s for s in limited if s.resolution <= 1.03 * 4.4], nyquist=4.4)
    assert few.b_factor is None and "pixel" in few.note


def test_subsets_take_alike_of_both_halves():
    halves = np.repeat([1, 2, 0], [40, 60, 10])
    chosen = random_subset(halves, 0.5, np.random.default_rng(1))
    assert (chosen == 1).sum() == 20 and (chosen == 2).sum() == 30
    assert np.all((chosen == 0) | (chosen == halves))


def test_a_project_without_a_map_is_told(tmp_path):
    project = new_project(tmp_path / "project")
    with pytest.raises(InputError, match="run it first"):
        measure_particle_number(project)
