"""What differs between two versions of a dataset, episode by episode.

Pages that both trees have are not read: the work is that of the difference, not that of the dataset. Episodes
are the same one when they have the same id, else the same data, else the same source (recording and place in
it); copies are paired in their order.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any, Final

from emboflow_dagster.blobs import pages
from emboflow_dagster.blobs.pages import Page
from emboflow_dagster.model.dataset import Dataset, DatasetVersion
from emboflow_dagster.project.dataset_content import Content, opened_content
from emboflow_dagster.project.opened import Opened

#: Fields of an episode that are compared, as the result names them.
LABELS: Final = ("tasks", "success", "flags", "source")
_ABOUT: Final = ("id", "length", *LABELS)
_KNOWN_BY: Final[tuple[Callable[[Mapping[str, Any]], Hashable], ...]] = (
    lambda entry: entry["id"],
    lambda entry: entry["content"],
    lambda entry: tuple(entry["source"].values()) if any(entry["source"].values()) else None,
)


def diff(
    opened: Opened, a: tuple[Dataset, DatasetVersion], b: tuple[Dataset, DatasetVersion]
) -> dict[str, Any]:
    """From one version to another.

    Returns:
        ``from`` and ``to`` (which versions, with their numbers), ``same`` (nothing of this differs),
        ``counts`` (``added``, ``removed``, ``changed``, ``unchanged`` episodes), ``reordered``, the lists
        ``added`` and ``removed`` (place, id, length, labels), ``changed`` (places on both sides, fields and
        their values, ``data`` with the statistics that moved), ``labels`` (how many episodes more or fewer
        have each task, flag and success), ``features`` (``added``, ``removed``, ``changed``), ``stats`` (a
        row a feature and dimension whose mean, std, min or max moved; ``shift`` is the way of the mean in
        standard deviations of ``from``) and ``payloads`` (bytes that only ``from``, only ``to``, or both
        refer to).

    Raises:
        IntegrityError: A page is missing or damaged.
    """
    with ExitStack() as stack:
        before = stack.enter_context(opened_content(opened, a[1]))
        after = stack.enter_context(opened_content(opened, b[1]))
        return _compared(before, after, _said(*a), _said(*b))


def _compared(before: Content, after: Content, a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    common = _common_pages(before, after)
    old, new = _Side(before, common), _Side(after, common)
    gone, came, order = _without_equal(old, new)
    pairs, removed, added = _pairs(gone, came)
    names = {name: spec.get("names") or [] for name, spec in after.manifest["features"].items()}
    changed = [row for row in (_change(x, y, names) for x, y in pairs) if row is not None]
    features = _features(before.manifest["features"], after.manifest["features"])
    stats = _moved(before.manifest.get("stats") or {}, after.manifest.get("stats") or {}, names)
    counts = {
        "added": len(added),
        "removed": len(removed),
        "changed": len(changed),
        "unchanged": after.root.episodes - len(added) - len(changed),
    }
    different = any(counts[name] for name in ("added", "removed", "changed"))
    about = {
        name: {"from": before.manifest.get(name), "to": after.manifest.get(name)}
        for name in ("fps", "robotType")
        if before.manifest.get(name) != after.manifest.get(name)
    }
    return {
        "from": a,
        "to": b,
        "same": not (different or order or about or any(features.values())),
        "counts": counts,
        "reordered": order,
        "manifest": about,
        "added": [_row(place, entry) for place, entry in added],
        "removed": [_row(place, entry) for place, entry in removed],
        "changed": changed,
        "labels": _labels(gone, came),
        "features": features,
        "stats": stats,
        "payloads": _payloads(before, after, common, old, new),
    }


Found = tuple[int, dict[str, Any]]


class _Side:
    """The episodes of a version that stand in pages which the other one does not have."""

    def __init__(self, content: Content, common: frozenset[str]) -> None:
        self.found: list[tuple[int, bytes, dict[str, Any]]] = []
        self.tokens: list[bytes] = []
        """Pages and lines in their order, for who asks whether it is another one."""
        for start, page in pages.episode_pages(content.read, content.root):
            if page.sha256 in common:
                self.tokens.append(page.sha256.encode())
                continue
            for place, line in enumerate(pages.lines(page, content.read(page.sha256, page.size)), start):
                self.tokens.append(line)
                self.found.append((place, line, pages.parsed(line)))


def _common_pages(before: Content, after: Content) -> frozenset[str]:
    """Pages of level 0 that both have equally often."""
    old = Counter(page.sha256 for page in _leaves(before))
    new = Counter(page.sha256 for page in _leaves(after))
    return frozenset(name for name, count in old.items() if new[name] == count)


def _leaves(content: Content) -> Iterable[Page]:
    return (page for _, page in pages.episode_pages(content.read, content.root))


def _without_equal(old: _Side, new: _Side) -> tuple[list[Found], list[Found], bool]:
    """What is left when equal lines are taken away, and whether those are in another order."""
    left, right = Counter(old.tokens), Counter(new.tokens)
    both = left & right
    gone = _left_over(old, both)
    came = _left_over(new, both)
    same = [token for token in old.tokens if left[token] == right[token]]
    there = [token for token in new.tokens if left[token] == right[token]]
    return gone, came, same != there


def _left_over(side: _Side, both: Counter[bytes]) -> list[Found]:
    equal, rest = Counter(both), []
    for place, line, entry in side.found:
        if equal[line]:
            equal[line] -= 1
        else:
            rest.append((place, entry))
    return rest


def _pairs(
    gone: list[Found], came: list[Found]
) -> tuple[list[tuple[Found, Found]], list[Found], list[Found]]:
    pairs: list[tuple[Found, Found]] = []
    for key in _KNOWN_BY:
        waiting: dict[Hashable, list[Found]] = defaultdict(list)
        for one in gone:
            if (name := key(one[1])) is not None:
                waiting[name].append(one)
        met: set[int] = set()
        rest: list[Found] = []
        for one in came:
            candidates = waiting.get(key(one[1])) if key(one[1]) is not None else None
            if candidates:
                partner = candidates.pop(0)
                met.add(partner[0])
                pairs.append((partner, one))
            else:
                rest.append(one)
        gone, came = [one for one in gone if one[0] not in met], rest
    return sorted(pairs, key=lambda pair: pair[1][0]), gone, came


def _change(old: Found, new: Found, names: Mapping[str, list[str]]) -> dict[str, Any] | None:
    (was, before), (now, after) = old, new
    fields = {
        name: {"from": before[name], "to": after[name]}
        for name in ("length", *LABELS)
        if before[name] != after[name]
    }
    data = before["content"] != after["content"]
    if not fields and not data:
        return None  # written otherwise, or under another id
    row = {"id": after["id"], "from": was, "to": now, "fields": fields, "data": data, "stats": []}
    if data:
        row["stats"] = _moved(before["stats"], after["stats"], names)
    return row


def _row(place: int, entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"episode": place, **{name: entry[name] for name in _ABOUT}}


def _labels(gone: list[Found], came: list[Found]) -> dict[str, Any]:
    """How many episodes more or fewer have each task and each success."""
    moved: dict[str, Counter[str]] = {"tasks": Counter(), "success": Counter(), "flags": Counter()}
    for sign, side in ((-1, gone), (1, came)):
        for _, entry in side:
            for name in ("tasks", "flags"):
                for label in entry[name]:
                    moved[name][label] += sign
            moved["success"][{True: "yes", False: "no"}.get(entry["success"], "unknown")] += sign
    return {name: {label: n for label, n in sorted(found.items()) if n} for name, found in moved.items()}


def _features(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "added": sorted(set(new) - set(old)),
        "removed": sorted(set(old) - set(new)),
        "changed": sorted(name for name in set(old) & set(new) if old[name] != new[name]),
    }


def _moved(
    old: Mapping[str, Any], new: Mapping[str, Any], names: Mapping[str, list[str]]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for feature in sorted(set(old) & set(new)):
        before, after = old[feature], new[feature]
        if len(before["mean"]) != len(after["mean"]):
            continue  # the features say so
        for dim in range(len(before["mean"])):
            told = {
                name: {"from": before[name][dim], "to": after[name][dim]}
                for name in ("mean", "std", "min", "max")
            }
            if all(_near(value["from"], value["to"]) for value in told.values()):
                continue
            label = names[feature][dim] if dim < len(names.get(feature, ())) else str(dim)
            shift = _shift(told["mean"], before["std"][dim])
            rows.append({"feature": feature, "dimension": label, "shift": shift, **told})
    return sorted(rows, key=lambda row: -abs(row["shift"] or 0))


def _shift(mean: Mapping[str, Any], std: float | None) -> float | None:
    if mean["from"] is None or mean["to"] is None or not std:
        return None
    return (mean["to"] - mean["from"]) / std


def _near(a: float | None, b: float | None) -> bool:
    """Sums of the same numbers in another order are no change."""
    if a is None or b is None:
        return a is b
    return abs(a - b) <= 1e-9 * max(1.0, abs(a), abs(b))


def _payloads(
    before: Content, after: Content, common: frozenset[str], old: _Side, new: _Side
) -> dict[str, int]:
    """Bytes that one side refers to and the other does not; what is in common pages is shared."""
    left, right = _refs(before, common, old), _refs(after, common, new)
    total = after.root.bytes + sum(size for size in _pages_of(after).values())
    fresh = sum(size for sha256, size in right.items() if sha256 not in left)
    return {
        "onlyFrom": sum(size for sha256, size in left.items() if sha256 not in right),
        "onlyTo": fresh,
        "both": max(0, total - fresh),
    }


def _refs(content: Content, common: frozenset[str], side: _Side) -> dict[str, int]:
    found = {sha256: size for sha256, size in _pages_of(content).items() if sha256 not in common}
    for _, _, entry in side.found:
        found |= {file["sha256"]: file["size"] for _, file in pages.files_of(entry)}
    return found


def _pages_of(content: Content) -> dict[str, int]:
    return {page.sha256: page.size for page in pages.every_page(content.read, content.root)}


def _said(dataset: Dataset, version: DatasetVersion) -> dict[str, Any]:
    return {
        "dataset": dataset.name,
        "versionId": version.id,
        "versionTag": version.version_tag,
        "sha256": version.manifest_ref.sha256,
        "episodes": version.stats.get("episodes"),
        "frames": version.stats.get("frames"),
    }
