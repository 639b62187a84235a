"""Numbers that carry their unit, so that the command line, the recipe and the report can say it."""

from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Unit:
    """The unit of a number."""

    symbol: str
    """As it is written after the number."""


Angstrom = Annotated[float, Unit("Å")]
Degree = Annotated[float, Unit("°")]
Kilovolt = Annotated[float, Unit("kV")]
Millimetre = Annotated[float, Unit("mm")]
Exposure = Annotated[float, Unit("e⁻/Å²")]
SquareAngstrom = Annotated[float, Unit("Å²")]
Pixel = Annotated[float, Unit("px")]
Second = Annotated[float, Unit("s")]
Dalton = Annotated[float, Unit("Da")]
CubicAngstrom = Annotated[float, Unit("Å³")]
Milliradian = Annotated[float, Unit("mrad")]
Electronvolt = Annotated[float, Unit("eV")]
Gigabyte = Annotated[float, Unit("GB")]
