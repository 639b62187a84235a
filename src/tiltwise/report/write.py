"""The report of a project: one HTML file that holds its pictures, opens offline and asks nobody for anything."""

from pathlib import Path

from tiltwise.report.classes_part import classes_part
from tiltwise.report.contents import read_contents
from tiltwise.report.map_part import map_part
from tiltwise.report.overview_part import headline, methods_part, status_part, unknown_part
from tiltwise.report.page import document, join, section, tag
from tiltwise.report.polish_part import polish_part
from tiltwise.report.series_part import series_part

REPORT = "report.html"


def write_report(project_folder: Path, output: Path | None = None) -> Path:
    """Write the report of a project from its records and files, and return where it is.

    output is the file; report.html in the project folder if not given. Steps not run yet, or failed, are said to be so.
    InputError if the folder is no project.
    """
    contents = read_contents(Path(project_folder))
    name = contents.project.name
    parts = ["What was done", "The map", "Tilt series", "What is not known", "Methods and parameters"]
    links = [tag("a", part, href="#" + part.lower().replace(" ", "-")) for part in parts]
    body = join(
        [
            tag("h1", name),
            tag("p", "Cryo-electron tomography and subtomogram averaging, processed with tiltwise.", class_="soft"),
            headline(contents),
            tag("nav", *links),
            status_part(contents),
            map_part(contents),
            polish_part(contents),
            classes_part(contents),
            section("Tilt series", *[series_part(contents, s, opened=i == 0) for i, s in enumerate(contents.series)]),
            unknown_part(contents),
            methods_part(contents),
        ]
    )
    path = contents.project / REPORT if output is None else Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document(f"{name} · tiltwise", body), encoding="utf-8")
    return path
