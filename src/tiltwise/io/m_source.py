"""The .source of a population of M: which tilt series it holds, and the volume from whose corner M counts.

M knows a series by a hash of its first image and its name (WarpLib/TiltSeries/TiltSeries.cs, GetDataHash), and looks at
no particle whose hash is in none of its sources (MTools/Commands/CreateSpecies.cs). The volume has DimensionsX, Y and Z
pixels of PixelSize (WarpLib/TiltSeries/TiltSeries.MPARefinement.cs).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tiltwise.data.errors import InputError
from tiltwise.data.volume import TomogramGrid
from tiltwise.io.particle_list import match_series
from tiltwise.io.warp_xml import read_xml, xml_number


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MSource:
    path: Path
    """Of the file, for what is said of it."""
    hashes: dict[str, str]
    """Hash by the name of the series' file (TS_03.tomostar)."""
    grid: TomogramGrid
    """The volume of every series."""


def read_m_source(path: str | Path) -> MSource:
    """Read a .source of M. InputError for what is none, for one without files, and for a size that is none."""
    path = Path(path)
    root = read_xml(path)
    files = {file.get("Name", ""): file.get("Hash", "") for file in root.findall("Files/File")}
    if root.tag != "DataSource" or not files or not all(files.values()):
        raise InputError(f"{path}: is no .source of M that lists its series with their hashes")
    values = {param.get("Name"): param.get("Value", "") for param in root.findall("Param")}
    pixel, *size = (
        xml_number(path, name, values.get(name, ""))
        for name in ("PixelSize", "DimensionsX", "DimensionsY", "DimensionsZ")
    )
    if pixel <= 0 or min(size) < 1:
        raise InputError(f"{path}: a volume of {size[0]:g} × {size[1]:g} × {size[2]:g} px of {pixel:g} Å is none")
    x, y, z = (round(length) for length in size)
    return MSource(path=path, hashes=files, grid=TomogramGrid(shape=(z, y, x), voxel_size=pixel))


def source_files(source: MSource, series: Iterable[str]) -> dict[str, str]:
    """The name of the file of each series in a source. InputError for a series that it has not, or has twice."""
    found = {}
    for name in series:
        same = [file for file in source.hashes if file.removesuffix(".tomostar") == name]
        files = same or [file for file in source.hashes if match_series(file, [name])]
        if len(files) != 1:
            raise InputError(f"{source.path}: {len(files)} of its files are called after the series {name}")
        found[name] = files[0]
    return found
