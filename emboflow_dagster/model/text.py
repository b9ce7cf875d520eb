"""Checks of the small texts that name things: ids, slugs, display names, hashes, relative paths.

Each function returns its argument unchanged or raises
:class:`~emboflow_dagster.errors.InvalidInputError` with one stable code; nothing is silently
repaired, because a repaired name is a name the caller does not know.
"""

import re
import unicodedata
from typing import Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError, Problem, shown

ID_PATTERN: Final = r"^[A-Za-z0-9_-]{1,64}$"
OBJECT_ID_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*$"
SLUG_PATTERN: Final = r"^[a-z0-9]+(-[a-z0-9]+)*$"
SHA256_PATTERN: Final = r"^[0-9a-f]{64}$"
CHECKSUM_PATTERN: Final = r"^sha256:[0-9a-f]{64}$"
TAG_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
TYPE_PATTERN: Final = r"^[a-z0-9_]+$"
EMAIL_PATTERN: Final = r"^[^@\s]+@[^@\s]+$"
# Words that routes, tools and URLs give a meaning of their own.
RESERVED_SLUGS: Final = frozenset(
    "new edit delete null none undefined nan true false system admin api all latest".split()
)
MAX_SLUG_CHARS: Final = 63
MAX_OBJECT_ID_CHARS: Final = 128
_WINDOWS_NAMES: Final = re.compile(r"(?i)^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?$")
_CONTROL_CATEGORIES: Final = frozenset({"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"})
_CONFUSABLE_SCRIPTS: Final = ("CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE")
# Latin look-alikes: a word made of these alone passes for a Latin word.
_LATIN_TWINS: Final = frozenset("асеорхуіјѕһԁԛԝкмтвнАВЕКМНОРСТУХІЈЅΑΒΕΖΗΙΚΜΝΟΡΤΥΧο")


def refuse(kind: ErrorKind, path: str, message: str) -> InvalidInputError:
    """The error for one problem at ``path``."""
    return InvalidInputError.of([Problem(kind, path, message)])


def check_id(value: object, path: str = "id") -> str:
    """A document id: 1 to 64 letters, digits, ``_`` and ``-``."""
    if type(value) is not str:
        raise refuse(ErrorKind.ID_TYPE, path, f"found {shown(value)}; an id is a string")
    if not re.fullmatch(ID_PATTERN[1:-1], value) or value.startswith("-"):
        raise refuse(ErrorKind.ID, path, f"found {shown(value)}; allowed are 1-64 of A-Z a-z 0-9 _ -")
    return value


def check_object_id(value: object, path: str = "object_id") -> str:
    """A blob's id: as a document id, with single dots between parts, at most 128 characters."""
    if type(value) is not str:
        raise refuse(ErrorKind.ID_TYPE, path, f"found {shown(value)}; an id is a string")
    if len(value) > MAX_OBJECT_ID_CHARS or not re.fullmatch(OBJECT_ID_PATTERN[1:-1], value):
        raise refuse(
            ErrorKind.ID,
            path,
            f"found {shown(value)}; allowed are 1-{MAX_OBJECT_ID_CHARS} of A-Z a-z 0-9 _ - "
            "and single dots between parts",
        )
    return value


def check_slug(value: object, path: str = "slug") -> str:
    """A slug: lower-case words of ``a-z0-9`` joined by single ``-``, at most 63 characters.

    ``_`` and ``.`` are refused because Dagster turns ``-`` and ``.`` into ``_`` in op names:
    ``a-b`` and ``a_b`` would collide.
    """
    if type(value) is not str:
        raise refuse(ErrorKind.SLUG_TYPE, path, f"found {shown(value)}; a slug is a string")
    if len(value) > MAX_SLUG_CHARS or not re.fullmatch(SLUG_PATTERN[1:-1], value):
        raise refuse(
            ErrorKind.SLUG,
            path,
            f"found {shown(value)}; allowed are words of a-z 0-9 joined by single '-', at most 63 characters",
        )
    if value in RESERVED_SLUGS:
        raise refuse(ErrorKind.SLUG_RESERVED, path, f"{value!r} is a reserved word")
    return value


