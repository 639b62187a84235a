"""An alignment that another program made, in our geometry, and how its rows find the images of a tilt series."""

from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath

import numpy as np

from tiltwise.data.deformation import Deformation, ImageWarp
from tiltwise.data.errors import InputError
from tiltwise.data.tilt_series import TiltGeometry, TiltSeries
from tiltwise.io.images import parse_image_name

SAME_ANGLE = 0.5
"""Two statements of one nominal stage angle differ by less than this, degrees."""
_LARGEST_REFINEMENT = 2.5
"""Refined tilt angles stay this near to those of the stage once a common offset is taken out, degrees."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Alignment:
    """A row for each image that the program aligned, or knew of."""

    program: str
    """Name of the program."""
    geometry: TiltGeometry
    """(row,) geometry in our convention."""
    use: np.ndarray
    """(row,) bool; False where the program left the image out."""
    section: np.ndarray | None = None
    """(row,) index of the image in the raw stack, 0 first; None if the file does not say."""
    image_stems: tuple[str, ...] | None = None
    """(row,) name of the image's own file without folder and suffix; None if the file names none."""
    image_warp: ImageWarp | None = None
    """A row for each of the alignment's; None without local part."""
    stage_tilt_angle: np.ndarray | None = None
    """(row,) nominal angle of the stage, degrees; None if the file keeps only refined ones."""
    tilt_offset: float | None = None
    """What the program says it added to the nominal angles, degrees; None if it does not say."""
    sign_known: bool = True
    """False where the program's user may have kept or negated the nominal angles, so that both signs are right."""
    defocus_handedness: int | None = None
    """+1 or -1 where the program states it."""
    notes: tuple[str, ...] = ()
    """What could not be taken over, in one line each."""


def align_series(series: TiltSeries, alignment: Alignment, path: str | Path) -> TiltSeries:
    """The series with the alignment's geometry.

    A tilt that the program left out is excluded with the reason, and its row of the geometry interpolated over the tilt
    angle. InputError, naming `path`, where the rows cannot be matched to the images or their angles contradict them.
    """
    tilts = match_rows(series, alignment, path)
    if not _names_agree(series, alignment):
        _check_angles(series, alignment, tilts, path)
    aligned = np.zeros(series.number, dtype=bool)
    aligned[tilts[alignment.use]] = True
    if aligned.sum() < 2:
        raise InputError(f"{path}: aligns {int(aligned.sum())} images of {series.name}; at least 2 are needed")
    reason = f"left out of the alignment by {alignment.program}"
    why_not = tuple(old or ("" if kept else reason) for old, kept in zip(series.why_not, aligned, strict=True))
    return replace(
        series,
        geometry=_geometry_of_all(series, alignment, tilts),
        deformation=_deformation_of_all(series, alignment, tilts),
        use=np.asarray(series.use, dtype=bool) & aligned,
        why_not=why_not,
        defocus_handedness=alignment.defocus_handedness or series.defocus_handedness,
    )


def match_rows(series: TiltSeries, alignment: Alignment, path: str | Path) -> np.ndarray:
    """(row,) the tilt of the series that each row is about: by image name, by place in the stack, by nominal angle
    (also where rows are fewer than images: views were taken out of the stack before), or in order where the numbers
    agree. InputError where none of these tells."""
    if _names_agree(series, alignment):
        stems = [image_stem(name) for name in series.image_names]
        return _one_each(np.array([stems.index(stem) for stem in alignment.image_stems]), path)
    views_removed = len(alignment.use) < series.number and alignment.stage_tilt_angle is not None
    if alignment.section is not None and not views_removed:
        return _by_section(series, alignment.section, path)
    if alignment.stage_tilt_angle is not None:
        return _by_angle(series, alignment.stage_tilt_angle, path)
    count = len(alignment.use)
    if count != series.number:
        raise InputError(f"{path}: aligns {count} images, but {series.name} has {series.number}")
    return np.arange(count)


def image_stem(name: str) -> str:
    """Name of an image without folder (Windows or Unix) and suffix; of one in a stack with its number."""
    file = parse_image_name(name)
    stem = PureWindowsPath(str(file.path)).stem
    return stem if file.section is None else f"{stem}_{file.section + 1:03d}"


def image_sections(series: TiltSeries) -> np.ndarray:
    """(tilt,) index of each image in its stack, 0 first; of separate images their place in the series."""
    sections = [parse_image_name(name).section for name in series.image_names]
    if any(section is None for section in sections):
        return np.arange(series.number)
    return np.array(sections)


def _names_agree(series: TiltSeries, alignment: Alignment) -> bool:
    """Whether every row names an image of the series."""
    stems = {image_stem(name) for name in series.image_names}
    return alignment.image_stems is not None and set(alignment.image_stems) <= stems


