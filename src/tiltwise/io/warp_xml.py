"""The XML files of Warp and M: read as a tree, and the numbers in them."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np

from tiltwise.data.errors import InputError
from tiltwise.io.text_tables import LARGEST_NUMBER, decode, read_bytes


def read_xml(path: str | Path) -> ElementTree.Element:
    """The root of an XML file of Warp or M; InputError for what is none."""
    raw = read_bytes(path)
    if b"<!DOCTYPE" in raw[:4096] or "<!DOCTYPE".encode("utf-16-le") in raw[:8192]:
        raise InputError(f"{path}: has a document type, which no file of Warp has")
    wide = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    if not wide and b"\0" in raw[:4096]:
        raise InputError(f"{path}: this is not an XML file")
    text = decode(path, raw, encoding="utf-16" if wide else "utf-8-sig")
    try:
        return ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", text, count=1))
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: this is not a well-formed XML file ({error})") from None
    except ValueError as error:
        raise InputError(f"{path}: this is not a well-formed XML file ({' '.join(str(error).split())})") from None


def xml_number(path: str | Path, name: str, text: str) -> float:
    """A number as Warp writes it, with a decimal comma perhaps; InputError names what is none."""
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = np.nan
    if not abs(value) < LARGEST_NUMBER:
        raise InputError(f"{path}: {name}: {text[:40]!r} is not a finite number")
    return value
