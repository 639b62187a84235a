"""The page of a plan: its model agrees with Python, it works in a browser, and asks nobody for anything."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from tiltwise.params.plan import BudgetParams, PlanParams, SessionParams, SlabParams, TargetParams, TiltingParams
from tiltwise.plan import make_plan
from tiltwise.plan.page_model import page_model
from tiltwise.plan.summary import summarise
from tiltwise.report import plan_page
from tiltwise.report.plan_page import write_plan_page

NODE = shutil.which("node")
BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
needs_node = pytest.mark.skipif(NODE is None, reason="no node here: the page's model is not compared with Python")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium here: the page is not opened in a browser")

PLANS = {
    "default": PlanParams(),
    "grouped lamella": PlanParams(
        voltage=200.0,
        pixel_size=1.5,
        detector="k2",
        tilting=TiltingParams(
            tilt_min=-51, tilt_max=69, start_tilt=9, tilt_step=3, group_size=2, group_growth=1, switch_angle=45,
            exposure_power=1, first_direction=-1,
        ),
        slab=SlabParams(pretilt=9, damage_layer=300, thickness=1800),
        target=TargetParams(molecular_weight=660e3, diameter=170, symmetry="D7", sampling="slab"),
        session=SessionParams(tracking_exposure=0.4),
    ),
    "bidirectional": PlanParams(
        tilting=TiltingParams(scheme="bidirectional", start_tilt=-21), budget=BudgetParams(alignment_exposure_error=3)
    ),
    "continuous": PlanParams(tilting=TiltingParams(scheme="continuous"), frames=60, total_exposure=None),
    "step that does not divide the range": PlanParams(tilting=TiltingParams(tilt_step=7)),
    "unidirectional": PlanParams(tilting=TiltingParams(scheme="unidirectional", tilt_step=2, first_direction=-1)),
}  # fmt: skip


def run_model(model: dict, changes: dict) -> dict:
    """What the page's model says of a plan after its sliders were moved."""
    source = str(plan_page.Path(plan_page.__file__).with_name("plan_model.js"))
    code = (
        "const M = require(process.argv[1]); let text = ''; process.stdin.on('data', (d) => text += d);"
        "process.stdin.on('end', () => { const {model, changes} = JSON.parse(text);"
        "const f = M.figures(model, {...M.initialState(model), ...changes});"
        "process.stdout.write(JSON.stringify({angle: f.prediction.angle, exposure: f.prediction.exposure,"
        "before: f.prediction.before, ssnr: f.prediction.ssnr, eta: f.prediction.eta, amplitude: f.amplitude,"
        "resolution: f.resolution, fine: f.fine, coarse: f.coarse, needed: f.needed, hours: f.hours, wedge: f.wedge,"
        "elongation: f.elongation, rows: f.spot.rows, best: f.spot.best, crowther: f.spot.crowther})); });"
    )
    done = subprocess.run(
        [NODE, "-e", code, source],
        input=json.dumps({"model": model, "changes": changes}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def changed(params: PlanParams, tilts: int, half: float, exposure: float, thickness: float) -> PlanParams:
    """The plan that the sliders describe."""
    centre = (params.tilting.tilt_max + params.tilting.tilt_min) / 2
    tilting = params.tilting.model_copy(
        update={"tilt_min": centre - half, "tilt_max": centre + half, "tilt_step": 2 * half / (tilts - 1)}
    )
    slab = params.slab.model_copy(update={"thickness": thickness})
    return params.model_copy(update={"tilting": tilting, "slab": slab, "total_exposure": exposure})


@needs_node
@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("moved", [False, True], ids=["as planned", "moved"])
def test_the_page_computes_what_python_does(name, moved):
    """Tables are written with nine digits, so all agree to 1e-6."""
    params, changes = PLANS[name], {}
    plan = make_plan(params)
    model = page_model(plan)
    if moved:
        changes = {"tilts": 61, "step": None, "range": 48, "exposure": 90.0, "thickness": 2400.0}
        plan = make_plan(changed(params, 61, 48, 90.0, 2400.0))
    told = run_model(model, changes)
    assert told["angle"] == pytest.approx(plan.schedule.tilt_angle, abs=1e-9)
    assert told["exposure"] == pytest.approx(plan.schedule.exposure, rel=1e-9)
    assert told["before"] == pytest.approx(plan.schedule.pre_exposure, abs=1e-9)
    assert told["eta"] == pytest.approx(plan.prediction.transmission, rel=1e-9)
    assert told["ssnr"] == pytest.approx(plan.prediction.ssnr, rel=1e-6)
    bands = (told["resolution"], told["fine"], told["coarse"])
    assert bands == pytest.approx((plan.resolution, *plan.resolution_band), rel=1e-6)
    assert told["needed"] == pytest.approx(plan.particles_needed, rel=1e-6)
    assert told["hours"] == pytest.approx(plan.hours_needed, rel=1e-6)
    spot = plan.sweet_spot
    assert (told["best"], told["crowther"]) == (spot.best, spot.crowther)
    for column in ("tilts", "sampling", "alignment", "overhead", "damage", "total"):
        assert [row[column] for row in told["rows"]] == pytest.approx(getattr(spot, column), rel=1e-6)
    wanted = np.array([1 / params.target.resolution])
    from tiltwise.plan.dose import damage_amplitude

    assert told["amplitude"] == pytest.approx(
        damage_amplitude(plan.schedule, wanted, params.voltage)[:, 0], rel=1e-6, abs=1e-12
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    plan = make_plan(PlanParams())
    return write_plan_page(
        tmp_path_factory.mktemp("plan") / "plan.html", page_model(plan), summarise(plan), plan.params
    )


def test_nothing_is_asked_from_outside(page):
    text = page.read_text(encoding="utf-8")
    head = text[: text.index("</head>")]
    assert "Content-Security-Policy" in head and "default-src &#x27;none&#x27;" in head
    for word in ("fetch(", "XMLHttpRequest", "import(", "WebSocket", "sendBeacon", "url(", "<link", "src=", "@import"):
        assert word not in text, word
    assert set(re.findall(r"https?://[^\s\"'<`]+", text)) == {"http://www.w3.org/2000/svg"}  # a name, never fetched


@needs_browser
def test_dragging_changes_the_page_in_a_browser(page, tmp_path):
    """The page itself, with a script at its end that moves the slider of the exposure as a hand would."""
    drag = (
        "<script>const told = []; addEventListener('error', (e) => told.push(e.message));"
        "addEventListener('securitypolicyviolation', (e) => told.push(e.blockedURI));"
        "const before = {...document.body.dataset}, knob = document.getElementById('in-exposure');"
        "const curve = document.querySelector('#fsc path.first').getAttribute('d');"
        "knob.value = 30; knob.dispatchEvent(new Event('input'));"
        "const lines = document.querySelectorAll('#fan path').length;"
        "document.body.dataset.result = JSON.stringify({before, after: {...document.body.dataset}, told, lines,"
        "moved: curve !== document.querySelector('#fsc path.first').getAttribute('d'),"
        "shown: document.getElementById('out-resolution').textContent,"
        "requests: performance.getEntriesByType('resource').length});</script>"
    )
    text = page.read_text(encoding="utf-8").replace("</body>", drag + "</body>")
    (tmp_path / "dragged.html").write_text(text, encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--virtual-time-budget=3000", "--dump-dom", (tmp_path / "dragged.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'data-result="([^"]*)"', done.stdout)
    assert found, done.stderr[-2000:]
    result = json.loads(found[1].replace("&quot;", '"'))
    assert result["told"] == [] and result["requests"] == 0
    assert result["lines"] == 41 and result["moved"]
    planned, less = make_plan(PlanParams()), make_plan(PlanParams(total_exposure=30.0))
    assert float(result["before"]["resolution"]) == pytest.approx(planned.resolution, rel=1e-6)
    assert float(result["after"]["resolution"]) == pytest.approx(less.resolution, rel=1e-6)
    assert result["shown"] == f"{less.resolution:.1f} Å"
