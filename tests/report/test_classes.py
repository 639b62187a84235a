"""The part of the report about classes."""

import numpy as np
from report_project import density, put

from tiltwise.data.classes import ClassMaps
from tiltwise.data.volume import Volume
from tiltwise.project.create import new_project
from tiltwise.report.classes_part import classes_part
from tiltwise.report.contents import read_contents

QUALITY = {
    "class_size": [0.7, 0.3],
    "class_particles": [66, 34],
    "expected_accuracy": 0.953,
    "likelihood_gain_per_particle": 1.25,
    "resolution_fsc_A": [12.3, None],
    "note": "two <kinds>",
}


def test_a_project_without_classes_says_nothing_of_them(tmp_path):
    assert classes_part(read_contents(new_project(tmp_path / "p"))) == ""


def test_sizes_and_slices_of_the_classes(tmp_path):
    project = new_project(tmp_path / "p", recipe="classes")
    volumes = tuple(Volume(data=np.roll(density(), k, axis=2), voxel_size=4.0) for k in range(2))
    put(project, "classify", "all", QUALITY, {"class_maps": ClassMaps(maps=volumes)})
    part = classes_part(read_contents(project))
    for said in ("70.0 %", "<td>34</td>", "12.3 Å", "not determined", "95.3 %", "1.25 log units", "two &lt;kinds&gt;"):
        assert said in part
    assert part.count("<svg") == 2
