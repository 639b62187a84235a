"""MRC files: every real mode, memory-mapped on reading, the same bytes for the same array on writing.

Arrays are (z, y, x) with row 0 at the bottom, as in the file. The format is MRC2014 (Cheng et al. 2015, J. Struct.
Biol. 192, 146) with IMOD's stamp for the sign of 8-bit data. Foreign faults end here in an InputError of one line.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

from tiltwise.data.errors import InputError
from tiltwise.data.volume import Volume

_HEADER_BYTES = 1024
_KIND_OF_MODE = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_MODE_OF_KIND = {kind: mode for mode, kind in _KIND_OF_MODE.items()}
_WHY_NOT_READ = {
    3: "complex 16-bit integers (mode 3), which is no image; save its real part",
    4: "complex numbers (mode 4), a transform and no image; save the image itself",
    101: "4-bit numbers packed in bytes (mode 101); unpack it first, for instance to mode 0 or 1",
}
_BIG_ENDIAN_STAMP = 0x11
_IMOD_STAMP = 1146047817  # "IMOD" in the file's own byte order, header word 39
_IMOD_SIGNED = 1  # first bit of imodFlags, header word 40: bytes are signed
_LABEL = b"tiltwise"
_ANISOTROPY = 0.01


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MrcHeader:
    """What the header of an MRC file says."""

    shape: tuple[int, int, int]
    """Sections, rows, columns as they follow in the file."""
    dtype: np.dtype
    """Type of one number, byte order included."""
    offset: int
    """Where the numbers begin, bytes."""
    voxel_size: tuple[float, float, float]
    """Spacing along x, y, z, Å; 0 where not stated. The z of a stack of images means nothing."""
    axes: tuple[int, int, int]
    """Which of x = 1, y = 2, z = 3 the columns, rows and sections run along."""


def read_header(path: str | Path) -> MrcHeader:
    """The header of an MRC file, checked against the size of the file.

    Raises InputError for a file that is absent, not MRC, of a mode that holds no real image, or cut short.
    """
    path = Path(path)
    raw, size = _header_bytes(path)
    order = _byte_order(raw)
    if order is None:
        raise InputError(f"{path}: this is not an MRC file (its header makes no sense)")
    header = np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order))[0]
    dtype = _number_type(path, header, raw, order)
    shape = (int(header["nz"]), int(header["ny"]), int(header["nx"]))
    offset = _HEADER_BYTES + int(header["nsymbt"])
    need = offset + int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size < need:
        raise InputError(f"{path}: cut short: {size} bytes, but {_shape_text(shape)} {dtype.name} need {need}")
    axes = tuple(int(header[key]) for key in ("mapc", "mapr", "maps"))
    if sorted(axes) != [1, 2, 3]:
        axes = (1, 2, 3)
    return MrcHeader(shape=shape, dtype=dtype, offset=offset, voxel_size=_voxel_size(header), axes=axes)


def read_mrc(path: str | Path) -> tuple[np.ndarray, float]:
    """The numbers of an MRC file as a read-only memory map (z, y, x), always three axes, and its voxel size in Å.

    The voxel size is that along x, in the fewest digits that give the header's number; 0.0 if the file states none.
    Raises InputError as `read_header` does, and when the spacings along x and y differ by more than 1 %.
    """
    header = read_header(path)
    x, y, _ = header.voxel_size
    if x > 0 and y > 0 and abs(x - y) > _ANISOTROPY * x:
        raise InputError(f"{path}: spacing is {x} Å in x but {y} Å in y; only square pixels are supported")
    data = np.memmap(path, mode="r", dtype=header.dtype, offset=header.offset, shape=header.shape)
    if header.axes != (1, 2, 3):
        data = data.transpose([_array_axis(header, axis) for axis in (3, 2, 1)])
    return data, x


def read_volume(path: str | Path) -> Volume:
    """A map or tomogram. Raises InputError as `read_mrc` does, and for an unstated or unequal voxel size."""
    header = read_header(path)
    data, voxel_size = read_mrc(path)
    if voxel_size <= 0:
        raise InputError(f"{path}: the header states no voxel size; set it, for instance with IMOD's alterheader")
    if abs(header.voxel_size[2] - voxel_size) > _ANISOTROPY * voxel_size:
        raise InputError(
            f"{path}: spacing is {voxel_size} Å in x but {header.voxel_size[2]} Å in z; voxels must be cubes"
        )
    return Volume(data=data, voxel_size=voxel_size)


def write_mrc(path: str | Path, array: np.ndarray, voxel_size: float, *, stack: bool = False, label: str = "") -> None:
    """Write (z, y, x) or (y, x) numbers; the same array always gives the same bytes, since no label holds a time.

    label is a second line of text in the header, 80 characters at most.

    Kept as they are: int8, int16, uint16, float16, float32. Widened or narrowed: bool to int8, uint8 to int16 (8-bit
    data have no agreed sign), float64 to float32. `stack` marks images instead of a volume (space group 0).
    Sections are written one after the other, so a memory map larger than memory can be copied. The caller renames.
    """
    array = array if array.ndim == 3 else np.asarray(array)[None]
    dtype = _written_type(array.dtype)
    with open(path, "wb") as file:
        file.write(b"\0" * _HEADER_BYTES)
        statistics = _write_sections(file, array, dtype)
        file.seek(0)
        file.write(_new_header(array.shape, dtype, voxel_size, (stack, label), statistics).tobytes())


def read_label(path: str | Path) -> str:
    """The second line of text in the header of a file that `write_mrc` has written; empty for others' files."""
    raw, _ = _header_bytes(Path(path))
    lines = [bytes(line).rstrip(b"\0 ") for line in np.frombuffer(raw, HEADER_DTYPE)[0]["label"]]
    return lines[1].decode("ascii", "replace") if lines[0] == _LABEL else ""


