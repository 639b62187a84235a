"""How a project came to be, as a shell script that makes it again.

It is put together from what lies on disk (recipe, import records, records of the items), so that it holds for a project
of any origin, edited by hand or not; the recipe goes into it word for word.
"""

import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tiltwise.project import graph
from tiltwise.project.digests import ABSENT, Digests
from tiltwise.project.graph import Item
from tiltwise.project.layout import DATA_SET, RECIPE, SERIES, given_folder, import_folder, resolve_path
from tiltwise.project.records import Record, read_record
from tiltwise.project.state import ProjectState

_OPTIONS = {
    "pixel_size": "--pixel-size-A",
    "tilt_axis_angle": "--tilt-axis-angle-deg",
    "voltage": "--voltage-kV",
    "spherical_aberration": "--spherical-aberration-mm",
    "amplitude_contrast": "--amplitude-contrast",
    "exposure": "--exposure-e-A2",
    "images": "--images",
}
"""Option of `tiltwise import` for each override that an import record holds."""
_END = "END-OF-RECIPE"


def history_script(folder: Path) -> str:
    """The script. Files that it needs are checked against their digests of today, so that it fails where one has
    changed since; what was made when, by which version, stands in comments."""
    state = ProjectState(folder)
    digests = Digests(state.project)
    default = shlex.quote(f"{state.project.name}-again")
    lines = [
        "#!/bin/sh",
        f"# How {state.project} came to be, written by tiltwise {version('tiltwise')}.",
        "# Makes the project again in the folder given as its one argument.",
        "set -eu",
        f"project=${{1:-{default}}}",
        'check() { echo "$1  $2" | sha256sum --check --quiet; }',
        'mkdir "$project"',
        *_recipe_lines(state, digests),
    ]
    for names in _imported_alike(state):
        lines += ["", *_import_lines(state, names, digests)]
    lines += _particle_lines(state)
    digests.save()
    lines += ["", "# What has been made so far:", *_made_lines(state), 'tiltwise run "$project"', ""]
    return "\n".join(lines)


def _recipe_lines(state: ProjectState, digests: Digests) -> list[str]:
    lines = []
    named = list(state.recipe.files())
    for path in dict.fromkeys(path.replace(SERIES, name) for path in named for name in state.series or ("",)):
        file = resolve_path(path, state.project)
        lines.append(_check(file, digests))
        if not Path(path).is_absolute():  # the recipe names it relative to the project, so it has to lie there again
            lines.append(f'mkdir -p "$project"/{shlex.quote(Path(path).parent.as_posix())}')
            lines.append(f'cp {shlex.quote(str(file))} "$project"/{shlex.quote(path)}')
    text = (state.project / RECIPE).read_text(encoding="utf-8").rstrip("\n")
    lines += [f"cat > \"$project\"/{RECIPE} <<'{_END}'", text, _END]
    if state.decisions:
        decided = (state.project / DATA_SET).read_text(encoding="utf-8").rstrip("\n")
        lines += ["# What all series together have decided of single ones:"]
        lines += [f"cat > \"$project\"/{DATA_SET} <<'{_END}'", decided, _END]
    return lines


def _imported_alike(state: ProjectState) -> list[list[str]]:
    """The series, those with the same options together, so that one command imports them."""
    alike: dict[str, list[str]] = {}
    for name in state.series:
        record = read_record(import_folder(state.project, name)) or {}
        alone = name if record.get("source") is None else ""
        words = [*_option_words(record, state.project), str((record.get("alignment") or {}).get("file")), alone]
        alike.setdefault(" ".join(words), []).append(name)
    return list(alike.values())


def _import_lines(state: ProjectState, names: list[str], digests: Digests) -> list[str]:
    """The import of series that have the same options."""
    lines, files = [], []
    record: Record = {}
    for name in names:
        record = read_record(import_folder(state.project, name)) or {}
        if record.get("source") is None:
            return [f"# {name} was put in by a program, not by 'tiltwise import'; import it by hand"]
        file = resolve_path(record["source"], state.project)
        lines += [f"# {name}, imported {record.get('imported', 'at an unknown time')}", _check(file, digests)]
        files.append(shlex.quote(str(file)))
    words = ["tiltwise", "import", '"$project"', *files, *_option_words(record, state.project)]
    given = record.get("alignment")
    if given:
        aligned = resolve_path(given["file"], state.project)
        lines.append(f"check {given['sha256']} {shlex.quote(str(aligned))}")
        words += ["--alignment", shlex.quote(str(aligned))]
    return [*lines, " ".join(words)]


def _particle_lines(state: ProjectState) -> list[str]:
    """The imports of particles, one for each file they are from."""
    lines: list[str] = []
    done: set[str] = set()
    for name in state.series:
        record = read_record(given_folder(state.project, name))
        if record is None or record["source"] in done:
            continue
        done.add(record["source"])
        file = shlex.quote(str(resolve_path(record["source"], state.project)))
        words = ["tiltwise", "import", '"$project"', "--particles", file, "--particle-format", record["format"]]
        if record["tomograms"]:
            words += ["--particle-tomograms", shlex.quote(str(resolve_path(record["tomograms"], state.project)))]
        if record["grid"]:
            size = ",".join(str(n) for n in reversed(record["grid"]["shape"]))
            words += ["--particle-voxel-size-A", str(record["grid"]["voxel_size"]), "--particle-tomogram-size", size]
        lines += ["", f"# particles of {name}, imported {record['imported']}"]
        lines += [f"check {record['sha256']} {file}"] if record["sha256"] else []
        lines.append(" ".join(words))
    return lines


def _option_words(record: Record, project: Path) -> list[str]:
    words = []
    for key, value in (record.get("overrides") or {}).items():
        text = str(resolve_path(str(value), project).absolute()) if key == "images" else str(value)
        words += [_OPTIONS.get(key, f"--{key.replace('_', '-')}"), shlex.quote(text)]
    return words


def _made_lines(state: ProjectState) -> list[str]:
    """A comment for each item that was tried, in the order of time."""
    items = [(record.get("started", ""), item, record) for item in state.items() if (record := state.record(item))]
    return [_made_line(state, item, record) for _, item, record in sorted(items, key=lambda entry: entry[:2])]


def _made_line(state: ProjectState, item: Item, record: dict[str, Any]) -> str:
    found = state.status(item)
    other = "" if found == "done" else f" ({found} today)"
    return (
        f"# {record.get('started', '?')}  {graph.label(state.recipe, item)}: {record.get('state', '?')} in "
        f"{record.get('seconds', 0):.0f} s by tiltwise {record.get('tiltwise', '?')} on "
        f"{record.get('device', '?')}{other}"
    )


def _check(file: Path, digests: Digests) -> str:
    digest = digests.of(file)
    if digest == ABSENT:
        return f"# missing today: {file}"
    return f"check {digest} {shlex.quote(str(file))}"
