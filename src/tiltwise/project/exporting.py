"""Export: the newest alignment of each series, as files of another program."""

from collections.abc import Sequence
from pathlib import Path

from tiltwise.data.errors import InputError
from tiltwise.io.alignment_files import FORMATS, write_alignments
from tiltwise.project import store
from tiltwise.project.relion_files import newest
from tiltwise.project.state import ProjectState


def export_alignments(folder: Path, form: str, output: Path, *, only: Sequence[str] | None = None) -> list[Path]:
    """Write the alignments of the named series, or of all that are aligned, and return the files.

    InputError for a format that is not written, a series that is not there or not aligned, or an alignment that the
    format cannot hold.
    """
    if form not in FORMATS:
        raise InputError(f"no format {form!r}; alignments are written as {', '.join(FORMATS)}")
    state = ProjectState(folder)
    for name in only or ():
        if name not in state.series:
            raise InputError(f"no tilt series {name!r} in the project; it holds {', '.join(state.series)}")
    found = {name: newest(state, "tilt_series", name) for name in only or state.series}
    state.save_digests()
    missing = [name for name, place in found.items() if place is None]
    if missing and (only or len(missing) == len(found)):
        raise InputError(f"{missing[0] if missing else folder}: is not aligned yet; run: tiltwise align {folder}")
    series = [store.load("tilt_series", place, state.project, series=name) for name, place in found.items() if place]
    if not series:
        raise InputError(f"{state.project}: no tilt series yet; import some with: tiltwise import {folder} PATHS")
    try:
        output.mkdir(parents=True, exist_ok=True)
        return write_alignments(output, series, form)
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error.strerror or error})") from None