def write_volume(path: str | Path, volume: Volume, *, label: str = "") -> None:
    """Write a map or tomogram as `write_mrc` does; a label states the step of numbers that stand for others."""
    label = label if volume.step == 1 else f"one unit is a density of {volume.step:.8g}"
    write_mrc(path, volume.data, volume.voxel_size, label=label)


def _header_bytes(path: Path) -> tuple[bytes, int]:
    try:
        with open(path, "rb") as file:
            raw = file.read(_HEADER_BYTES)
            size = file.seek(0, 2)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    if raw[:2] == b"\x1f\x8b" or raw[:3] == b"BZh":
        raise InputError(f"{path}: this is a compressed file; decompress it first")
    if len(raw) < _HEADER_BYTES:
        raise InputError(f"{path}: this is not an MRC file (only {size} bytes, the header alone takes {_HEADER_BYTES})")
    return raw, size


def _byte_order(raw: bytes) -> str | None:
    """'<' or '>': the order in which the header makes sense, the machine stamp's first; None if neither does."""
    orders = (">", "<") if raw[212] == _BIG_ENDIAN_STAMP else ("<", ">")
    for order in orders:
        header = np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order))[0]
        known = int(header["mode"]) in _KIND_OF_MODE or int(header["mode"]) in _WHY_NOT_READ
        sides = [int(header[key]) for key in ("nx", "ny", "nz")]
        if known and all(0 < side < 1 << 24 for side in sides) and 0 <= int(header["nsymbt"]) < 1 << 30:
            return order
    return None


def _number_type(path: Path, header: np.void, raw: bytes, order: str) -> np.dtype:
    mode = int(header["mode"])
    if mode in _WHY_NOT_READ:
        raise InputError(f"{path}: holds {_WHY_NOT_READ[mode]}")
    if mode == 0 and not _bytes_are_signed(header, raw, order):
        return np.dtype("u1")
    return np.dtype(_KIND_OF_MODE[mode]).newbyteorder(order)


def _bytes_are_signed(header: np.void, raw: bytes, order: str) -> bool:
    """Mode 0 is signed by MRC2014; IMOD's stamp tells where it is not, and so does a stated maximum above 127."""
    stamp, flags = np.frombuffer(raw, np.dtype("i4").newbyteorder(order), count=2, offset=152)
    if stamp == _IMOD_STAMP:
        return bool(flags & _IMOD_SIGNED)
    return not float(header["dmax"]) > 127


def _voxel_size(header: np.void) -> tuple[float, float, float]:
    cell, samples = header["cella"], (header["mx"], header["my"], header["mz"])
    return tuple(_spacing(float(cell[axis]), int(n)) for axis, n in zip("xyz", samples, strict=True))


def _spacing(length: float, samples: int) -> float:
    """The spacing of fewest digits that gives the float32 length to within its own rounding; 0.0 for none."""
    if samples <= 0 or not np.isfinite(length) or length <= 0:
        return 0.0
    exact = length / samples
    for digits in range(1, 17):
        short = float(f"{exact:.{digits}g}")
        if abs(short - exact) <= 1.2e-7 * exact:
            return short
    return exact


def _array_axis(header: MrcHeader, axis: int) -> int:
    """Which array axis of the file (0 = sections, 2 = columns) runs along x = 1, y = 2 or z = 3."""
    return 2 - header.axes.index(axis)


def _written_type(dtype: np.dtype) -> np.dtype:
    kind = dtype.newbyteorder("=").str[1:]
    kind = {"b1": "i1", "u1": "i2", "f8": "f4"}.get(kind, kind)
    if kind not in _MODE_OF_KIND:
        raise TypeError(f"MRC has no mode for {dtype}; convert to float32 or int16 first")
    return np.dtype("<" + kind)


def _write_sections(file, array: np.ndarray, dtype: np.dtype) -> tuple[float, float, float, float]:
    """Write section by section; give the minimum, maximum, mean and standard deviation of what was written."""
    low, high, total, squares = np.inf, -np.inf, 0.0, 0.0
    for index in range(array.shape[0]):
        section = np.ascontiguousarray(np.asarray(array[index]), dtype=dtype)
        file.write(section.data)
        numbers = section.astype(np.float64)
        low, high = min(low, float(numbers.min())), max(high, float(numbers.max()))
        total += float(numbers.sum())
        squares += float((numbers**2).sum())
    count = float(np.prod(array.shape))
    mean = total / count
    return low, high, mean, float(np.sqrt(max(squares / count - mean**2, 0.0)))


def _new_header(shape, dtype, voxel_size, kind, statistics) -> np.ndarray:
    stack, label = kind
    header = np.zeros((), HEADER_DTYPE.newbyteorder("<"))
    nz, ny, nx = shape
    header["nx"], header["ny"], header["nz"] = nx, ny, nz
    header["mode"] = _MODE_OF_KIND[dtype.str[1:]]
    header["mx"], header["my"], header["mz"] = nx, ny, 1 if stack else nz
    header["cella"] = tuple(voxel_size * n for n in (nx, ny, 1 if stack else nz))
    header["cellb"] = (90.0, 90.0, 90.0)
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["dmin"], header["dmax"], header["dmean"], header["rms"] = statistics
    header["ispg"] = 0 if stack else 1
    header["nversion"] = 20141
    header["map"] = b"MAP "
    header["machst"] = [0x44, 0x44, 0, 0]
    labels = [_LABEL, label.encode("ascii")] if label else [_LABEL]
    header["nlabl"] = len(labels)
    header["label"][: len(labels)] = labels
    return header


def _shape_text(shape: tuple[int, ...]) -> str:
    return " × ".join(str(n) for n in shape)
