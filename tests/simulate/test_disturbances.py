"""Motion, deformation and faults have the size they are asked for, and their origin where it belongs."""

from dataclasses import replace

import numpy as np
import pytest
from optical_bench import exact_series

from tiltwise.ops.deformation import sample_displacement
from tiltwise.ops.motion.displacement import frame_displacement
from tiltwise.params.microscope import FaultParams, MotionParams
from tiltwise.simulate.disturbances import (
    Disturbances,
    burst_speed,
    draw_deformation,
    draw_faults,
    draw_frame_motion,
)


def exposed(number: float = 3.0):
    series = exact_series(64, 10.0)
    return replace(series, exposure=np.full(3, number), pre_exposure=series.acquisition_order * number)


def test_the_burst_of_a_first_exposure():
    """Integrals of the published fit: 13.9, 20.8, 23.8 and 29.2 Å after 1, 3, 5 and 10 e⁻/Å² (the notes' 14, 23, 26 and
    31 Å are sums over frames of 0.33 e⁻/Å², taken at their beginning)."""
    exposure = np.linspace(0, 10, 10001)
    way = np.concatenate([[0], np.cumsum(burst_speed((exposure[1:] + exposure[:-1]) / 2) * np.diff(exposure))])
    assert [way[n] for n in (1000, 3000, 5000, 10000)] == pytest.approx([13.92, 20.79, 23.85, 29.25], abs=0.02)


def test_frames_move_about_their_mean_and_cover_the_burst():
    motion = draw_frame_motion(MotionParams(burst=1.0, local=0.0), exposed(), 6, np.random.default_rng(0))
    assert np.abs(motion.coefficient.mean(axis=1)).max() < 1e-12
    assert motion.exposure.sum(axis=1) == pytest.approx(3.0)
    assert np.linalg.norm(motion.blur.sum(axis=1), axis=-1) == pytest.approx(20.79, abs=0.05)
    from_first_to_last = motion.coefficient[:, -1, 0] - motion.coefficient[:, 0, 0]
    way = np.linalg.norm(from_first_to_last, axis=-1)
    assert np.all((way > 10) & (way < 20.79))  # between the means of the first and of the last frame


def test_displacement_of_a_frame_is_the_polynomial():
    """1 + 2x + 3y + 4x² + 5y² + 6xy at (x, y) = (10, -20) Å / 10 Å = (1, -2): 1 + 2 - 6 + 4 + 20 - 12 = 9."""
    motion = draw_frame_motion(MotionParams(), exposed(), 2, np.random.default_rng(0))
    coefficient = np.zeros((3, 2, 6, 2))
    coefficient[1, 1, :, 0] = [1, 2, 3, 4, 5, 6]
    motion = replace(motion, coefficient=coefficient, scale=10.0)
    assert frame_displacement(motion, 1, np.array([[10.0, -20.0]]))[1, 0].tolist() == pytest.approx([9.0, 0.0])


def test_deformation_begins_at_nothing_and_grows_to_its_size():
    """At the edge of the field, over many draws, the spread at the end is that asked for within a factor of 1.5."""
    series = exposed()
    edge = np.array([[320.0, 0.0, 0.0], [0.0, 320.0, 0.0], [320.0, 320.0, 0.0], [0.0, 0.0, 0.0]])
    ends = []
    for seed in range(100):
        deformation = draw_deformation(MotionParams(deformation=20.0), series, np.random.default_rng(seed))
        assert np.abs(sample_displacement(deformation, edge, 0.0)).max() < 1e-9
        ends.append(sample_displacement(deformation, edge, 9.0))
    spread = np.std(ends, axis=0)
    assert 20 / 1.5 < spread[:3].mean() < 20 * 1.5
    assert spread[3].max() < 1e-9  # a shift of the whole is the stage's


def test_faults():
    series = exposed()
    beam, hidden = draw_faults(FaultParams(dark=1, blocked=1), series, np.random.default_rng(0))
    assert (beam < 0.1).sum() == 1
    assert np.flatnonzero(hidden) in (0, 2)  # one of the two highest tilts
    light = Disturbances(beam=np.ones(3), hidden=hidden).illumination(series, int(np.argmax(hidden)))
    assert float((light < 0.5).float().mean()) == pytest.approx(hidden.max(), abs=0.05)
