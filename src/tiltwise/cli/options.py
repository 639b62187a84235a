"""Arguments and options that several commands share."""

from collections.abc import Callable

import click

from tiltwise.data.errors import InputError
from tiltwise.data.volume import TomogramGrid


def project_argument() -> click.Argument:
    """The folder of the project."""
    return click.Argument(["project"], metavar="PROJECT")


def json_option() -> click.Option:
    """Machine-readable output."""
    return click.Option(["--json", "as_json"], is_flag=True, help="Print JSON, one object a line.")


EXECUTION: tuple[Callable[[], click.Option], ...] = (
    lambda: click.Option(["--force"], is_flag=True, help="Also what is done already."),
    lambda: click.Option(
        ["--executor"], metavar="KIND", help="serial, local, or tcp://host:port; overrides the recipe."
    ),
    lambda: click.Option(["--workers"], type=click.IntRange(min=1), help="Items at once; overrides the recipe."),
)
"""How a run is carried out."""


IMPORTING: tuple[Callable[[], click.Option], ...] = (
    lambda: click.Option(["--pixel-size-A", "pixel_size"], type=float, metavar="Å", help="Pixel size of the images."),
    lambda: click.Option(
        ["--tilt-axis-angle-deg", "tilt_axis_angle"], type=float, metavar="°", help="Tilt axis, from image y."
    ),
    lambda: click.Option(["--voltage-kV", "voltage"], type=float, metavar="kV", help="Acceleration voltage."),
    lambda: click.Option(["--spherical-aberration-mm", "spherical_aberration"], type=float, metavar="mm", help="Cs."),
    lambda: click.Option(
        ["--amplitude-contrast"], type=float, metavar="FRACTION", help="Fraction of amplitude contrast."
    ),
    lambda: click.Option(["--exposure-e-A2", "exposure"], type=float, metavar="e⁻/Å²", help="Exposure of each image."),
    lambda: click.Option(
        ["--alignment"],
        metavar="PATH",
        help="Alignment of another program: a file, or a folder with one for each series "
        "(.aln, .xf, .xml, .json, .star).",
    ),
    lambda: click.Option(
        ["--images"], metavar="FOLDER", help="Where the separate images of an .mdoc lie, if not beside it."
    ),
)
"""What import is told; goes before what the files say."""


GRID: tuple[Callable[[], click.Option], ...] = (
    lambda: click.Option(
        ["--particle-voxel-size-A", "particle_voxel_size"],
        type=float,
        metavar="Å",
        help="Voxel size of the tomograms that the list of particles counts on; with --particle-tomogram-size.",
    ),
    lambda: click.Option(
        ["--particle-tomogram-size"], metavar="X,Y,Z", help="Their size in voxels; those of the project if not given."
    ),
)
"""The tomograms that particles of another program count on."""

PARTICLES: tuple[Callable[[], click.Option], ...] = (
    lambda: click.Option(["--particles"], metavar="FILE", help="Particles of another program, for the step pick."),
    lambda: click.Option(
        ["--particle-format"],
        metavar="FORMAT",
        help="relion, warp, m, dynamo, stopgap, em, copick or peet; told from the file if not given.",
    ),
    lambda: click.Option(
        ["--particle-tomograms"],
        metavar="FILE",
        help="Names of numbered tomograms: 'number series' a line, as Dynamo's .doc.",
    ),
    *GRID,
)
"""What import is told of particles."""


def given_grid(voxel_size: float | None, size: str | None) -> TomogramGrid | None:
    """The grid that two options name; None if neither is given, InputError if one is, or makes no sense."""
    if voxel_size is None and size is None:
        return None
    words = (size or "").replace(",", " ").split()
    if voxel_size is None or not voxel_size > 0 or len(words) != 3 or not all(word.isdigit() for word in words):
        raise InputError("--particle-voxel-size-A (Å) and --particle-tomogram-size (X,Y,Z voxels) go together")
    x, y, z = (int(word) for word in words)
    if min(x, y, z) < 1:
        raise InputError("--particle-tomogram-size: each number is 1 or more")
    return TomogramGrid(shape=(z, y, x), voxel_size=voxel_size)


def with_params(*params: click.Parameter) -> Callable[[click.Command], click.Command]:
    """Put shared parameters before and after those of a command's own decorators: arguments first, options last."""

    def add(command: click.Command) -> click.Command:
        arguments = [param for param in params if isinstance(param, click.Argument)]
        command.params = [*arguments, *command.params, *(param for param in params if param not in arguments)]
        return command

    return add
