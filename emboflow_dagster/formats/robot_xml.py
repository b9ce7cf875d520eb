"""XML that describes a robot: which kind a file is by its first element, and parsing that refuses entities.

A description may come from anywhere. Licences and comments of any length, byte order marks and UTF-16 stand
before the first element of real files, so it is looked for by the parser and not in the first bytes.
"""

import re
from contextlib import suppress
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET
from xml.parsers import expat

from emboflow_dagster.formats.detect import Entry, Source

MAX_BYTES: Final = 32 * 1024 * 1024
#: How far the first element is looked for.
MAX_PROLOGUE: Final = 1024 * 1024
SUFFIXES: Final = (".urdf", ".xacro", ".sdf", ".world", ".mjcf", ".xml")
#: Files of a folder that are looked at; folders of labels hold a hundred thousand of plain XML.
MAX_LOOKED_AT: Final = 1_000
MAX_PLAIN_XML: Final = 50
_AFTER_ENTITIES: Final = re.compile(rb"<(robot|mujoco|sdf|gazebo)[\s/>]")
_MARKS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


class _FoundError(Exception):
    """The first element was met: parsing ends."""


def root_of(data: bytes) -> str | None:
    """The name of the first element, without what stands before a colon; ``None`` where none is met."""
    parser = expat.ParserCreate()
    found: list[str] = []

    def begin(name: str, *_: object) -> None:
        found.append(name.rpartition(":")[2])
        raise _FoundError

    def declared(*_: object) -> None:
        # What it defines is not expanded, not even to come to the first element.
        found.extend(name.decode() for name in _AFTER_ENTITIES.findall(data)[:1])
        raise _FoundError

    parser.StartElementHandler = begin
    parser.StartDoctypeDeclHandler = declared
    with suppress(_FoundError, expat.ExpatError):
        parser.Parse(data, False)
    return found[0] if found else None


def root_of_file(path: Path, head: bytes) -> str | None:
    """As :func:`root_of`, of a file that begins with ``head``; what does not look like XML is not read on."""
    plain = head
    for mark in _MARKS:
        plain = plain.removeprefix(mark)
    if not plain.lstrip(b" \t\r\n\0").startswith(b"<"):
        return None
    found = root_of(head)
    if found is not None:
        return found
    try:
        with path.open("rb") as stream:
            return root_of(stream.read(MAX_PROLOGUE))
    except OSError:
        return None


def models(source: Source) -> list[tuple[str, Entry | None]]:
    """(name of the first element, file) of what may describe a robot; no entry for the file itself."""
    if not source.is_folder:
        found = root_of_file(source.path, source.head)
        return [] if found is None else [(found, None)]
    plain = 0
    roots: list[tuple[str, Entry | None]] = []
    looked_at = 0
    for entry in source.with_suffix(*SUFFIXES):
        if entry.suffix == ".xml":
            plain += 1
            if plain > MAX_PLAIN_XML:
                continue
        looked_at += 1
        if looked_at > MAX_LOOKED_AT:
            break
        found = root_of_file(source.file(entry), source.head_of(entry))
        if found is not None:
            roots.append((found, entry))
    return roots


def parse(path: Path) -> ET.Element:
    """The whole file.

    Raises:
        ValueError: Too large, or a document type declaration (entities).
        xml.etree.ElementTree.ParseError: Not well-formed.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES} bytes")
    text = path.read_bytes()
    _refuse_entities(text)
    return ET.fromstring(text)  # noqa: S314 - entities were refused above


def _refuse_entities(text: bytes) -> None:
    parser = expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise ValueError("a document type declaration is not allowed in a robot description")

    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(text, True)
    except expat.ExpatError:
        return  # ElementTree says it again, with the place
