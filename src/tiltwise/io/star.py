"""STAR files: blocks of columns of text.

A block is a dict of columns without the leading underscore: a list of text for a column of a loop, one text for a
value given as a pair. Text stays text, so that a name such as 007 survives; `numbers` and `integers` convert where a
number is meant. Unknown columns are kept. An unnamed block (`data_`) has the name "".

As in RELION, a row of a table is a line. (A strict CIF parser refuses files that the field writes every day, with bare
values that begin with "_" or "$"; see the tests.)
"""

import re
from collections.abc import Mapping, Sequence
from itertools import repeat
from pathlib import Path

import numpy as np

from tiltwise.data.errors import InputError

Block = dict[str, "list[str] | str"]
_RESERVED = ("data_", "loop_", "save_", "stop_", "global_")
_MUST_QUOTE_FIRST = tuple("_#$'\";")
_WORD = re.compile(r"""(?<!\S)(?:"([^"]*(?:"(?=\S)[^"]*)*)"|'([^']*(?:'(?=\S)[^']*)*)'|(\S+))(?!\S)""")


def read_star(path: str | Path) -> dict[str, Block]:
    """All blocks of a STAR file by name.

    Raises InputError for a file that is absent, not STAR, or faulty; a row cut short is named by its line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InputError(f"{path}: this is not a STAR file (not text)")
    blocks: dict[str, Block] = {}
    reader = None
    for index, line in enumerate(text.split("\n")):
        words = _words(path, index, line)
        if not words:
            continue
        if _opens_block(line, words, reader):
            reader = _BlockReader(path=path, name=words[0][5:])
            if reader.name in blocks:
                raise InputError(f"{path}, line {index + 1}: a second block data_{reader.name}")
            blocks[reader.name] = reader.table
        elif reader is None:
            raise InputError(f"{path}: this is not a STAR file (line {index + 1} comes before any data_ block)")
        else:
            reader.take(index, line, words)
    if not blocks:
        raise InputError(f"{path}: this is not a STAR file (it holds no data_ block)")
    return blocks


def write_star(path: str | Path, blocks: Mapping[str, Mapping[str, object]]) -> None:
    """Write blocks of columns: a sequence or array becomes a column of a loop, a single text or number a pair.

    Numbers are written with the fewest digits that give them back exactly. Raises ValueError for unequal columns.
    """
    text = "\n".join(_block_text(name, block) for name, block in blocks.items())
    Path(path).write_text(text, encoding="utf-8", newline="\n")


def block(blocks: Mapping[str, Block], name: str, path: str | Path) -> Block:
    """The block of this name, or an InputError that lists those there are."""
    if name not in blocks:
        present = ", ".join(f"data_{key}" for key in blocks)
        raise InputError(f"{path}: has no block data_{name} (it has {present})")
    return blocks[name]


def texts(table: Block, column: str, path: str | Path) -> list[str]:
    """A column as text; a pair counts as a column of one row."""
    if column not in table:
        raise InputError(f"{path}: lacks the column _{column}")
    values = table[column]
    return [values] if isinstance(values, str) else values


def numbers(table: Block, column: str, path: str | Path) -> np.ndarray:
    """A column as float64; InputError names the row that is no number."""
    values = texts(table, column, path)
    try:
        return np.array(values, dtype=np.float64)
    except ValueError:
        row = next(index for index, value in enumerate(values) if not _is_number(value))
        raise InputError(f"{path}: _{column} in row {row + 1} is {values[row]!r}, not a number") from None


def integers(table: Block, column: str, path: str | Path) -> np.ndarray:
    """A column as int64; 1.000000 counts as 1; InputError names the row that is no whole number."""
    values = numbers(table, column, path)
    whole = np.isfinite(values) & (values == np.round(values)) & (np.abs(values) < 2**53)
    if not whole.all():
        row = int(np.flatnonzero(~whole)[0])
        raise InputError(f"{path}: _{column} in row {row + 1} is {values[row]}, not a whole number")
    return values.astype(np.int64)


def single_text(table: Block, column: str, path: str | Path) -> str:
    """The one value of a column, as text; InputError if there are none or several."""
    values = texts(table, column, path)
    if len(values) != 1:
        raise InputError(f"{path}: _{column} has {len(values)} values; one is expected")
    return values[0]


def single_number(table: Block, column: str, path: str | Path) -> float:
    """The one value of a column, as a number."""
    single_text(table, column, path)
    return float(numbers(table, column, path)[0])


def row_count(table: Block) -> int:
    """Number of rows of a block; 1 for a block of pairs."""
    return max((1 if isinstance(values, str) else len(values) for values in table.values()), default=0)


class _BlockReader:
    """Takes the lines of one block, one after the other, into its table."""

    def __init__(self, *, path: Path, name: str):
        self.path, self.name = path, name
        self.table: Block = {}
        self.columns: list[list[str]] | None = None

    def take(self, index: int, line: str, words: list[str]) -> None:
        in_rows = self.columns and self.columns[0]
        if words == ["loop_"]:
            if self.columns is not None:
                raise self._fault(index, f"a second loop in block data_{self.name}; one block holds one table")
            self.columns = []
        elif line.lstrip().startswith("_") and not in_rows:
            self._take_label(index, words)
        elif self.columns and len(words) == len(self.columns):
            for column, word in zip(self.columns, words, strict=True):
                column.append(word)
        elif self.columns:
            raise self._fault(index, f"the row has {len(words)} values, but the table has {len(self.columns)} columns")
        else:
            raise self._fault(index, "a value without a label")

    def _take_label(self, index: int, words: list[str]) -> None:
        label = words[0][1:]
        if label in self.table:
            raise self._fault(index, f"a second column _{label}")
        if self.columns is not None:
            column: list[str] = []
            self.columns.append(column)
            self.table[label] = column
        elif len(words) == 2:
            self.table[label] = words[1]
        else:
            raise self._fault(index, f"_{label} has {len(words) - 1} values instead of one")

    def _fault(self, index: int, fault: str) -> InputError:
        return InputError(f"{self.path}, line {index + 1}: {fault}")


def _opens_block(line: str, words: list[str], reader: "_BlockReader | None") -> bool:
    """A lone data_ word opens a block; with more words on its line it is the first value of a row."""
    bare = line.lstrip()[:5].lower() == "data_"
    return bare and (len(words) == 1 or reader is None or reader.columns is None)


def _words(path: Path, index: int, line: str) -> list[str]:
    """The values of a line: quotes taken off, a comment left out."""
    if '"' not in line and "'" not in line and "#" not in line:
        return line.split()
    words = []
    for found in _WORD.finditer(line):
        double, single, bare = found.groups()
        if bare is None:
            words.append(double if double is not None else single)
        elif bare.startswith("#"):
            break
        elif bare[0] in "\"'":
            raise InputError(f"{path}, line {index + 1}: a quotation mark that is not closed")
        else:
            words.append(bare)
    return words


def _block_text(name: str, columns: Mapping[str, object]) -> str:
    pairs = {key: value for key, value in columns.items() if _is_single(value)}
    loop = {key: value for key, value in columns.items() if not _is_single(value)}
    lines = [f"\ndata_{name}\n"]
    lines += [f"_{key}\t{_quoted(_written(value))}" for key, value in pairs.items()]
    if loop:
        lengths = {key: len(values) for key, values in loop.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of block data_{name} differ in length: {lengths}")
        lines.append("loop_")
        lines += [f"_{key} #{index + 1}" for index, key in enumerate(loop)]
        lines += map("\t".join, zip(*(_column_text(values) for values in loop.values()), strict=True))
    return "\n".join(lines) + "\n"


def _is_single(value: object) -> bool:
    return isinstance(value, str | int | float | np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0)


def _column_text(values: Sequence | np.ndarray) -> Sequence[str]:
    """The column as text, quickly for the usual types."""
    items = values.tolist() if isinstance(values, np.ndarray) else list(values)
    kind = values.dtype.kind if isinstance(values, np.ndarray) else None
    if kind == "f" and values.dtype.itemsize == 8:
        return list(map(repr, items))
    if kind in ("i", "u"):
        return list(map(str, items))
    if kind == "b":
        return ["1" if item else "0" for item in items]
    if items and items.count(items[0]) == len(items):
        return list(repeat(_quoted(_written(items[0])), len(items)))
    return [_quoted(_written(item)) for item in items]


def _written(value: object) -> str:
    if isinstance(value, bool | np.bool_):
        return "1" if value else "0"
    if isinstance(value, np.generic):
        value = value.item()
    return repr(value) if isinstance(value, float) else str(value)


def _quoted(text: str) -> str:
    """Text as it must be written so that a reader gives it back."""
    if "\n" in text or "\r" in text:
        raise ValueError(f"a line break cannot be written into a STAR table: {text!r}")
    bare = text and not text.startswith(_MUST_QUOTE_FIRST) and not text.lower().startswith(_RESERVED)
    if bare and not any(character.isspace() for character in text):
        return text
    for quote in ('"', "'"):
        inside = text + " "
        if f"{quote} " not in inside and f"{quote}\t" not in inside:
            return f"{quote}{text}{quote}"
    raise ValueError(f"this text cannot be written into a STAR table: {text!r}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
