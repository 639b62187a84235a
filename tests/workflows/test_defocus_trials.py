"""One trial of the defocus fit on a slab whose every number is known."""

import numpy as np

from tiltwise.workflows.defocus_trials import Trial, measure


def test_a_small_slab_is_fitted_within_its_own_errors():
    found = measure(Trial(seed=0, defocus=40000.0, image_size=512))
    assert found["hand"]
    relative = found["error"] / found["sd"]
    assert np.isfinite(relative).all()
    assert np.sqrt(np.mean(relative**2)) < 1.6  # 41 values: 1 ± 0.11 if the errors are honest, 1.6 leaves tails
    assert np.median(np.abs(found["error"])) < 300  # the truths' own spread: more than the target is known
