"""The conditions of the `filter` node, over what is known about an asset.

``where`` maps paths to conditions; all must hold. ``any``, ``all`` (lists) and ``not`` combine. A path is
dotted (``summary.hasActions``) or nested mappings say the same (``{summary: {hasActions: true}}``), since a
key with a dot may not be stored. A plain value is equality, a list is ``in``, else a mapping of operators.
A field can have several values (``warnings``, ``topics.type``): a condition holds when one of them fits,
``noneOf`` and ``not`` when none does, ``allOf`` when every listed value is there.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError, Problem, shown
from emboflow_dagster.runtime.node import BoundAsset

#: Known without a probe.
ASSET_FIELDS: Final = frozenset({"id", "name", "type", "status", "sizeBytes", "fileCount"})
#: Known from the newest probe report.
REPORT_FIELDS: Final = frozenset({"format", "formats", "warnings", "summary", "topics", "recommended"})
COMBINATORS: Final = frozenset({"any", "all", "not"})
MAX_CONDITIONS: Final = 200
MAX_DEPTH: Final = 16


def _same(found: Any, wanted: Any) -> bool:
    # True is not 1 in a workflow file.
    return isinstance(found, bool) is isinstance(wanted, bool) and found == wanted


def _contains(found: Any, wanted: Any) -> bool:
    return wanted in found if isinstance(found, str) and isinstance(wanted, str) else _same(found, wanted)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def holds(found: Any, wanted: Any) -> bool:
        number = isinstance(found, int | float) and not isinstance(found, bool)
        return number and compare(found, wanted)

    return holds


#: Operator to (how one value is judged, what the operand must be).
_ONE: Final[Mapping[str, tuple[Callable[[Any, Any], bool], str]]] = {
    "equals": (_same, "value"),
    "contains": (_contains, "value"),
    "matches": (lambda found, wanted: isinstance(found, str) and fnmatchcase(found, wanted), "text"),
    "in": (lambda found, wanted: any(_same(found, item) for item in wanted), "list"),
    "gt": (_ordered(lambda a, b: a > b), "number"),
    "gte": (_ordered(lambda a, b: a >= b), "number"),
    "lt": (_ordered(lambda a, b: a < b), "number"),
    "lte": (_ordered(lambda a, b: a <= b), "number"),
}
_ALIASES: Final = {"eq": "equals", "anyOf": "in", "min": "gte", "max": "lte"}
_OPERANDS: Final = {
    **{name: needs for name, (_, needs) in _ONE.items()},
    "noneOf": "list",
    "allOf": "list",
    "exists": "bool",
    "not": "value",
}
OPERATORS: Final = frozenset({*_OPERANDS, *_ALIASES})


@dataclass(frozen=True, slots=True)
class Condition:
    """One operator on one path."""

    path: str
    operator: str
    operand: Any

    @property
    def field(self) -> str:
        """The first part of the path."""
        return self.path.partition(".")[0]

    def holds(self, values: Sequence[Any]) -> bool:
        """Whether the field's values fulfil it."""
        if self.operator == "exists":
            return bool(values) is self.operand
        if self.operator == "noneOf":
            return not any(_same(value, item) for value in values for item in self.operand)
        if self.operator == "allOf":
            return all(any(_same(value, item) for value in values) for item in self.operand)
        if self.operator == "not":
            if isinstance(self.operand, Mapping):
                return not all(c.holds(values) for c in _operators(self.path, self.operand, self.path, []))
            return not any(_same(value, self.operand) for value in values)
        judge, _ = _ONE[self.operator]
        return any(judge(value, self.operand) for value in values)

    def why_not(self, values: Sequence[Any]) -> str:
        """One line for people: what was found, what was asked."""
        offending = (
            [v for v in values if any(_same(v, i) for i in self.operand)] if self.operator == "noneOf" else []
        )
        found = ", ".join(
            shown(v, 60) if not isinstance(v, str) else v[:60] for v in (offending or values)[:8]
        )
        asked = "" if self.operator == "noneOf" else f"; asked {self.operator} {shown(self.operand, 80)}"
        return f"{self.path}: {'has' if offending else 'found'} {found or 'nothing'}{asked}"


@dataclass(frozen=True, slots=True)
class Group:
    """Conditions under ``all``, ``any`` or ``not``."""

    kind: str
    parts: tuple["Condition | Group", ...]

    def conditions(self) -> Iterator[Condition]:
        """Every condition below."""
        for part in self.parts:
            if isinstance(part, Group):
                yield from part.conditions()
            else:
                yield part

    def reasons(self, document: Mapping[str, Any]) -> list[str]:
        """Why the document does not fulfil the group; empty when it does."""
        failed: list[list[str]] = []
        for part in self.parts:
            if isinstance(part, Group):
                failed.append(part.reasons(document))
            else:
                values = values_at(document, part.path)
                failed.append([] if part.holds(values) else [part.why_not(values)])
        flat = [reason for reasons in failed for reason in reasons]
        if self.kind == "any":
            return [] if not failed or any(not reasons for reasons in failed) else flat
        if self.kind == "not":
            return [] if flat else ["not: all of its conditions hold"]
        return flat


def parse(where: Any) -> Group:
    """The conditions of a ``where``.

    Raises:
        InvalidInputError: With every unknown field or operator and every wrong operand.
    """
    problems: list[Problem] = []
    group = _group("all", where, "where", problems, 1)
    count = sum(1 for _ in group.conditions())
    if count > MAX_CONDITIONS:
        problems.append(_bad("where", f"found {count} conditions; at most {MAX_CONDITIONS} are allowed"))
    if problems:
        raise InvalidInputError.of(problems)
    return group


