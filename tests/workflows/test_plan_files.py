"""What a plan writes is read back by our own readers, and by the command itself."""

import csv
import json
import tomllib

import numpy as np
import pytest

from tiltwise.io.imod import read_tlt
from tiltwise.io.mdoc import acquisition_order, image_numbers, read_mdoc
from tiltwise.params.plan import PlanParams, TiltingParams
from tiltwise.plan import make_plan
from tiltwise.workflows.plan_files import pacetomo_settings, serialem_settings, write_plan

TILTING = TiltingParams(tilt_min=-12, tilt_max=12, tilt_step=3, group_size=2, exposure_power=1)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    plan = make_plan(PlanParams(tilting=TILTING))
    return plan, {path.name: path for path in write_plan(tmp_path_factory.mktemp("plan"), plan)}


def test_mock_mdoc_tells_the_schedule(written):
    plan, files = written
    mdoc = read_mdoc(files["plan.mrc.mdoc"])
    order, source = acquisition_order(mdoc)
    assert source == "DateTime"
    angle = image_numbers(mdoc, "TiltAngle")
    assert (np.diff(angle) > 0).all()
    assert angle[np.argsort(order)] == pytest.approx(plan.schedule.tilt_angle)
    by_time = np.argsort(order)
    assert image_numbers(mdoc, "ExposureDose")[by_time] == pytest.approx(plan.schedule.exposure, rel=1e-5)
    assert image_numbers(mdoc, "PriorRecordDose")[by_time] == pytest.approx(plan.schedule.pre_exposure, abs=1e-4)
    assert image_numbers(mdoc, "TargetDefocus")[0] == -3.0


def test_angles_and_table(written):
    plan, files = written
    assert read_tlt(files["plan.rawtlt"]) == pytest.approx(np.sort(plan.schedule.tilt_angle))
    assert read_tlt(files["tilt_order.txt"]) == pytest.approx(plan.schedule.tilt_angle)
    rows = list(csv.DictReader(files["tilts.csv"].open(encoding="utf-8")))
    assert [float(row["tilt_angle_deg"]) for row in rows] == plan.schedule.tilt_angle.tolist()
    assert [int(row["group"]) for row in rows] == [0, 0, 0, 1, 1, 2, 2, 3, 3]


def test_recipe_gives_the_same_plan_again(written):
    plan, files = written
    assert PlanParams.model_validate(tomllib.loads(files["plan.toml"].read_text(encoding="utf-8"))) == plan.params
    told = json.loads(files["plan.json"].read_text(encoding="utf-8"))
    assert told["params"] == json.loads(plan.params.model_dump_json())
    assert told["figures"]["resolution_A"] == pytest.approx(plan.resolution)


def test_settings_for_the_microscope(written):
    plan, _ = written
    text = serialem_settings(plan)
    assert "Start at = -12" in text and "Initial group size = 2" in text
    assert "# 0, 3, 6, -3, -6, 9, 12, -9, -12" in text
    block = pacetomo_settings(plan)
    assert "groupSize\t= 2" in block and "minDefocus\t= -2\t" in block
    other = make_plan(PlanParams(tilting=TiltingParams(scheme="bidirectional")))
    assert "this plan's order is another" in pacetomo_settings(other)
    turning = make_plan(PlanParams(tilting=TiltingParams(scheme="continuous")))
    assert "6.15 degrees/s" in serialem_settings(turning)  # 3° of 120 / 41 e⁻/Å² at 6 e⁻/Å²/s
