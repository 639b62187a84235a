"""AreTomo's .aln files, versions 1 to 3, with their local part, and their meaning in our geometry.

AreTomo says where the point X of the specimen lies in raw image i, in pixels and for every version of the program:

    p = Rz(ROT) · Ry(TILT) · X,   image = p_xy + local(p_xy) + (TX, TY) + n / 2

(AreTomo3's source: the projection x cos + z sin in AreTomo/Recon/GBackProj.cu; rotation, local and global shift in
AreTomo/Correct/GCorrPatchShift.cu; the file in AreTomo/MrcUtil/CSaveAlignFile.cpp.) So ROT is our tilt_axis_angle, TILT
our tilt_angle, and (TX, TY) our shift but for the centre: n / 2 there, n // 2 here, which differ for odd n only. (Where
that kernel resamples an image it rounds to whole pixels, half a pixel off; that is how AreTomo makes its own stack, not
what the numbers say.) There is no x-tilt.

local(u) is the mean of the shifts of the reliable patches, weighted by exp(-100 [(u - u_p)_x² / n_x² + (u - u_p)_y² /
n_y²]) with the patches' places u_p in pixels from the image centre, before the global shift.

SEC and DarkFrame count the images of the raw stack, from 0 in AreTomo 1 and 2, from 1 in AreTomo 3; some versions
number the rows anew without the dark images. TILT includes AlphaOffset. BetaOffset enters nowhere.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tiltwise.data.deformation import ImageWarp
from tiltwise.data.errors import InputError
from tiltwise.data.tilt_series import TiltGeometry
from tiltwise.io.alignment import Alignment
from tiltwise.io.local_warp import fit_warp
from tiltwise.io.text_tables import number_row, read_text, whole

_COLUMNS = 10
_LOCAL_COLUMNS = 7
_RELIABLE = 0.9
_FALLOFF = 100.0
_KEY = re.compile(r"(\w+)\s*=\s*(.*)$")
_OLD_COUNT = re.compile(r"(\d+)\s+(\d+)\s*$")
_TITLE = "# AreTomo Alignment / Priims bprmMn"
_HEADER = "# SEC     ROT         GMAG       TX          TY      SMEAN     SFIT    SCALE     BASE     TILT"
_EXACT = 0.03
"""Px to which the spline of a local part is to follow AreTomo's formula."""
_LARGEST_X_TILT = 0.002
"""An x-tilt below this moves no point of a 4k image by 0.1 px, degrees."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LocalShifts:
    """The local part of an alignment: how far patches lie from where the global part puts them."""

    position: np.ndarray
    """(row, patch, 2) x, y from the image centre before the global shift, px."""
    shift: np.ndarray
    """(row, patch, 2) x, y, px."""
    reliable: np.ndarray
    """(row, patch) bool."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AretomoAlignment:
    """What an .aln file says, rows in its order."""

    section: np.ndarray
    """(row,) index in the raw stack, 0 first."""
    tilt_axis_angle: np.ndarray
    """(row,) ROT, degrees."""
    magnification: np.ndarray
    """(row,) GMAG; 1 in every file that AreTomo writes."""
    shift_px: np.ndarray
    """(row, 2) TX, TY, px."""
    tilt_angle: np.ndarray
    """(row,) TILT, degrees, AlphaOffset included."""
    image_count: int | None = None
    """Images of the raw stack, dark ones too; None if not stated."""
    image_shape: tuple[int, int] | None = None
    """(y, x) of the raw images, px; None if not stated."""
    dark_section: np.ndarray
    """(dark,) index in the raw stack of the images that were left out, 0 first."""
    dark_tilt_angle: np.ndarray
    """(dark,) their angles, degrees."""
    alpha_offset: float | None = None
    """Added to all tilt angles, degrees; None if not stated."""
    thickness: int | None = None
    """Thickness of the specimen, px; None if not stated."""
    local: LocalShifts | None = None
    """None without local part."""


