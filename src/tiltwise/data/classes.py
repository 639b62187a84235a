"""Maps of the classes that particles were sorted into."""

from dataclasses import dataclass

from tiltwise.data.volume import Volume


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ClassMaps:
    maps: tuple[Volume, ...]
    """(class,) average of all particles, each by its posterior; the largest class first; unfiltered, unmasked."""
