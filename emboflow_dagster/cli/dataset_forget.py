"""`emboflow dataset forget` and `forgotten`: an episode leaves every version, and its bytes are destroyed."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from emboflow_dagster.cli import agreed, figures, output, progress
from emboflow_dagster.cli.dataset_edit import Base, Episodes, Name, named
from emboflow_dagster.cli.deployment import full_id, opened
from emboflow_dagster.cli.state import verb

_WHAT: Final = "destroys the bytes of the episodes everywhere"


def register(app: typer.Typer) -> None:
    """Add the verbs to the noun."""
    verb(app, "forget", example="emboflow dataset forget pick-place 3 --reason 'no consent' --dry-run")(
        forget
    )
    verb(app, "forgotten", example="emboflow dataset forgotten fgt_1a2b")(forgotten)
    verb(app, "reinstate", example="emboflow dataset reinstate fgt_1a2b --reason 'consent was given'")(
        reinstate
    )


def forget(
    dataset: Name,
    episodes: Episodes,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the tombstone and the audit log.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; show all that contains them.")
    ] = False,
    with_source: Annotated[
        bool,
        typer.Option("--with-source", help="Destroy the recording too, if nothing else comes from it."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; needed where nobody can be asked.")] = False,
    base: Base = None,
) -> None:
    """Forget episodes everywhere: versions, artifacts, annotations, cached results; at once, for ever.

    On a terminal the plan is shown and the dataset's name asked for. The versions that have the episodes are
    withdrawn and followed by ones without them. What was destroyed is told by `emboflow dataset forgotten`.
    Interrupted, say it again.
    """
    if not (yes or dry_run):
        agreed.require_person(_WHAT)
    with opened() as ef:
        name = full_id(ef.datasets.documents, dataset)
        names = {one.id: one.name for one in ef.datasets.documents.find({}, limit=0)}
        asked = {"episodes": named(episodes), "reason": reason, "with_source": with_source}
        if not (yes or dry_run):
            # What was looked at is what is forgotten: another version may come while the plan is read.
            base = ef.datasets.version(name, base).id
            with progress.waiting("looking"):
                plan = ef.datasets.forget(name, base=base, dry_run=True, **asked)
            word = ef.datasets.get(name).name
            agreed.ask(word, _WHAT, lambda: _page(plan, names, dry_run=True))
        with progress.waiting("looking" if dry_run else "forgetting"):
            told = ef.datasets.forget(name, base=base, dry_run=dry_run, **asked)
    output.emit(told, lambda: _page(told, names, dry_run=dry_run))


def forgotten(
    tombstone: Annotated[
        str | None,
        typer.Argument(
            metavar="[TOMBSTONE]",
            help="Id of one, or a file that has one as --json printed it: shown whole, and proved.",
        ),
    ] = None,
) -> None:
    """What was forgotten in the project, oldest first: the tombstones.

    With an id, what one claims is held against the audit log, the versions and the store; with a file, its
    hash against what it says, without a database. Exit 1 where something does not hold.
    """
    if tombstone is None:
        with opened() as ef:
            rows = ef.datasets.forgotten()
        output.emit(rows, lambda: _list(rows))
        return
    names: dict[str, str] = {}
    if Path(tombstone).is_file():
        from emboflow_dagster.project.forget.proving import read

        told = read(Path(tombstone))
    else:
        with opened() as ef:
            told = ef.datasets.tombstone(tombstone)
            names = {one.id: one.name for one in ef.datasets.documents.find({}, limit=0)}
    output.emit(told, lambda: _proved(told, names))
    if not all(row["ok"] for row in told["proof"]):
        raise typer.Exit(1)


def reinstate(
    tombstone: Annotated[str, typer.Argument(metavar="TOMBSTONE", help="Id of a tombstone.")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the audit log.")],
) -> None:
    """Let episodes that were forgotten be made and recorded again; nothing comes back by itself."""
    with opened() as ef:
        told = ef.datasets.reinstate(tombstone, reason=reason)
    output.emit(told, lambda: _list([told]))


def _list(rows: list[dict[str, Any]]) -> None:
    columns = ("ID", "STATUS", "WHEN", "WHY", "WHO?", "EPISODES?", ">BYTES?")
    listed = [
        (
            row["id"],
            "reinstated" if "reinstated" in row else row["state"],
            figures.age(datetime.fromisoformat(row["createdAt"])),
            row["reason"],
            row["by"],
            ", ".join(episode["id"] for episode in row["episodes"]),
            figures.size(row.get("destroyed", {}).get("bytes")),
        )
        for row in rows
    ]
    output.listing(columns, listed, empty="nothing was forgotten in this project")


def _proved(told: dict[str, Any], names: dict[str, str]) -> None:
    _page(told, names, dry_run=False)
    output.table(
        ("PROOF", "HOLDS", "FOUND"),
        [
            (row["what"], output.styled(*(("yes", "green") if row["ok"] else ("no", "red"))), row["found"])
            for row in told["proof"]
        ],
    )


def _page(told: dict[str, Any], names: dict[str, str], *, dry_run: bool) -> None:
    output.table(("WHAT", "ID", "WHICH", "BECOMES"), list(_rows(told, names)))
    payloads = [row for row in told["payloads"] if not row.get("keptBy")]
    kept = len(told["payloads"]) - len(payloads)
    size = figures.size(sum(row["size"] for row in payloads))
    output.pairs(
        [
            ("episodes", ", ".join(episode["id"] for episode in told["episodes"])),
            ("at most destroyed" if dry_run else "destroyed", f"{len(payloads)} payloads, {size}"),
            ("kept", f"{kept} payloads that something else names" if kept else None),
            ("reason", told["reason"]),
            ("by", told["by"]),
            ("destroyed at", told.get("destroyedAt")),
            ("reinstated", _reinstated(told)),
            ("tombstone", told.get("id")),
            ("sha256 of it", told.get("digest")),
        ]
    )
    if told.get("kept"):
        output.table(("STAYS", "WHY"), [(row["what"], row["why"]) for row in told["kept"]])


def _reinstated(told: dict[str, Any]) -> str | None:
    by = told.get("reinstated")
    return f"{by['at']} by {by['by']}: {by['reason']}" if by else None


def _rows(told: dict[str, Any], names: dict[str, str]) -> list[tuple[str, str, str, str]]:
    rows: list[tuple[str, str, str, str]] = []
    heads = {(row["datasetId"], row["of"]): row["episodes"] for row in told.get("successors", [])}
    for row in told["versions"]:
        which = f"{names.get(row['datasetId'], row['datasetId'])} {row['versionTag']}"
        left = heads.get((row["datasetId"], row["versionTag"]))
        after = f"withdrawn; a successor with {left} episodes" if left else "withdrawn"
        rows.append(("version", row["id"], which, after))
    rows += [("artifact", row["id"], row["type"], "destroyed") for row in told["artifacts"]]
    rows += [("annotation", row["id"], row["targetId"], "rejected, emptied") for row in told["annotations"]]
    rows += [
        ("task", row["id"], row.get("nodeId", ""), "preview and logs emptied")
        for row in told.get("tasks", ())
    ]
    # A key is project, "sha256" and the digest: its beginning tells it from others.
    rows += [("cached result", key.rpartition(":")[2][:12], "", "not used again") for key in told["cache"]]
    for row in told["sources"]:
        gone = told["asked"]["withSource"]
        why = "" if row["alone"] else ": other episodes come from it"
        why = ": registered in place" if row["inPlace"] else why
        rows.append(("recording", row["id"], row["name"], "destroyed" if gone else f"stays{why}"))
    return rows