def read_aln(path: str | Path) -> AretomoAlignment:
    """Read an .aln file of AreTomo 1, 2 or 3. InputError, in one line, for what is no such file, cut short or
    contradicts itself."""
    header: dict[str, tuple[int, str]] = {}
    rows: list[list[float]] = []
    local_rows: list[list[float]] = []
    darks: list[list[float]] = []
    counts: tuple[int, int] | None = None
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        text = line.strip()
        if text.startswith("#"):
            pair, old = _KEY.match(text.lstrip("# ")), _OLD_COUNT.match(text.lstrip("# "))
            if pair and pair[1] == "DarkFrame":
                darks.append(number_row(path, number, pair[2].split(), 3))
            elif pair:
                header[pair[1]] = (number, pair[2])
            elif old and counts is None:
                counts = (int(old[1]), int(old[2]))
        elif text:
            words = text.split()
            wanted = local_rows if rows and len(words) == _LOCAL_COLUMNS else rows
            wanted.append(number_row(path, number, words, _LOCAL_COLUMNS if wanted is local_rows else _COLUMNS))
    if not rows:
        raise InputError(f"{path}: this is not an .aln file of AreTomo (it has no row of {_COLUMNS} numbers)")
    return _alignment(path, header, np.array(rows), _array(darks, 3), _array(local_rows, _LOCAL_COLUMNS), counts)


def write_aln(path: str | Path, alignment: AretomoAlignment) -> None:
    """Write an .aln file as AreTomo3 does, sections from 1, but with four decimals of TILT: two move the edge of a 4k
    image by 0.17 px."""
    height, width = alignment.image_shape or (0, 0)
    count = alignment.image_count or len(alignment.section) + len(alignment.dark_section)
    patches = 0 if alignment.local is None else alignment.local.position.shape[1]
    lines = [_TITLE, f"# RawSize = {width} {height} {count}", f"# NumPatches = {patches}"]
    for section, angle in zip(alignment.dark_section, alignment.dark_tilt_angle, strict=True):
        lines.append(f"# DarkFrame =  {section:4d} {section + 1:4d} {angle:8.2f}")
    lines += [f"# AlphaOffset = {alignment.alpha_offset or 0.0:8.2f}", f"# BetaOffset = {0.0:8.2f}"]
    if alignment.thickness is not None:
        lines.append(f"# Thickness = {alignment.thickness}")
    lines.append(_HEADER)
    columns = (
        alignment.section,
        alignment.tilt_axis_angle,
        alignment.magnification,
        *alignment.shift_px.T,
        alignment.tilt_angle,
    )
    for section, axis, magnification, x, y, tilt in zip(*columns, strict=True):
        lines.append(
            f"{int(section) + 1:5d}  {axis:9.4f}  {magnification:9.5f}  {x:9.3f}  {y:9.3f}  "
            f"{1:7.2f}  {1:7.2f}  {1:7.2f}  {0:7.2f}  {tilt:10.4f}"
        )
    lines += _local_lines(alignment.local)
    Path(path).write_text("\n".join(lines) + "\n", encoding="ascii", newline="\n")


def from_aretomo(
    alignment: AretomoAlignment, *, pixel_size: float, image_shape: tuple[int, int], path: str | Path
) -> Alignment:
    """The alignment in our geometry; pixel size Å and (y, x) size px of the raw images.

    InputError where the file was made for images of another size, or carries a magnification that our geometry cannot
    hold. The local part becomes a spline warp, w_i(r) = local(r - (TX, TY)), which says how exact it is.
    """
    if alignment.image_shape not in (None, image_shape):
        theirs, ours = (f"{shape[1]} × {shape[0]}" for shape in (alignment.image_shape, image_shape))
        raise InputError(f"{path}: aligns images of {theirs} px, but those of the series are {ours} px")
    if np.abs(alignment.magnification - 1).max() > 1e-4:
        raise InputError(f"{path}: has magnifications other than 1 (GMAG), which cannot be taken over")
    count, dark = len(alignment.section), len(alignment.dark_section)
    warp, notes = _local_warp(alignment, pixel_size, image_shape)
    blank = np.zeros(dark)
    return Alignment(
        program="AreTomo",
        geometry=TiltGeometry(
            tilt_angle=np.concatenate([alignment.tilt_angle, alignment.dark_tilt_angle]),
            tilt_axis_angle=np.concatenate([alignment.tilt_axis_angle, blank]),
            x_tilt=np.zeros(count + dark),
            shift=np.concatenate([alignment.shift_px + _centre_difference(image_shape), np.zeros((dark, 2))])
            * pixel_size,
        ),
        use=np.arange(count + dark) < count,
        section=np.concatenate([alignment.section, alignment.dark_section]).astype(int),
        tilt_offset=alignment.alpha_offset,
        image_warp=warp,
        notes=notes,
    )


