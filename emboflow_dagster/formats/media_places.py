"""Which episode and camera a video, or a sequence of pictures, is of, by the names of files and folders.

Rules are tried in order; the first that gives every file a place of its own is taken. What a name says is
said by words (``episode_3``, ``wrist``) and numbers; where nothing is said, each file is an episode. A wrong
guess is put right by a pattern (:mod:`emboflow_dagster.formats.path_pattern`).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError, shown
from emboflow_dagster.formats.hdf5_layout import natural_key
from emboflow_dagster.formats.path_pattern import ONLY_CAMERA, PathPattern, Place

#: Episodes that a report lists.
MAX_LISTED: Final = 200

_STRONG = "episode|ep|demo|demonstration|traj|trajectory|trial|rollout|attempt"
_WEAK = "run|take|session|seq|sequence|recording|rec|bag|test|sample|subject|scenario"
_CAMERA_WORDS: Final = frozenset(
    "aerial back base bottom cam camera cams center centre chest color colour depth down ego egocentric "
    "egoview exterior external eye fisheye front gripper hand head high image images infra infrared ir "
    "laptop left low main mono overhead phone pov realsense rear rgb rgbd right scene side stereo third top "
    "torso up view webcam wrist zed".split()
)
#: Words of a name that say nothing of the camera.
_PLAIN_WORDS: Final = frozenset(
    "clip data file frame frames im img movie mp observation obs output pic picture vid video videos".split()
)
#: Words that name a camera only together with a number.
_NUMBERED_WORDS: Final = frozenset("cam camera view webcam image".split())
_STRUCTURE: Final = re.compile(
    r"(?:chunk[-_]?\d+|videos?|data|images|frames|train|val|test)\Z", re.IGNORECASE
)
_SEPARATORS: Final = "_-. "
_LETTERS: Final = re.compile(r"[a-z]+")
_NO_WORD: Final = re.compile(r"\d[\dTtZz_:.+-]*\Z")
_AT_END: Final = re.compile(r"(.*?)[_\-. ]?(\d+)\Z", re.DOTALL)
_AT_START: Final = re.compile(r"(\d+)[_\-. ](.+)\Z", re.DOTALL)
#: From so many digits on a number counts episodes, not cameras.
_LONG_NUMBER: Final = 3


def _token(words: str) -> "re.Pattern[str]":
    return re.compile(rf"(?<![a-z])(?:{words})[-_ .]?\d+(?![a-z])", re.IGNORECASE)


_TOKENS: Final = (_token(_STRONG), _token(_WEAK))


@dataclass(slots=True)
class Division:
    """Files by episode and camera.

    Attributes:
        rule: How they were told apart, in words.
        pattern: The same, short.
        episodes: Episode to camera (``""`` where names do not say) to the file, both in natural order.
        left_out: Files that do not fit a pattern.
        is_guess: Whether names said nothing.
    """

    rule: str
    pattern: str
    episodes: dict[str, dict[str, str]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    is_guess: bool = False

    @property
    def cameras(self) -> list[str]:
        """All cameras, in natural order."""
        return sorted({name for cameras in self.episodes.values() for name in cameras}, key=natural_key)

    def incomplete(self) -> dict[str, list[str]]:
        """Episodes that lack cameras which others have."""
        every = self.cameras
        return {
            episode: [name for name in every if name not in cameras]
            for episode, cameras in self.episodes.items()
            if len(cameras) < len(every)
        }

    def to_json(self) -> dict[str, Any]:
        """The ``division`` of a report."""
        return {
            "by": "name",
            "rule": self.rule,
            "pattern": self.pattern,
            "episodes": len(self.episodes),
            "cameras": self.cameras[:MAX_LISTED],
            "files": dict(list(self.episodes.items())[:MAX_LISTED]),
        }


def divide(
    paths: Sequence[str], by: str = "name", pattern: str | None = None, *, files: bool = True
) -> Division:
    """Tell files apart.

    Args:
        paths: Relative paths; those of videos with their suffix, those of sequences without one.
        by: ``name``; ``file`` (each is an episode), ``one`` (all are cameras of one).
        pattern: Of the names, instead of the rules.
        files: Whether names have a suffix that says nothing.

    Raises:
        InvalidInputError: No file fits the pattern, or two have one place.
    """
    if by == "file" or (by == "name" and pattern is None and len(paths) == 1):
        return _each(paths)
    if by == "one":
        division = Division("every file is a camera of one episode, as it was asked", "{camera}")
        division.episodes["."] = {
            _stem(path) if files else path: path for path in sorted(paths, key=natural_key)
        }
        return division if len(division.episodes["."]) == len(paths) else _with_suffixes(division, paths)
    if pattern is not None:
        return _told(paths, PathPattern(pattern))
    stems = {path: _stem(path) if files else path for path in paths}
    for keep in (False, True):
        for rule, text, place in _RULES:
            found = {path: place(stem.split("/"), keep) for path, stem in stems.items()}
            places = [one for one in found.values() if one is not None]
            if len(places) == len(paths) == len(set(places)) and _is_likely(places, text):
                return _sorted(Division(rule, text), {path: one for path, one in found.items() if one})
    division = _each(paths)
    division.is_guess = True
    return division


def _each(paths: Sequence[str]) -> Division:
    ordered = sorted(paths, key=natural_key)
    return Division("every file is an episode", "{episode}", {path: {ONLY_CAMERA: path} for path in ordered})


def _with_suffixes(division: Division, paths: Sequence[str]) -> Division:
    division.episodes["."] = {path: path for path in sorted(paths, key=natural_key)}
    return division


def _told(paths: Sequence[str], pattern: PathPattern) -> Division:
    found = {path: place for path in paths if (place := pattern.match(path)) is not None}
    if not found:
        text = f"no file fits {shown(pattern.text)}; there are {', '.join(list(paths)[:5])}"
        raise InvalidInputError(text, kind=ErrorKind.INPUT_MISSING)
    places: dict[Place, str] = {}
    for path, place in found.items():
        if place in places:
            text = f"{shown(pattern.text)} gives {places[place]} and {path} one place"
            raise InvalidInputError(text, hint="say more with {camera}")
        places[place] = path
    division = Division("as it was asked", pattern.text)
    division.left_out = [path for path in paths if path not in found]
    return _sorted(division, found, tell=False)


def _sorted(division: Division, found: dict[str, Place], *, tell: bool = True) -> Division:
    names = {place.camera for place in found.values()}
    # The only camera is called by its name where that is one.
    only = tell and len(names) == 1 and not _is_camera(next(iter(names)))
    for path in sorted(found, key=lambda path: (natural_key(found[path].episode), natural_key(path))):
        place = found[path]
        cameras = division.episodes.setdefault(place.episode, {})
        cameras[ONLY_CAMERA if only else place.camera] = path
    return division


def _is_likely(places: Sequence[Place], text: str) -> bool:
    """Whether several cameras are ones: by their words, or as each is there in each of two episodes."""
    cameras = {place.camera for place in places}
    if len(cameras) == 1 or text.startswith("{episode}/") or all(map(_is_camera, cameras)):
        return True
    episodes = {place.episode for place in places}
    return len(episodes) > 1 and len(places) == len(cameras) * len(episodes)


def _stem(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    return f"{folder}{slash}{stem}" if dot and stem and suffix.isalnum() and not suffix.isdigit() else path


def _words(name: str) -> set[str]:
    return {word for word in _LETTERS.findall(name.lower()) if len(word) > 1}


def _is_camera(name: str) -> bool:
    """Whether a word of the name is one for cameras."""
    return bool(_words(name) & _CAMERA_WORDS)


def is_numbered_camera(text: str) -> bool:
    """Whether a number behind this text would be a camera's: ``cam_``, ``view``."""
    words = _words(text)
    return bool(words) and words <= _NUMBERED_WORDS


