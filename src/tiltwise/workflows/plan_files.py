"""What a plan leaves on disk: tables for people, settings for the microscope's software, JSON, and a page."""

import csv
import json
from pathlib import Path

import numpy as np

from tiltwise.io.imod import write_tlt
from tiltwise.io.mdoc import Mdoc, MdocSection, write_mdoc
from tiltwise.plan.page_model import page_model
from tiltwise.plan.session import Plan
from tiltwise.plan.summary import summarise, tilt_rows
from tiltwise.project.recipe_text import write_params
from tiltwise.report.plan_page import write_plan_page

TABLE, ANGLES, MDOC, SUMMARY, PAGE, RECIPE = (
    "tilts.csv",
    "plan.rawtlt",
    "plan.mrc.mdoc",
    "plan.json",
    "plan.html",
    "plan.toml",
)
SERIALEM, PACETOMO, ORDER = "serialem.txt", "pacetomo.txt", "tilt_order.txt"
_ANGSTROM_PER_UM = 1e4


def write_plan(folder: Path, plan: Plan) -> tuple[Path, ...]:
    """Write every file of a plan into a folder, made if need be; gives their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    summary = summarise(plan)
    header = "A plan for tiltwise plan; every value can be changed and the file given again."
    texts = {
        RECIPE: write_params(plan.params, header),
        SUMMARY: json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        SERIALEM: serialem_settings(plan),
        PACETOMO: pacetomo_settings(plan),
        ORDER: "".join(f"{angle + 0.0:.2f}\n" for angle in plan.schedule.tilt_angle),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    write_table(folder / TABLE, plan)
    write_tlt(folder / ANGLES, np.sort(plan.schedule.tilt_angle))
    write_mdoc(folder / MDOC, mock_mdoc(plan))
    write_plan_page(folder / PAGE, page_model(plan), summary, plan.params)
    return tuple(folder / name for name in (TABLE, ANGLES, MDOC, SERIALEM, PACETOMO, ORDER, SUMMARY, RECIPE, PAGE))


def write_table(path: Path, plan: Plan) -> None:
    """The tilts in the order of acquisition, comma-separated, units in the header."""
    rows = tilt_rows(plan)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})


def serialem_settings(plan: Plan) -> str:
    """What to enter in SerialEM's tilt series set-up, under the names of its dialogs."""
    tilting, params = plan.params.tilting, plan.params
    angle = plan.schedule.tilt_angle
    lines = [
        "# SerialEM: Tilt Series Setup. Each line: the dialog's entry = the value to enter.",
        f"Start at = {angle.min():g}",
        f"End at = {angle.max():g}",
        f"Base increment = {tilting.tilt_step:g}",
        f"Target defocus (um) = {-_middle_defocus(plan):.2f}",
        f"Exposure per tilt (e/A2) = {plan.schedule.exposure.mean():.3f}",
        f"Frames per tilt = {params.frames}",
        f"Vary exposure = {f'1/cos to the power {tilting.exposure_power:g}' if tilting.exposure_power else 'constant'}",
        f"Run series in two directions from = {_direction(plan)}",
    ]
    if tilting.scheme == "dose_symmetric":
        lines += [
            "Use dose-symmetric = on",
            f"  Initial group size = {tilting.group_size}",
            f"  Increase group size beyond an angle = {f'{tilting.growth_angle:g}' if tilting.group_growth else 'off'}",
            f"  Increase group size by = {tilting.group_growth} every {tilting.growth_interval:g} degrees",
            "  Stop alternating directions beyond an angle = "
            + ("off" if tilting.switch_angle is None else f"{tilting.switch_angle:g}"),
        ]
    if tilting.scheme == "continuous":
        lines.append("# Continuous tilting is not in this dialog: it takes a script and a rotation speed of")
        lines.append(f"# {_speed(plan):.4g} degrees/s for the planned exposure rate.")
    lines += ["", "# Order of the tilt angles, to check against the dialog's summary:", "# " + _listed(angle)]
    return "\n".join(lines) + "\n"