def to_aretomo(
    geometry: TiltGeometry,
    use: np.ndarray,
    section: np.ndarray,
    *,
    pixel_size: float,
    image_shape: tuple[int, int],
    alpha_offset: float = 0.0,
) -> AretomoAlignment:
    """The .aln content of our geometry; (tilt,) flags and places in the raw stack; `alpha_offset` is how far the tilt
    angles lie from those of the stage, degrees. InputError for an x-tilt."""
    if np.abs(geometry.x_tilt[use]).max(initial=0.0) > _LARGEST_X_TILT:
        raise InputError(
            f"AreTomo's .aln holds no x-tilt, and this alignment has up to {np.abs(geometry.x_tilt[use]).max():.2f}°; "
            "export it as imod, warp, relion or portal"
        )
    shift = geometry.shift / pixel_size - _centre_difference(image_shape)
    kept, left = np.flatnonzero(use), np.flatnonzero(~np.asarray(use, dtype=bool))
    return AretomoAlignment(
        section=section[kept],
        tilt_axis_angle=geometry.tilt_axis_angle[kept],
        magnification=np.ones(len(kept)),
        shift_px=shift[kept],
        tilt_angle=geometry.tilt_angle[kept],
        image_count=len(use),
        image_shape=image_shape,
        dark_section=section[left],
        dark_tilt_angle=geometry.tilt_angle[left],
        alpha_offset=alpha_offset,
    )


def local_shift(local: LocalShifts, row: int, position: np.ndarray, image_shape: tuple[int, int]) -> np.ndarray:
    """(point, 2) local shift in px at (point, 2) positions in px from the image centre, before the global shift."""
    good = local.reliable[row]
    if not good.any():
        return np.zeros_like(position, dtype=np.float64)
    apart = (position[:, None] - local.position[row][good]) / np.array(image_shape[::-1])
    exponent = -_FALLOFF * (apart**2).sum(-1)
    # The largest weight is made 1, so that far from every patch the sum is not 0 / 0 as in AreTomo's single precision.
    weight = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    return (weight @ local.shift[row][good]) / weight.sum(axis=1, keepdims=True)


def _alignment(
    path: str | Path,
    header: dict[str, tuple[int, str]],
    rows: np.ndarray,
    darks: np.ndarray,
    local_rows: np.ndarray,
    counts: tuple[int, int] | None,
) -> AretomoAlignment:
    size = _header_numbers(path, header, "RawSize", 3)
    count = int(size[2]) if size else None
    section, dark = _sections(path, rows[:, 0], darks, count)
    patches = _header_numbers(path, header, "NumPatches", 1) or [counts[1] if counts else 0]
    alpha, thickness = (_header_numbers(path, header, key, 1) for key in ("AlphaOffset", "Thickness"))
    return AretomoAlignment(
        section=section,
        tilt_axis_angle=rows[:, 1],
        magnification=rows[:, 2],
        shift_px=rows[:, 3:5],
        tilt_angle=rows[:, 9],
        image_count=count,
        image_shape=(int(size[1]), int(size[0])) if size else None,
        dark_section=dark,
        dark_tilt_angle=darks[:, 2],
        alpha_offset=alpha[0] if alpha else None,
        thickness=int(thickness[0]) if thickness else None,
        local=_local(path, local_rows, len(rows), int(patches[0])),
    )