def _is_only_camera(name: str) -> bool:
    """Whether every word of the name is."""
    words = _words(name)
    return bool(words & _CAMERA_WORDS) and words <= _CAMERA_WORDS | _PLAIN_WORDS


def _folders(folders: Sequence[str], *, keep: bool) -> tuple[list[str], list[str]]:
    """Folders above what says the episode: those that belong to its name, and those that name the camera."""
    above = [name for name in folders if keep or not _STRUCTURE.match(name)]
    cameras = [name for name in above if _is_camera(name) and not _NO_WORD.match(name)]
    return [name for name in above if name not in cameras], cameras


def _below(parts: Sequence[str], *, keep: bool) -> str:
    """The camera that stands below an episode's folder."""
    named = [name for name in parts if keep or not _STRUCTURE.match(name)]
    while len(named) > 1 and not keep and _words(named[-1]) <= _PLAIN_WORDS:
        named = named[:-1]
    return "/".join(named)


def _by_word(parts: Sequence[str], keep: bool) -> Place | None:  # noqa: FBT001 - as all rules
    """A word for episodes with its number, in a folder or in the name."""
    for token in _TOKENS:
        for at in reversed(range(len(parts))):
            match = token.search(parts[at])
            if match is None:
                continue
            rest = (parts[at][: match.start()] + parts[at][match.end() :]).strip(_SEPARATORS)
            if at == len(parts) - 1:
                key, cameras = _folders(parts[:at], keep=keep)
                return Place("/".join((*key, match[0])), "/".join((*cameras, rest) if rest else cameras))
            key = [name for name in parts[:at] if keep or not _STRUCTURE.match(name)]
            below = _below(parts[at + 1 :], keep=keep)
            return Place("/".join((*key, match[0])), f"{rest}/{below}" if _is_camera(rest) else below)
    return None


