"""The tiny pipeline of fake_stages put in place of the real one, and series of a few pixels."""

from pathlib import Path

import fake_stages
import numpy as np

from tiltwise import pipeline
from tiltwise.io.mrc import write_mrc
from tiltwise.project import create


def install(set_attribute=setattr) -> None:
    set_attribute(pipeline, "STAGES", fake_stages.STAGES)
    set_attribute(pipeline, "BY_NAME", {stage.name: stage for stage in fake_stages.STAGES})
    set_attribute(create, "STARTS", {"template": {"shift": {}, "fill": {}, "mean": {}}})


def write_series(folder: Path, name: str, number: int = 3, seed: int = 0) -> Path:
    """A stack of random images and its .rawtlt."""
    folder.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(seed).normal(size=(number, 8, 6)).astype(np.float32)
    write_mrc(folder / f"{name}.mrc", images, 5.0, stack=True)
    (folder / f"{name}.rawtlt").write_text("".join(f"{3 * index - 3}\n" for index in range(number)))
    return folder / f"{name}.mrc"
