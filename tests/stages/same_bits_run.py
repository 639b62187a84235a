"""Run stages on a tiny scene with as many threads as asked for, and print a digest of what each gives, but for the
figures of its report: products of numpy, of which those are made, may differ in the last digit."""

import hashlib
import json
import sys
from dataclasses import fields, is_dataclass, replace

import numpy as np
import particle_scene
import torch
from particle_scene import DIAMETER, reference, scene
from scipy.spatial.transform import Rotation

from tiltwise.params.polish import PolishParams
from tiltwise.params.refine import RefineParams
from tiltwise.stages.polish import polish
from tiltwise.stages.refine import refine

SHARED = {"box_size": 32, "particle_diameter": DIAMETER}


def digest(value):
    """Of every array and number in a result, in order."""
    found = hashlib.sha256()
    add(found, value)
    return found.hexdigest()


def add(found, value):
    if is_dataclass(value):
        for field in fields(value):
            if field.name != "quality":
                add(found, getattr(value, field.name))
    elif isinstance(value, dict):
        for key in sorted(value):
            found.update(str(key).encode())
            add(found, value[key])
    elif isinstance(value, list | tuple):
        for one in value:
            add(found, one)
    elif isinstance(value, Rotation):
        found.update(value.as_quat().tobytes())
    elif isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        found.update(np.ascontiguousarray(value).tobytes())
    else:
        found.update(repr(value).encode())


def main(threads):
    torch.set_num_threads(threads)
    particle_scene.SIZE = 192  # more pixels than torch gives to one thread
    made = scene(series=1, particles=12, noise=0.3)
    rng = np.random.default_rng(3)
    off = Rotation.from_rotvec(rng.normal(0, 5, (12, 3)), degrees=True)
    start = replace(made.particles, position=made.particles.position + rng.normal(0, 4, (12, 3)))
    start = replace(start, rotation=start.rotation * off)
    first = reference(made.centres)
    cone = RefineParams(reference_lowpass=50.0, search_cone=20.0, iterations=2, **SHARED)
    refined = refine(made.tilt_series, start, first, cone)
    print(json.dumps({"refine": digest(refined), "resolution": refined.quality["resolution_fsc_A"]}), flush=True)
    halves = replace(start, half_set=1 + np.arange(12) % 2)
    shifts = PolishParams(cycles=1, blocks=("shift",), **SHARED)
    print(json.dumps({"polish": digest(polish(made.tilt_series, halves, shifts))}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