def spelt_out(where: Any) -> Any:
    """The same conditions without dotted keys, which may not be stored: ``{path: a.b, equals: 1}``."""
    if isinstance(where, list):
        return [spelt_out(part) for part in where]
    if not isinstance(where, Mapping) or isinstance(where.get("path"), str):
        return where
    if not any("." in str(key) for key in where):
        return {key: spelt_out(value) if key in COMBINATORS else value for key, value in where.items()}
    return [_spelt_out(str(key), value) for key, value in where.items()]


def _spelt_out(key: str, value: Any) -> dict[str, Any]:
    if "." not in key:
        return {key: spelt_out(value) if key in COMBINATORS else value}
    if isinstance(value, Mapping):
        return {"path": key, **value}
    return {"path": key, "in" if isinstance(value, list) else "equals": value}


def _bad(path: str, message: str) -> Problem:
    return Problem(ErrorKind.NODE_CONFIG, path, message)


def _group(kind: str, where: Any, at: str, problems: list[Problem], depth: int) -> Group:
    parts: list[Condition | Group] = []
    if depth > MAX_DEPTH:
        problems.append(_bad(at, f"nested deeper than {MAX_DEPTH} levels"))
    elif isinstance(where, list):
        parts += [_group("all", part, f"{at}.{i}", problems, depth + 1) for i, part in enumerate(where)]
    elif not isinstance(where, Mapping):
        problems.append(_bad(at, f"found {shown(where)}; a mapping of paths to conditions is needed"))
    elif isinstance(where.get("path"), str):
        rest = {key: value for key, value in where.items() if key != "path"}
        parts += _path(where["path"], rest or {"exists": True}, at, problems, depth)
    else:
        for key, value in where.items():
            here = f"{at}.{key}"
            if key in COMBINATORS:
                parts.append(_group(key, value, here, problems, depth + 1))
            else:
                parts += _path(str(key), value, here, problems, depth)
    return Group(kind, tuple(parts))


def _path(path: str, given: Any, at: str, problems: list[Problem], depth: int) -> list[Condition | Group]:
    field = path.partition(".")[0]
    known = ASSET_FIELDS | REPORT_FIELDS
    if field not in known:
        near = difflib.get_close_matches(field, sorted(known), 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
        problems.append(_bad(at, f"found the field {shown(field)}; {hint}"))
        return []
    if isinstance(given, Mapping) and not set(given) & OPERATORS and field in ("summary", "topics"):
        found: list[Condition | Group] = []
        for key, value in given.items():
            if depth > MAX_DEPTH:
                problems.append(_bad(at, f"nested deeper than {MAX_DEPTH} levels"))
                break
            found += _path(f"{path}.{key}", value, f"{at}.{key}", problems, depth + 1)
        return found
    return list(_operators(path, given, at, problems))


def _operators(path: str, given: Any, at: str, problems: list[Problem]) -> Iterator[Condition]:
    if isinstance(given, list):
        given = {"in": given}
    elif not isinstance(given, Mapping):
        given = {"equals": given}
    for name, operand in given.items():
        operator = _ALIASES.get(name, name)
        if operator not in _OPERANDS:
            near = difflib.get_close_matches(str(name), sorted(OPERATORS), 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(OPERATORS))}"
            problems.append(_bad(at, f"found the operator {shown(name)}; {hint}"))
            continue
        needs = _OPERANDS[operator]
        if not _fits(operand, needs):
            problems.append(_bad(f"{at}.{name}", f"found {shown(operand)}; a {needs} is needed"))
            continue
        if operator == "not" and isinstance(operand, Mapping):
            # Parsed for its problems here; judged anew where it holds.
            list(_operators(path, operand, f"{at}.not", problems))
        yield Condition(path, operator, operand)


def _fits(operand: Any, needs: str) -> bool:
    if needs == "list":
        return isinstance(operand, list) and bool(operand)
    if needs == "bool":
        return isinstance(operand, bool)
    if needs == "number":
        return isinstance(operand, int | float) and not isinstance(operand, bool)
    if needs == "text":
        return isinstance(operand, str)
    return True


def document_of(bound: BoundAsset) -> dict[str, Any]:
    """What conditions see of an asset; the fields of its report are absent when it has none."""
    asset = bound.asset
    found: dict[str, Any] = {
        "id": asset.id,
        "name": asset.display_name,
        "type": asset.type.value,
        "status": asset.status.value,
        "sizeBytes": asset.size_bytes,
        "fileCount": asset.file_count,
    }
    if bound.report is not None:
        summary = bound.report.structure_summary
        topics = summary.get("topics")
        found |= {
            "format": bound.report.format,
            "formats": [candidate.format for candidate in bound.report.detected_format_candidates],
            "warnings": sorted({warning.code for warning in bound.report.warnings}),
            "summary": summary,
            "topics": [
                {"name": name, **(facts if isinstance(facts, Mapping) else {})}
                for name, facts in topics.items()
            ]
            if isinstance(topics, Mapping)
            else [],
            "recommended": list(bound.report.recommended_next_nodes),
        }
    return found


def values_at(document: Mapping[str, Any], path: str) -> list[Any]:
    """Every value at a dotted path; lists fan out. ROS types are found under both of their spellings."""
    values = [value for value in _walk(document, path.split(".")) if value is not None]
    if path == "topics.type":
        both = [spelling for value in values for spelling in (value, str(value).replace("/msg/", "/", 1))]
        return list(dict.fromkeys(both))
    return values


def _walk(value: Any, parts: Sequence[str]) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _walk(item, parts)
    elif not parts:
        yield value
    elif isinstance(value, Mapping):
        # Names of topics and datasets hold dots themselves: the longest key that exists wins.
        for cut in range(len(parts), 0, -1):
            key = ".".join(parts[:cut])
            if key in value:
                yield from _walk(value[key], parts[cut:])
                return
