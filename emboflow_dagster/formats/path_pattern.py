"""A user's own words for which file is which episode and camera: ``{episode}/cam_{camera}.mp4``."""

import re
from typing import Final, NamedTuple

from emboflow_dagster.errors import InvalidInputError, shown

#: The only camera of an episode, where names do not say what it is called.
ONLY_CAMERA: Final = ""

#: Each may stand for anything: many would take for ever to fit.
MAX_STARS: Final = 3

_FIELD: Final = re.compile(r"(\{episode\}|\{camera\}|\*)")


class Place(NamedTuple):
    """Which episode a file belongs to, and of which camera it is."""

    episode: str
    camera: str


class PathPattern:
    """Paths with ``{episode}``, ``{camera}`` (each without ``/``) and ``*`` (anything, ``/`` too).

    >>> PathPattern("*/{camera}/ep{episode}.mp4").match("2024/front/ep07.mp4")
    Place(episode='07', camera='front')

    Raises:
        InvalidInputError: It has no ``{episode}``, or a field twice.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        fields = [text.count(field) for field in ("{episode}", "{camera}", "*")]
        if fields[0] != 1 or fields[1] > 1 or fields[2] > MAX_STARS:
            raise InvalidInputError(
                f"pattern: found {shown(text)}, expected one {{episode}}, at most one {{camera}} and "
                f"{MAX_STARS} *",
                hint="for instance {episode}/{camera}.mp4",
            )
        parts = {"{episode}": "(?P<episode>[^/]+?)", "{camera}": "(?P<camera>[^/]+?)", "*": ".*?"}
        self._regex = re.compile(
            "".join(parts.get(piece) or re.escape(piece) for piece in _FIELD.split(text)) + r"\Z", re.DOTALL
        )

    def match(self, path: str) -> Place | None:
        """The place of a file, ``None`` of one that does not fit."""
        found = self._regex.match(path)
        if found is None:
            return None
        return Place(found["episode"], found.groupdict().get("camera") or ONLY_CAMERA)