def to_slug(text: str, fallback: str = "item") -> str:
    """The nearest slug to a display name; not unique, never reserved.

    >>> to_slug("Arm demo (1).hdf5")
    'arm-demo-1-hdf5'
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:MAX_SLUG_CHARS].rstrip("-")
    if not slug:
        return fallback
    return f"{slug[:58]}-item" if slug in RESERVED_SLUGS else slug


def check_name(value: object, path: str = "name", limit: int = 200) -> str:
    """A display name: visible NFKC text without control characters or look-alike letters."""
    if type(value) is not str:
        raise refuse(ErrorKind.NAME_TYPE, path, f"found {shown(value)}; a name is a string")
    if not value.strip():
        raise refuse(ErrorKind.NAME_EMPTY, path, "found only white space; a name needs a visible character")
    if "\0" in value:
        raise refuse(ErrorKind.TEXT_NUL, path, "a NUL character is not allowed")
    if value != value.strip():
        raise refuse(ErrorKind.NAME_WHITESPACE, path, f"found {shown(value)}; white space at an end")
    for char in value:
        if unicodedata.category(char) in _CONTROL_CATEGORIES:
            raise refuse(
                ErrorKind.NAME_CONTROL, path, f"found {shown(value)}; U+{ord(char):04X} is invisible"
            )
    if len(value) > limit:
        raise refuse(ErrorKind.INVALID_INPUT, path, f"found {len(value)} characters; allowed are {limit}")
    if unicodedata.normalize("NFKC", value) != value:
        raise refuse(ErrorKind.NAME_NOT_NFKC, path, f"found {shown(value)}; write it in NFKC form")
    for word in re.findall(r"\w+", value):
        _refuse_confusable(word, path)
    return value


def _refuse_confusable(word: str, path: str) -> None:
    letters = [c for c in word if c.isalpha()]
    scripts = {unicodedata.name(c, "?").split()[0] for c in letters}
    mixed = "LATIN" in scripts and scripts.intersection(_CONFUSABLE_SCRIPTS)
    twins = bool(letters) and "LATIN" not in scripts and all(c in _LATIN_TWINS for c in letters)
    if mixed or twins:
        raise refuse(
            ErrorKind.NAME_CONFUSABLE,
            path,
            f"{word!a} has letters that look like those of another script",
        )


def check_sha256(value: object, path: str = "sha256") -> str:
    """64 lower-case hexadecimal digits."""
    if type(value) is not str or not re.fullmatch(SHA256_PATTERN[1:-1], value):
        raise refuse(ErrorKind.HASH, path, f"found {shown(value)}; a sha256 is 64 of 0-9 a-f")
    return value


def check_version(value: object, path: str = "version") -> int:
    """A version number: an int (not a bool) from 0 to 2**31-1."""
    if type(value) is not int:
        raise refuse(ErrorKind.VERSION_TYPE, path, f"found {shown(value)}; a version is an int")
    if not 0 <= value < 2**31:
        raise refuse(ErrorKind.VERSION_RANGE, path, f"found {value}; allowed is 0 to {2**31 - 1}")
    return value


def check_rel_path(value: object, path: str = "path") -> str:
    """A relative path inside a folder or bucket: no way out, no alias, no surprise on any system."""
    if type(value) is not str:
        raise refuse(ErrorKind.PATH_TYPE, path, f"found {shown(value)}; a path is a string")
    found = f"found {shown(value)}; "
    if not value.strip():
        raise refuse(ErrorKind.PATH_EMPTY, path, "the path is empty")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise refuse(ErrorKind.PATH_ENCODING, path, found + "not valid Unicode") from None
    normal = unicodedata.normalize("NFKC", value)
    if any(part == ".." for part in re.split(r"[/\\]", normal)):
        raise refuse(ErrorKind.PATH_TRAVERSAL, path, found + "'..' is not allowed")
    if value[0] in "/~" or re.match(r"^[A-Za-z]:", value):
        raise refuse(ErrorKind.PATH_ABSOLUTE, path, found + "only relative paths are allowed")
    if re.match(r"^[A-Za-z][A-Za-z0-9+.-]+:", value):
        raise refuse(ErrorKind.PATH_SCHEME, path, found + "a path, not a URL, is allowed")
    if "\\" in value:
        raise refuse(ErrorKind.PATH_BACKSLASH, path, found + "use '/'")
    if re.search(r"%[0-9A-Fa-f]{2}", value):
        raise refuse(ErrorKind.PATH_ENCODED, path, found + "percent-encoding is not allowed")
    if any(unicodedata.category(c) in _CONTROL_CATEGORIES for c in value):
        raise refuse(ErrorKind.PATH_CONTROL, path, found + "control and invisible characters are not allowed")
    if size > 1024 or any(len(part.encode()) > 255 for part in value.split("/")):  # noqa: PLR2004
        raise refuse(ErrorKind.PATH_TOO_LONG, path, "at most 1024 bytes, 255 a part, are allowed")
    if normal != value:
        raise refuse(ErrorKind.PATH_NOT_NFKC, path, found + "write it in NFKC form")
    for part in value.split("/"):
        if part in ("", ".") or part != part.strip() or part.endswith("."):
            raise refuse(ErrorKind.PATH_SEGMENT, path, found + f"the part {part!r} is not allowed")
        if _WINDOWS_NAMES.match(part):
            raise refuse(ErrorKind.PATH_RESERVED, path, found + f"{part!r} is a device name on Windows")
    return value


def check_entry_path(path: str) -> str:
    """The path of a file in a stored folder: below it, and one that a disk can have.

    Looser than :func:`check_rel_path`: folders are stored as they are found, with whatever their files are
    called.
    """
    found = f"found {shown(path)}; "
    if not path:
        raise refuse(ErrorKind.PATH_EMPTY, "path", "the path is empty")
    parts = path.split("/")
    if ".." in parts:
        raise refuse(ErrorKind.PATH_TRAVERSAL, "path", found + "'..' is not allowed")
    if path[0] == "/":
        raise refuse(ErrorKind.PATH_ABSOLUTE, "path", found + "only relative paths are allowed")
    if "" in parts or "." in parts:
        raise refuse(ErrorKind.PATH_SEGMENT, "path", found + "a part of it names no file")
    if "\0" in path:
        raise refuse(ErrorKind.PATH_CONTROL, "path", found + "a NUL character is not allowed")
    try:
        longest = max(len(part.encode()) for part in parts)
    except UnicodeEncodeError:
        raise refuse(ErrorKind.PATH_ENCODING, "path", found + "not valid Unicode") from None
    if longest > 255:  # noqa: PLR2004 - the limit of file systems
        raise refuse(ErrorKind.PATH_TOO_LONG, "path", "at most 255 bytes a part are allowed")
    return path
