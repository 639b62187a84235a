"""The report's gates: every row a block, with the kind of particle, both halves' gains and what chance gives."""

import re
from pathlib import Path

from tiltwise.report.contents import Entry
from tiltwise.report.polish_part import _gate_rows, _gates

KINDS = ("ribosome", "ferritin")


def gate(accepted, first, second, *chance):
    return {"accepted": accepted, "gain": [first, second], "chance": list(chance), "width": 1.0}


GATES = {
    "found_tilts": {
        "4": {"moved_A": [-30.0, 40.0], "as_given": False, "gain": [99.0, 88.0], "chance": [20.0, 21.0]},
        "9": {"moved_A": [0.0, 2.0], "as_given": True, "gain": [77.0, 66.0], "chance": [30.0, 30.0]},
    },
    "geometry": [
        {
            "accepted": True,
            "held_out_gain": [41.5, 38.2],
            "species": [1],
            "blocks": {"shift": gate(True, 40.0, 39.0, 1.5, 1.25), "warp": gate(False, -3.0, 2.0, 0.0, 0.0)},
        },
        {
            "accepted": False,
            "held_out_gain": [-4.0, 3.0],
            "species": [0, 1],
            "blocks": {"shift": gate(True, 5.0, 6.0, 2.0, 2.0)},
        },
    ],
    "defocus": {"accepted": False, "blocks": {"own": gate(False, -7.0, -8.0, 3.0, 3.0)}},
    "common_defocus": {"change_A": -470.0, "gain": 52.3, "chance": 9.75},
    "motion": {"ribosome": {"accepted": False, "held_out_gain": [0.0, 0.0], "blocks": {}}},
    "weights": {"ferritin": {"accepted": True, "blocks": {"noise": gate(True, 90.0, 80.0, 0.0, 0.0)}}},
}
QUALITY = {
    "cycles": [
        {"cycle": 0, "poses": {}, "gates": {}, "species": dict.fromkeys(KINDS)},
        {
            "cycle": 1,
            "species": dict.fromkeys(KINDS),
            "poses": {"ribosome": {"accepted": False, "gain": [-1.0, -2.0]}},
            "gates": {"TS_01": GATES},
        },
    ]
}


def test_every_gate_has_its_row():
    assert list(_gate_rows(QUALITY)) == [
        (1, "all", "ribosome", "poses", "-1.0", "-2.0", "", ""),
        (1, "TS_01", "", "tilt 4, found 50 Å from where it stood", "+99.0", "+88.0", "20.0 / 21.0", "taken"),
        (1, "TS_01", "", "tilt 9, found 2 Å from what it was given", "+77.0", "+66.0", "30.0", "taken"),
        (1, "TS_01", "ferritin", "shifts of the tilts", "+40.0", "+39.0", "1.5 / 1.2", "taken"),
        (1, "TS_01", "ferritin", "warp of the images", "-3.0", "+2.0", "0.0", ""),
        (1, "TS_01", "ferritin", "together, on images cut anew", "+41.5", "+38.2", "0.0", "taken"),
        (
            1,
            "TS_01",
            "ribosome, ferritin",
            "shifts of the tilts",
            "+5.0",
            "+6.0",
            "2.0",
            "fitted, but refused by the images",
        ),
        (1, "TS_01", "ribosome, ferritin", "together, on images cut anew", "-4.0", "+3.0", "0.0", ""),
        (1, "TS_01", "", "defocus of each tilt", "-7.0", "-8.0", "3.0", ""),
        (1, "TS_01", "ferritin", "noise of each tilt", "+90.0", "+80.0", "0.0", "taken"),
        (1, "TS_01", "", "defocus of the series, -470 Å", "+52.3", "both", "9.8", "taken"),
    ]


def test_the_table_is_drawn():
    entry = Entry(
        step="polish", stage="polish", item="all", state="done", record={"quality": QUALITY}, folder=Path("polish")
    )
    text = re.sub("<[^>]*>", " ", str(_gates(entry)))
    for said in ("By chance", "Particles", "together, on images cut anew", "+52.3", "9.8", "Poses are"):
        assert said in text
