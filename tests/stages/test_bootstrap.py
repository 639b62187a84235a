"""Halves that make their first maps alone must come to the same one, or the refinement says so."""

from types import SimpleNamespace

import numpy as np
import pytest

from tiltwise.data.errors import InputError, StageError
from tiltwise.params.refine import RefineParams
from tiltwise.stages.refine import bootstrap as module

PARAMS = RefineParams(search_cone=15.0)


def agreeing_at(attempt, tried):
    """In place of the attempts: the halves agree at this one only."""

    def attempt_of(setup, weights, params, number, progress):
        tried.append(number)
        return {1: "first", 2: "second"}, {"correlation_of_halves": 0.98 if number == attempt else 0.78}

    return attempt_of


def test_halves_that_differ_start_again(monkeypatch):
    tried = []
    monkeypatch.setattr(module, "_attempt", agreeing_at(1, tried))
    references, record = module.bootstrap(None, {}, PARAMS)
    assert tried == [0, 1] and record["attempts"] == 2 and set(references) == {1, 2}


def test_halves_that_never_agree_are_an_error(monkeypatch):
    monkeypatch.setattr(module, "_attempt", agreeing_at(None, []))
    with pytest.raises(StageError, match="different first maps"):
        module.bootstrap(None, {}, PARAMS)


def setup_of(number):
    """As many particles in each half."""
    return SimpleNamespace(particles=SimpleNamespace(half_set=np.repeat([1, 2], number)))


def test_free_particles_must_be_enough_to_judge():
    with pytest.raises(InputError, match="7 particles of a half are too few"):
        module.bootstrap(setup_of(7), {}, RefineParams())


def test_a_helix_needs_directions_or_a_reference():
    with pytest.raises(InputError, match="axis of a helix"):
        module.bootstrap(setup_of(20), {}, RefineParams(symmetry="H(41,27.7,9)"))