def _by_section(series: TiltSeries, section: np.ndarray, path: str | Path) -> np.ndarray:
    place = {int(number): tilt for tilt, number in enumerate(image_sections(series))}
    absent = next((int(number) for number in section if int(number) not in place), None)
    if absent is not None:
        raise InputError(
            f"{path}: aligns image {absent + 1} of the stack, but {series.name} has {series.number} images"
        )
    return _one_each(np.array([place[int(number)] for number in section]), path)


def _by_angle(series: TiltSeries, angle: np.ndarray, path: str | Path) -> np.ndarray:
    difference = np.abs(angle[:, None] - series.stage_tilt_angle[None, :])
    nearest = difference.argmin(axis=1)
    far = difference[np.arange(len(angle)), nearest] > SAME_ANGLE
    if far.any():
        raise InputError(f"{path}: no image of {series.name} was taken at {angle[far][0]:.1f}°")
    return _one_each(nearest, path)


def _one_each(tilts: np.ndarray, path: str | Path) -> np.ndarray:
    values, counts = np.unique(tilts, return_counts=True)
    if (counts > 1).any():
        raise InputError(f"{path}: two of its rows are about the same image (number {int(values[counts > 1][0]) + 1})")
    return tilts


def _check_angles(series: TiltSeries, alignment: Alignment, tilts: np.ndarray, path: str | Path) -> None:
    """Rows that went to the wrong images show in the angles."""
    kept = np.flatnonzero(alignment.use)
    ours = series.stage_tilt_angle[tilts[kept]]
    if alignment.stage_tilt_angle is not None:
        difference, limit = np.abs(alignment.stage_tilt_angle[kept] - ours), SAME_ANGLE
    else:
        offset = alignment.geometry.tilt_angle[kept] - ours
        common = float(np.median(offset)) if len(kept) else 0.0
        limit = _LARGEST_REFINEMENT
        if alignment.tilt_offset is not None and abs(common - alignment.tilt_offset) > SAME_ANGLE:
            common, limit = alignment.tilt_offset, SAME_ANGLE
        difference = np.abs(offset - common)
    if not len(kept) or difference.max() <= limit:
        return
    if not alignment.sign_known and _spread(alignment.geometry.tilt_angle[kept] + ours) <= _LARGEST_REFINEMENT:
        return
    worst = int(difference.argmax())
    angle = alignment.geometry.tilt_angle[kept]
    hint = ""
    if _spread(angle + ours) <= _LARGEST_REFINEMENT:
        hint = "; they agree with the opposite sign"
    elif len(kept) == series.number and _spread(np.sort(angle) - np.sort(ours)) <= _LARGEST_REFINEMENT:
        hint = "; they agree in another order"
    raise InputError(
        f"{path}: its tilt angles are not those of {series.name}: image {int(tilts[kept][worst]) + 1} was taken at "
        f"{ours[worst]:.1f}°, but its row says {angle[worst]:.1f}°{hint}"
    )


def _spread(difference: np.ndarray) -> float:
    return float(np.abs(difference - np.median(difference)).max())


def _geometry_of_all(series: TiltSeries, alignment: Alignment, tilts: np.ndarray) -> TiltGeometry:
    """The rows in the order of the series; of tilts without one, interpolated over the angle of the stage."""
    kept = np.flatnonzero(alignment.use)
    kept = kept[np.argsort(series.stage_tilt_angle[tilts[kept]], kind="stable")]
    known = series.stage_tilt_angle[tilts[kept]]

    def spread_out(values: np.ndarray) -> np.ndarray:
        filled = np.interp(series.stage_tilt_angle, known, values[kept])
        filled[tilts[kept]] = values[kept]
        return filled

    geometry = alignment.geometry
    offset = spread_out(np.asarray(geometry.tilt_angle) - _nominal(series, tilts))
    return TiltGeometry(
        tilt_angle=_exact(series.stage_tilt_angle + offset, geometry.tilt_angle, tilts, kept),
        tilt_axis_angle=spread_out(geometry.tilt_axis_angle),
        x_tilt=spread_out(geometry.x_tilt),
        shift=np.stack([spread_out(geometry.shift[:, axis]) for axis in range(2)], axis=1),
    )


def _deformation_of_all(series: TiltSeries, alignment: Alignment, tilts: np.ndarray) -> Deformation | None:
    """The local part in the order of the series; none in tilts that were not aligned."""
    if alignment.image_warp is None:
        return None
    given = alignment.image_warp.coefficient
    coefficient = np.zeros((series.number, *given.shape[1:]))
    coefficient[tilts[alignment.use]] = given[alignment.use]
    return Deformation(image=replace(alignment.image_warp, coefficient=coefficient))


def _nominal(series: TiltSeries, tilts: np.ndarray) -> np.ndarray:
    return series.stage_tilt_angle[tilts]


def _exact(filled: np.ndarray, values: np.ndarray, tilts: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The given values themselves where there are any, without the rounding of a difference and a sum."""
    filled[tilts[kept]] = np.asarray(values)[kept]
    return filled
