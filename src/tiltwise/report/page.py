"""A page of HTML as plain functions: text is escaped, fragments made here are not; nothing is fetched from outside."""

import base64
import html
import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


_EMPTY = {"meta", "img", "br", "image", "circle", "line", "rect"}


def tag(element: str, /, *children: object, **attributes: object) -> Html:
    """An element; children that are not Html are escaped, None is left out. `class_` writes class, a_b writes a-b."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if element in _EMPTY:
        return Html(f"<{element}{written}/>")
    return Html(f"<{element}{written}>{join(children)}</{element}>")


def join(children: Iterable[object]) -> Html:
    """Children one after another."""
    return Html("".join(_safe(child) for child in children if child is not None))


def _safe(child: object) -> str:
    return child if isinstance(child, Html) else html.escape(str(child), quote=False)


def table(header: Sequence[object], rows: Iterable[Sequence[object]], class_: str | None = None) -> Html:
    """A table that scrolls by itself where it is wider than the page."""
    head = tag("tr", *[tag("th", cell) for cell in header])
    body = [tag("tr", *[tag("td", cell) for cell in row]) for row in rows]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body), class_=class_), class_="wide")


def figure(content: Html, caption: object) -> Html:
    """A drawing with its caption."""
    return tag("figure", content, tag("figcaption", caption))


def section(title: str, *children: object) -> Html:
    """A headed part of the page, with an anchor made from its title."""
    anchor = "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())
    return tag("section", tag("h2", title), *children, id=anchor)


def png_bytes(pixels: np.ndarray) -> bytes:
    """A PNG file of an 8-bit image, its first row at the top: gray (y, x), or gray and opacity (y, x, 2)."""
    height, width = pixels.shape[:2]
    flat = pixels.reshape(height, -1)
    rows = np.zeros((height, flat.shape[1] + 1), np.uint8)  # a leading 0 in each row: no filter
    rows[:, 1:] = flat
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if pixels.ndim == 2 else 4, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def data_uri(png: bytes) -> str:
    """The image as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def document(title: str, body: Html, *head_extras: Html) -> str:
    """The whole page in one file; head_extras go into its head."""
    head = join(
        [
            tag("meta", charset="utf-8"),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("title", title),
            tag("style", Html(Path(__file__).with_name("page.css").read_text(encoding="utf-8"))),
            *head_extras,
        ]
    )
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body><main>{body}</main></body></html>\n'
