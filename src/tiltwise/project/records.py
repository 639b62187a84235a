"""record.json: what was done to an item, with what, by what, and how it went."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from tiltwise.project.layout import RECORD

Record = dict[str, Any]


def read_record(folder: Path) -> Record | None:
    """The record of an item folder; None if there is none that can be read."""
    try:
        record = json.loads((Path(folder) / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def write_record(folder: Path, record: Record) -> None:
    """Write the record of an item folder, the last file to be written there."""
    text = json.dumps(to_json(record), indent=1, ensure_ascii=False, allow_nan=False)
    (Path(folder) / RECORD).write_text(text + "\n", encoding="utf-8")


def outputs_present(folder: Path, record: Record) -> bool:
    """Whether every output that the record lists is there in its full size."""
    for name, output in record.get("outputs", {}).items():
        path = Path(folder) / name
        if not path.is_file() or path.stat().st_size != output["bytes"]:
            return False
    return True


def to_json(value: Any) -> Any:
    """The value in plain JSON types: arrays as lists, what is not finite as null. TypeError for anything else."""
    if isinstance(value, dict):
        return {str(key): to_json(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return to_json(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"a record holds numbers, texts, lists and arrays, not {type(value).__name__}")
