"""From what a user asks of the simulator to the params of a session: a preset, a TOML file, and single values."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tiltwise.data.errors import InputError
from tiltwise.params.presets import MICROSCOPES, SCENES
from tiltwise.params.session import SessionParams

SHORT: dict[str, tuple[str, ...]] = {
    "pixel_size": ("microscope", "camera", "pixel_size"),
    "image_size": ("microscope", "camera", "image_size"),
    "particles": ("scene", "target", "number"),
    "thickness": ("scene", "ice", "thickness"),
    "tilt_max": ("microscope", "scheme", "tilt_max"),
    "tilt_step": ("microscope", "scheme", "tilt_step"),
    "exposure": ("microscope", "scheme", "exposure"),
    "frames": ("microscope", "scheme", "frames"),
}
"""What has an option of its own, and where it stands in SessionParams."""


def session_params(
    *, preset: str | None = None, params: Path | None = None, seed: int = 0, values: Mapping[str, Any] | None = None
) -> SessionParams:
    """A preset (default: all defaults), changed by a TOML file, changed by values of SHORT that are not None.

    Raises InputError, in one line, for an unknown preset, a file that cannot be read, and a value out of bounds.
    """
    if preset is not None and preset not in MICROSCOPES.keys() & SCENES.keys():
        raise InputError(f"no preset {preset!r}; there are: {', '.join(SCENES)}")
    known = (SessionParams() if preset is None else SessionParams.preset(preset)).model_dump()
    source = "simulate"
    if params is not None:
        source = str(params)
        _merge(known, _read_toml(params))
    for name, value in (values or {}).items():
        if value is not None:
            *groups, last = SHORT[name]
            table = known
            for group in groups:
                table = table[group]
            table[last] = value
    known["seed"] = seed
    try:
        return SessionParams.model_validate(known)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{source}: {place}: {first['msg'][0].lower()}{first['msg'][1:]}, not {first['input']!r}"
        ) from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: cannot be read as TOML ({error})") from None


def _merge(known: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Put changes into nested tables; what is not known stays, for the model to refuse."""
    for name, value in changes.items():
        if isinstance(value, Mapping) and isinstance(known.get(name), dict):
            _merge(known[name], value)
        else:
            known[name] = value