def pacetomo_settings(plan: Plan) -> str:
    """The first lines of PACEtomo.py's settings, by the names of its version 1.9, or why it cannot take the order."""
    tilting, optics, slab = plan.params.tilting, plan.params.optics, plan.params.slab
    if tilting.scheme != "dose_symmetric" or tilting.group_growth or tilting.switch_angle is not None:
        return "# PACEtomo runs dose-symmetric orders with groups of one size; this plan's order is another.\n"
    lines = [
        "############ SETTINGS ############",
        f"startTilt\t= {tilting.start_tilt:g}\t# starting tilt angle [degrees]",
        f"minTilt\t\t= {plan.schedule.tilt_angle.min():g}\t# minimum absolute tilt angle [degrees]",
        f"maxTilt\t\t= {plan.schedule.tilt_angle.max():g}\t# maximum absolute tilt angle [degrees]",
        f"step\t\t= {tilting.tilt_step:g}\t# tilt step [degrees]",
        f"groupSize\t= {tilting.group_size}\t# images on one side before the other",
        f"minDefocus\t= {-optics.defocus_min / _ANGSTROM_PER_UM:g}\t# low end of the target range [microns]",
        f"maxDefocus\t= {-optics.defocus_max / _ANGSTROM_PER_UM:g}\t# high end of the target range [microns]",
        "stepDefocus\t= 0.5\t# step between target defoci [microns]",
        f"# exposure per tilt: {plan.schedule.exposure.mean():.3f} e/A2 in {plan.params.frames} frames",
    ]
    if slab.pretilt:
        lines.append(f"# the slab lies across the beam at {slab.pretilt:g} degrees of the stage; set pretilt to match,")
        lines.append("# and check its sign on your stage")
    return "\n".join(lines) + "\n"


def mock_mdoc(plan: Plan) -> Mdoc:
    """The .mdoc that such a series would come with, images in rising order of angle, times from the plan."""
    params, schedule = plan.params, plan.schedule
    size = params.image_size
    header = {
        "PixelSpacing": f"{params.pixel_size:g}",
        "ImageFile": "plan.mrc",
        "ImageSize": f"{size} {size}",
        "DataMode": "1",
        "Voltage": f"{params.voltage:g}",
    }
    each = plan.series_time - params.session.series_time
    sections = []
    for section, i in enumerate(np.argsort(schedule.tilt_angle)):
        seconds = round(each * i / len(schedule))
        keys = {
            "TiltAngle": f"{schedule.tilt_angle[i] + 0.0:.4f}",
            "ExposureDose": f"{schedule.exposure[i]:.6g}",
            "PriorRecordDose": f"{schedule.pre_exposure[i]:.6g}",
            "TargetDefocus": f"{-_middle_defocus(plan):.2f}",
            "PixelSpacing": f"{params.pixel_size:g}",
            "NumSubFrames": str(params.frames),
            "DateTime": f"01-Jan-26  {9 + seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}",
        }
        sections.append(MdocSection(kind="ZValue", value=str(section), keys=keys))
    return Mdoc(header=header, titles=("SerialEM: planned by tiltwise, not yet taken",), sections=tuple(sections))


def _middle_defocus(plan: Plan) -> float:
    return (plan.params.optics.defocus_min + plan.params.optics.defocus_max) / 2 / _ANGSTROM_PER_UM


def _direction(plan: Plan) -> str:
    tilting = plan.params.tilting
    return f"{tilting.start_tilt:g}" if tilting.scheme in ("bidirectional", "dose_symmetric") else "off"


def _speed(plan: Plan) -> float:
    """Degrees per second at which a continuous series gets its exposure."""
    return plan.params.tilting.tilt_step * plan.params.session.exposure_rate / float(plan.schedule.exposure.mean())


def _listed(angle: np.ndarray) -> str:
    return ", ".join(f"{value + 0.0:g}" for value in np.round(angle, 3))
