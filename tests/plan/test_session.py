"""Whole plans: exposure by either model, time, warnings; three lines in a notebook; faults in one line."""

import json
import math

import pytest

from tiltwise.data.errors import InputError
from tiltwise.params.plan import OpticsParams, PlanParams, SessionParams, SlabParams, TargetParams, TiltingParams
from tiltwise.plan import make_plan
from tiltwise.plan.scattering import scattering_power
from tiltwise.plan.summary import summarise
from tiltwise.project.recipe import check_params


def test_three_lines():
    from tiltwise.params.plan import PlanParams
    from tiltwise.plan import make_plan

    assert 3 < make_plan(PlanParams(pixel_size=1.35)).resolution < 8


def test_optimum_says_which_model():
    by = {m: make_plan(PlanParams(total_exposure=None, dose_model=m)) for m in ("integrated", "terminal")}
    assert by["terminal"].total_exposure == pytest.approx(10.625, abs=0.01)  # N_e at 8 Å: D_c / 2
    assert by["integrated"].total_exposure == pytest.approx(2.513 * 10.625, abs=0.05)
    for name, plan in by.items():
        assert name in plan.exposure_reason
        assert plan.schedule.exposure.sum() == pytest.approx(plan.total_exposure)
    assert by["integrated"].particles_needed < by["terminal"].particles_needed


def test_time_is_that_of_its_parts():
    session = SessionParams(tilt_time=10, series_time=180, exposure_rate=6)
    plan = make_plan(PlanParams(session=session, slab=SlabParams(particles_per_series=50)))
    assert plan.series_time == pytest.approx(180 + 41 * 10 + 120 / 6)
    assert plan.series_needed == math.ceil(plan.particles_needed / 50)
    assert plan.hours_needed == pytest.approx(plan.series_needed * 610 / 3600)
    continuous = make_plan(PlanParams(session=session, tilting=TiltingParams(scheme="continuous")))
    assert continuous.series_time == pytest.approx(180 + 10 + 20)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"slab": SlabParams(thickness=4000)}, "mean free paths"),
        ({"target": TargetParams(resolution=4.2)}, "25 % of the Nyquist"),
        ({"target": TargetParams(particles=10)}, "are expected to give"),
        ({"frames": 100}, "too little to align"),
        (
            {
                "target": TargetParams(resolution=20),
                "image_size": 512,
                "optics": OpticsParams(defocus_min=3e4, defocus_max=3e4),
            },
            "CTF zeros open",
        ),
    ],
)
def test_warnings(settings, word):
    assert any(word in warning for warning in make_plan(PlanParams(**settings)).warnings)


FAULTS = [
    ({"total_exposure": -3}, "total_exposure: input should be greater than 0, got -3"),
    ({"tilting": {"tilt_max": 75}}, "beyond the holder's limit of 70°"),
    ({"pixel_size": 4.5}, "the pixel of 4.5 Å is too coarse for 8 Å"),
    ({"tilting": {"scheme": "spiral"}}, "tilting.scheme: input should be 'unidirectional'"),
    ({"tilting": {"switch_angle": 61}}, "switch_angle 61° lies outside the range"),
    ({"tilting": {"tilt_min": 60}}, "not below tilt_max"),
    ({"tilting": {"start_tilt": 65}}, "start_tilt 65° lies outside"),
    ({"tilting": {"tilt_min": -1, "tilt_max": 1}}, "wider than the range"),
    ({"voltage": 120}, "not for 120 kV"),
    ({"optics": {"defocus_min": 50000}}, "above defocus_max"),
    ({"slab": {"damage_layer": 800}}, "leave nothing"),
    ({"slab": {"thickness": 100}}, "does not fit"),
    ({"slab": {"pretilt": 30}}, "along the beam"),
    ({"target": {"molecular_weight": 9e6}}, "do not fit into a diameter"),
    ({"target": {"symmetry": "C"}}, "target.symmetry"),
    ({"session": {"tracking_exposure": 3}}, "leaves nothing of total_exposure"),
    ({"tiltin": {}}, "unknown key 'tiltin'; did you mean 'tilting'?"),
]


@pytest.mark.parametrize(("values", "message"), FAULTS, ids=[message[:30] for _, message in FAULTS])
def test_faults_are_one_line(values, message):
    with pytest.raises(InputError) as said:
        check_params(PlanParams, values, "plan")
    assert message in str(said.value) and "\n" not in str(said.value)


def test_summary_is_json_and_holds_all_assumptions():
    text = json.dumps(summarise(make_plan(PlanParams())), allow_nan=False)
    told = json.loads(text)
    assert told["params"]["budget"]["b_factor"] == 80.0
    assert told["assumptions"]["mean_free_path_A"] == 3500.0
    assert len(told["tilts"]) == 41 and sum(row["information_share"] for row in told["tilts"]) == pytest.approx(1)


def test_power_of_a_real_protein():
    """|F|² of proteins as measured on three structures, Å² per kDa: rubisco has 322, 211, 206, 388, 279 at 10, 8, 7, 5
    and 3.5 Å. Random atoms would have 390 at 10 Å and 343 at 6 Å."""
    import numpy as np

    target = TargetParams(molecular_weight=518e3, diameter=134)
    power = scattering_power(target, 1 / np.array([10.0, 8, 7, 5, 3.5])) / 518
    assert power == pytest.approx([322, 211, 206, 388, 279], rel=0.2)
