"""The table: every stage, in order, on one screen. Commands, recipe, folders and report are derived from it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One step of the pipeline; params and function are named as text, so that reading the table loads neither."""

    name: str
    """The verb that names command, step folder and module."""
    params: str
    """module:class of the parameters."""
    function: str
    """module:function of the stage."""
    per: str
    """'tilt_series': one item a series; 'project': one item that takes all series."""
    takes: tuple[str, ...]
    """Kinds of input, passed to the function by these names; a trailing ? marks one that may be absent (None), a
    trailing + one that may be several, given by name (then so are all its outputs but the tilt series)."""
    gives: tuple[str, ...]
    """Kinds of output, fields of the result by these names."""
    help: str
    """One line for the command line."""
    given: str = ""
    """module:function that takes over what the user's import gives already; empty: the stage always works itself."""
    given_takes: tuple[str, ...] = ()
    """What that function takes."""
    decides: str = ""
    """module:function that tells from the figures of all series what the data set decides of single ones
    (`data.decisions`); these are then done again with it."""
    version: int = 1
    """Raised whenever the stage gives other results: what an older version made is then outdated."""


def _stage(name: str, per: str, takes: tuple[str, ...], gives: tuple[str, ...], help: str, **more: Any) -> Stage:
    return Stage(
        name=name,
        params=f"tiltwise.params.{name}:{name.capitalize()}Params",
        function=f"tiltwise.stages.{name}:{name}",
        per=per,
        takes=takes,
        gives=gives,
        help=help,
        **more,
    )


STAGES: tuple[Stage, ...] = (
    _stage(
        "motion",
        "tilt_series",
        ("tilt_series", "gain?", "defects?"),
        ("tilt_series", "motions"),
        "correct the motion of movies and sum their frames",
        version=2,
    ),
    _stage(
        "align",
        "tilt_series",
        ("tilt_series",),
        ("tilt_series",),
        "find shifts and tilt axis; flag bad tilts",
        version=6,
        given="tiltwise.stages.given:given",
        given_takes=("tilt_series",),
        decides="tiltwise.ops.alignment.data_set_axis:decide_axes",
    ),
    _stage(
        "defocus",
        "tilt_series",
        ("tilt_series",),
        ("tilt_series",),
        "fit defocus, astigmatism and handedness",
        version=2,
    ),
    _stage(
        "reconstruct",
        "tilt_series",
        ("tilt_series",),
        ("tomogram", "half_tomograms", "pyramid"),
        "reconstruct a tomogram",
        version=2,
    ),
    _stage(
        "pick",
        "tilt_series",
        ("tomogram", "tilt_series", "reference?", "centres?", "shapes?"),
        ("particles",),
        "find particles by template, or on spheres, filaments, tubes, membranes",
        version=5,
        given="tiltwise.stages.given:given_particles",
        given_takes=("given_particles", "tilt_series"),
    ),
    _stage(
        "refine",
        "project",
        ("tilt_series", "particles", "reference?"),
        ("particles", "half_maps", "tilt_series"),
        "align and average particles in two independent halves",
        version=9,
    ),
    _stage(
        "classify",
        "project",
        ("tilt_series", "particles", "focus?"),
        ("particles", "class_maps"),
        "sort particles into classes of different structure",
        version=2,
    ),
    _stage(
        "polish",
        "project",
        ("tilt_series", "particles+"),
        ("particles", "half_maps", "tilt_series"),
        "refine tilt geometry, deformation, defocus and poses on the particles",
        version=6,
    ),
    _stage(
        "frames",
        "tilt_series",
        ("tilt_series", "particles", "half_maps", "motions", "gain?"),
        ("tilt_series", "motions"),
        "refine motion and weights of movie frames on the particles; sum them anew",
    ),
    _stage(
        "postprocess",
        "project",
        ("half_maps",),
        ("map", "mask", "local_resolution"),
        "measure the resolution; sharpen the map",
        version=3,
    ),
)

BY_NAME: dict[str, Stage] = {stage.name: stage for stage in STAGES}