def _sections(
    path: str | Path, section: np.ndarray, darks: np.ndarray, count: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Sections of the rows and of the dark images in the raw stack, counted from 0.

    A DarkFrame line holds the place in order of tilt, from 0, and the section, which some versions leave 0; and some
    number the rows anew once the dark images are gone. What fits together says which it was.
    """
    for value in np.concatenate([section, darks[:, :2].ravel()]):
        whole(path, 0, value, "a section")
    first = 0 if 0 in section else 1
    rows, place = (section - first).astype(int), darks[:, 0].astype(int)
    if len(np.unique(rows)) < len(rows):
        raise InputError(f"{path}: a section number occurs twice")
    total = len(rows) + len(place)
    candidates = ((darks[:, 1] - first).astype(int), place)
    dark = next((one for one in candidates if len({*rows, *one}) == total and (one >= 0).all()), None)
    renumbered = np.array_equal(rows, np.arange(len(rows))) and len(set(place)) == len(place) and count in (None, total)
    if dark is None and renumbered and place.max() < total:
        rows, dark = np.setdiff1d(np.arange(total), place), place
    if dark is None:
        raise InputError(f"{path}: its DarkFrame lines and its sections contradict each other")
    highest = int(max(rows.max(), dark.max(initial=0)))
    if count is not None and highest >= count:
        raise InputError(f"{path}: names section {highest + first} of a stack of {count} images")
    return rows, dark


def _header_numbers(path: str | Path, header: dict[str, tuple[int, str]], key: str, count: int) -> list[float] | None:
    if key not in header:
        return None
    line, text = header[key]
    values = number_row(path, line, text.split(), count)
    if key in ("RawSize", "NumPatches", "Thickness"):
        for value in values:
            whole(path, line, value, key)
    return values


def _local(path: str | Path, rows: np.ndarray, tilts: int, patches: int) -> LocalShifts | None:
    if len(rows) != tilts * patches:
        raise InputError(
            f"{path}: has {len(rows)} local shifts; {patches} patches of {tilts} tilts need {tilts * patches}"
        )
    if not patches:
        return None
    expected = np.stack([np.repeat(np.arange(tilts), patches), np.tile(np.arange(patches), tilts)], axis=1)
    if not np.array_equal(rows[:, :2], expected):
        raise InputError(f"{path}: its local shifts are not in the order of tilts and patches")
    grid = rows.reshape(tilts, patches, _LOCAL_COLUMNS)
    return LocalShifts(position=grid[:, :, 2:4], shift=grid[:, :, 4:6], reliable=grid[:, :, 6] >= _RELIABLE)


def _local_lines(local: LocalShifts | None) -> list[str]:
    if local is None:
        return []
    lines = ["# Local Alignment"]
    for row, patch in np.ndindex(local.reliable.shape):
        (x, y), (dx, dy) = local.position[row, patch], local.shift[row, patch]
        lines.append(f"{row:4d} {patch:3d} {x:8.2f}  {y:8.2f}  {dx:8.2f}  {dy:8.2f}  {local.reliable[row, patch]:4.1f}")
    return lines


def _local_warp(
    alignment: AretomoAlignment, pixel_size: float, image_shape: tuple[int, int]
) -> tuple[ImageWarp | None, tuple[str, ...]]:
    """The local part as a warp, rows of dark images zero, and what is to be said of it.

    A position r of ours counts from the pixel n // 2; r - shift, the place before the global shift, from the tomogram's
    centre in both programs.
    """
    local, count = alignment.local, len(alignment.section)
    if local is None:
        return None, ()
    shift = (alignment.shift_px + _centre_difference(image_shape)) * pixel_size

    def field(row: int, position: np.ndarray) -> np.ndarray:
        return pixel_size * local_shift(local, row, (position - shift[row]) / pixel_size, image_shape)

    extent = (image_shape[1] * pixel_size, image_shape[0] * pixel_size)
    warp, error = fit_warp(field, count, extent, _EXACT * pixel_size)
    rows = np.concatenate([warp.coefficient, np.zeros((len(alignment.dark_section), *warp.coefficient.shape[1:]))])
    note = f"AreTomo's local shifts ({local.shift.shape[1]} patches) are a spline, right to {error / pixel_size:.3f} px"
    return replace(warp, coefficient=rows), (note,)


def _centre_difference(image_shape: tuple[int, int]) -> np.ndarray:
    """(2,) AreTomo's image centre n / 2 minus ours, n // 2, in x, y, px."""
    return np.array([n / 2 - n // 2 for n in reversed(image_shape)])


def _array(rows: list[list[float]], width: int) -> np.ndarray:
    return np.array(rows, dtype=np.float64).reshape(-1, width)