def _by_numbered_folder(parts: Sequence[str], keep: bool) -> Place | None:  # noqa: FBT001
    """A folder without a word: ``003/front``."""
    for at in reversed(range(len(parts) - 1)):
        if _NO_WORD.match(parts[at]) and not _NO_WORD.match(parts[-1]):
            key = [name for name in parts[:at] if keep or not _STRUCTURE.match(name)]
            return Place("/".join((*key, parts[at])), _below(parts[at + 1 :], keep=keep))
    return None


def _by_numbered_file(parts: Sequence[str], keep: bool) -> Place | None:  # noqa: FBT001
    """A name without a word: ``front/003``."""
    if not _NO_WORD.match(parts[-1]):
        return None
    key, cameras = _folders(parts[:-1], keep=keep)
    return Place("/".join((*key, parts[-1])), "/".join(cameras))


def _by_number_behind(parts: Sequence[str], keep: bool) -> Place | None:  # noqa: FBT001
    """``front_003``; of ``cam_1`` the number is the camera's."""
    match = _AT_END.match(parts[-1])
    name = match[1].strip(_SEPARATORS) if match else ""
    if match is None or not name or (is_numbered_camera(name) and len(match[2]) < _LONG_NUMBER):
        return None
    key, cameras = _folders(parts[:-1], keep=keep)
    said = () if _words(name) <= _PLAIN_WORDS and not _is_camera(name) else (name,)
    return Place("/".join((*key, match[2])), "/".join((*cameras, *said)))


def _by_number_before(parts: Sequence[str], keep: bool) -> Place | None:  # noqa: FBT001
    """``003_front``."""
    match = _AT_START.match(parts[-1])
    if match is None:
        return None
    key, cameras = _folders(parts[:-1], keep=keep)
    return Place("/".join((*key, match[1])), "/".join((*cameras, match[2])))


def _by_camera_name(parts: Sequence[str], keep: bool) -> Place | None:  # noqa: FBT001, ARG001
    """Cameras side by side, each called as one; their folder is the episode."""
    return Place("/".join(parts[:-1]) or ".", parts[-1]) if _is_only_camera(parts[-1]) else None


def _by_camera_folder(parts: Sequence[str], keep: bool) -> Place | None:  # noqa: FBT001
    """Folders called as cameras, with files of the same names in each."""
    key, cameras = _folders(parts[:-1], keep=keep)
    return Place("/".join((*key, parts[-1])), "/".join(cameras)) if cameras else None


_Rule = Callable[[Sequence[str], bool], Place | None]
_RULES: Final[tuple[tuple[str, str, _Rule], ...]] = (
    ("a word for episodes with its number", "{episode}_{camera}", _by_word),
    ("a folder with a number for each episode, cameras in it", "{episode}/{camera}", _by_numbered_folder),
    ("files with a number for each episode, in folders of cameras", "{camera}/{episode}", _by_numbered_file),
    ("a number at the end of each name", "{camera}_{episode}", _by_number_behind),
    ("a number at the beginning of each name", "{episode}_{camera}", _by_number_before),
    ("files that are called as cameras", "{episode}/{camera}", _by_camera_name),
    ("folders that are called as cameras", "{camera}/{episode}", _by_camera_folder),
)
