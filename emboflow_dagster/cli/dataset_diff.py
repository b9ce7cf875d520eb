"""`emboflow dataset diff` and `verify`: what differs between two versions, and whether a folder is one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from emboflow_dagster.cli import figures, output, progress
from emboflow_dagster.cli.deployment import full_id, opened
from emboflow_dagster.cli.options import Limit
from emboflow_dagster.cli.state import verb

if TYPE_CHECKING:
    from emboflow_dagster.formats.canonical.checking import FolderReport

_STATS_SHOWN: Final = 20


def register(app: typer.Typer) -> None:
    """Add the commands."""
    verb(app, "diff", example="emboflow dataset diff pick-place v3 v4")(diff)
    verb(app, "verify", example="emboflow dataset verify ./pick-place-v4")(verify)


def diff(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Name or id of a dataset.")],
    from_: Annotated[
        str | None,
        typer.Argument(
            metavar="FROM", help="Tag or id of a version, or DATASET:TAG; else the one before TO."
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Argument(metavar="TO", help="Tag or id of a version, or DATASET:TAG; else the latest version."),
    ] = None,
    from_tag: Annotated[
        str | None, typer.Option("--from", metavar="TAG", help="The same as FROM.", hidden=True)
    ] = None,
    to_tag: Annotated[
        str | None, typer.Option("--to", metavar="TAG", help="The same as TO.", hidden=True)
    ] = None,
    limit: Limit = 100,
) -> None:
    """What differs between two versions: episodes, labels, features, statistics, bytes."""
    with opened() as ef, progress.waiting("comparing"):
        name = full_id(ef.datasets.documents, dataset)
        found = ef.datasets.diff(name, from_ or from_tag, to or to_tag)
    output.emit(found, lambda: _page(found, limit))


def _page(found: dict[str, Any], limit: int) -> None:
    a, b, counts, payloads = found["from"], found["to"], found["counts"], found["payloads"]
    output.pairs(
        [
            ("from", f"{a['dataset']} {a['versionTag']}: {a['episodes']} episodes, {a['frames']} frames"),
            ("to", f"{b['dataset']} {b['versionTag']}: {b['episodes']} episodes, {b['frames']} frames"),
            ("episodes", ", ".join(f"{count} {name}" for name, count in counts.items())),
            ("order", "another one" if found["reordered"] else None),
            *((name, f"{v['from']} -> {v['to']}") for name, v in found["manifest"].items()),
            *((f"features {how}", ", ".join(names)) for how, names in found["features"].items() if names),
            *((name, _signed(moved)) for name, moved in found["labels"].items() if moved),
            ("annotations", _annotations(found["annotations"]["counts"])),
            ("bytes", f"{figures.size(payloads['onlyTo'])} new, {figures.size(payloads['both'])} shared"),
        ]
    )
    if found["same"]:
        output.lines(["", "the two versions hold the same episodes"])
        return
    rows = [*_rows(found)]
    if rows:
        output.table(("CHANGE", ">FROM", ">TO", "WHAT", "SOURCE?", "ID?"), rows[:limit], title="Episodes")
    if len(rows) > limit:
        output.note(f"{limit} of {len(rows)} episodes are shown; --limit shows more, --json all")
    stats = [
        (
            row["feature"],
            row["dimension"],
            row["mean"]["from"],
            row["mean"]["to"],
            None if row["shift"] is None else f"{row['shift']:+.3f}",
            row["std"]["from"],
            row["std"]["to"],
        )
        for row in found["stats"][:_STATS_SHOWN]
    ]
    if stats:
        columns = ("FEATURE", "DIMENSION", ">MEAN", ">NOW", ">SHIFT (STD)", ">STD?", ">NOW?")
        output.table(columns, stats, title="Statistics")
    if found["annotations"]["rows"]:
        output.note(f"what becomes of annotations: emboflow annotation carry {_versions(a, b)}")
    if len(found["stats"]) > _STATS_SHOWN:
        output.note(f"{_STATS_SHOWN} of {len(found['stats'])} dimensions are shown; --json shows all")


def _rows(found: dict[str, Any]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for name, color in (("removed", "red"), ("added", "green")):
        for row in found[name]:
            places = (row["episode"], None) if name == "removed" else (None, row["episode"])
            what = f"{row['length']} frames; {', '.join(row['tasks']) or 'no task'}"
            rows.append((output.styled(name, color), *places, what, _source(row["source"]), row["id"]))
    for row in found["changed"]:
        parts = [
            f"{field}: {_told(value['from'])} -> {_told(value['to'])}"
            for field, value in row["fields"].items()
        ]
        if row["data"]:
            most = row["stats"][0] if row["stats"] else None
            shift = most and most["shift"]
            near = f" ({most['feature']}[{most['dimension']}] {shift:+.2f} std)" if most and shift else ""
            parts.append(f"other data{near}")
        rows.append(
            (output.styled("changed", "yellow"), row["from"], row["to"], "; ".join(parts), "", row["id"])
        )
    return rows


def _annotations(counts: dict[str, int]) -> str | None:
    """What becomes of those that are valid at `from`; nothing where there are none."""
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count) or None


def _versions(a: dict[str, Any], b: dict[str, Any]) -> str:
    tags = [side["versionTag"] for side in (a, b)]
    if a["dataset"] != b["dataset"]:
        tags = [f"{side['dataset']}:{side['versionTag']}" for side in (a, b)]
    return f"{b['dataset']} {' '.join(tags)}"


def _source(source: dict[str, Any]) -> str:
    return " ".join(str(part) for part in (source.get("path"), source.get("ref")) if part)


def _told(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "none"
    if isinstance(value, dict):
        return _source(value) or "none"
    if value is None:
        return "unknown"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _signed(moved: dict[str, int]) -> str:
    return ", ".join(f"{label or 'no task'} {count:+d}" for label, count in moved.items())


def verify(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder that `emboflow dataset export` wrote.")
    ],
    expect: Annotated[
        str | None,
        typer.Option(
            "--expect",
            metavar="SHA256",
            help="Checksum of the version, known from elsewhere: its data version in Dagster.",
        ),
    ] = None,
) -> None:
    """Check an exported folder by what is in it; needs no database. Exit 1 for any problem."""
    from emboflow_dagster.formats.canonical.checking import check_folder

    with progress.waiting("reading every file"):
        report = check_folder(folder, expect=expect)
    output.emit(report.to_json(), lambda: _checked(report))
    if not report.ok:
        raise typer.Exit(1)


def _checked(report: "FolderReport") -> None:
    if report.problems:
        output.table(
            ("CODE", ">EPISODE", "PROBLEM"),
            [(output.styled(p["code"], "red"), p["episode"], p["message"]) for p in report.problems],
        )
    how = "every file and every episode" if report.by_episode else "every file"
    found = "it is what it says" if report.ok else f"{len(report.problems)} problems"
    output.pairs(
        [
            ("dataset", report.dataset_id),
            ("version", report.version_tag),
            ("checksum", f"sha256:{report.version_sha256}"),
            ("looked at", f"{how}: {report.episodes} episodes, {report.frames} frames, {report.files} files"),
            ("found", output.styled(found, "bold")),
        ]
    )
