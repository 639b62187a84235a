"""The part of a report about classes: how many particles each has, how surely, and how their maps look."""

import numpy as np

from tiltwise.project.layout import ALL
from tiltwise.report.contents import Contents, Entry
from tiltwise.report.page import Html, figure, join, section, table, tag
from tiltwise.report.views import picture, slab


def classes_part(contents: Contents) -> Html:
    """Sizes of the classes and a slice of each; nothing where none were looked for."""
    entry = contents.last("classify", ALL)
    return Html("") if entry is None else section("Classes", _sizes(entry), _slices(contents, entry))


def _sizes(entry: Entry) -> Html:
    quality = entry.quality
    sizes, counts = quality.get("class_size") or [], quality.get("class_particles") or []
    found = quality.get("resolution_fsc_A") or []
    rows = [
        (number, f"{100 * size:.1f} %", count, f"{resolution:.1f} Å" if resolution else "not determined")
        for number, (size, count, resolution) in enumerate(zip(sizes, counts, found, strict=False), start=1)
    ]
    parts: list[object] = [table(("Class", "Part", "Likeliest for", "Half maps at FSC 0.143"), rows)]
    expected, gain = quality.get("expected_accuracy"), quality.get("likelihood_gain_per_particle")
    if isinstance(expected, int | float) and isinstance(gain, int | float):
        parts.append(
            tag(
                "p",
                f"By their own posteriors {100 * expected:.1f} % of the particles are in the right class. The classes "
                f"explain a particle better than one map by {gain:.2f} log units on average, each judged by references "
                "without it.",
            )
        )
    if quality.get("note"):
        parts.append(tag("p", quality["note"], class_="note"))
    return join(parts)


def _slices(contents: Contents, entry: Entry) -> Html:
    found = contents.load("class_maps", entry)
    if found is None:
        return Html("")
    views = [picture(slab(np.asarray(one.data, np.float32), "z"), one.voxel_size, width=230) for one in found.maps]
    return join([figure(tag("div", *views, class_="row"), "Central slice (xy) of each class, the largest first.")])
