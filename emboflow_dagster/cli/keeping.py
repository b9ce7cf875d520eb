"""`emboflow blob withdraw`, `reinstate`, `retain` and `why-kept`: what is let go, and what keeps the rest."""

from typing import TYPE_CHECKING, Annotated

import typer

from emboflow_dagster.cli import figures, output
from emboflow_dagster.cli.deployment import opened
from emboflow_dagster.cli.state import verb

if TYPE_CHECKING:
    from emboflow_dagster.project.gc.keeping import Retention

Id = Annotated[str, typer.Argument(metavar="BLOB", help="Object id of a blob.")]
OneOrAll = Annotated[
    int | None, typer.Option("--version", min=0, metavar="N", help="Only this version; else all of them.")
]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the audit log.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the noun."""
    verb(app, "withdraw", example="emboflow blob withdraw policy --version 0 --reason 'no consent'")(withdraw)
    verb(app, "reinstate", example="emboflow blob reinstate policy --reason 'a mistake'")(reinstate)
    verb(app, "retain", example="emboflow blob retain policy --keep-last 10 --keep-days 30")(retain)
    verb(app, "why-kept", example="emboflow blob why-kept policy --version 0")(why_kept)


def withdraw(object_id: Id, reason: Reason, version: OneOrAll = None) -> None:
    """Let a version go, or all of them: readable until the grace is over, then collected by `emboflow gc`."""
    with opened() as ef:
        done = ef.blobs.withdraw(object_id, version, reason=reason)
    what = f"version {version}" if version is not None else figures.counted(done.versions, "version")
    after = figures.moment(done.collected_after)
    text = f"{object_id}: {what} let go; `emboflow gc` collects the bytes after {after}"
    if not done.versions:
        text = f"{object_id}: nothing to do, it was let go before"
    output.emit(done.to_json(), lambda: output.lines([text]))


def reinstate(object_id: Id, reason: Reason, version: OneOrAll = None) -> None:
    """Take back what was withdrawn and is not collected yet."""
    with opened() as ef:
        numbers = ef.blobs.reinstate(object_id, version, reason=reason)
    value = {"objectId": object_id, "versions": numbers}
    what = figures.counted(len(numbers), "version")
    text = f"{object_id}: {what} taken back" if numbers else f"{object_id}: nothing to take back"
    output.emit(value, lambda: output.lines([text]))


def retain(
    object_id: Id,
    keep_last: Annotated[
        int | None, typer.Option("--keep-last", min=1, metavar="N", help="The last N versions stay.")
    ] = None,
    keep_days: Annotated[
        int | None, typer.Option("--keep-days", min=1, metavar="D", help="Versions of the last D days stay.")
    ] = None,
    hold: Annotated[
        bool | None, typer.Option("--hold/--no-hold", help="Legal hold: everything stays until it is lifted.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--everything", help="No rule any more: every version stays.")
    ] = False,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="Why; kept in the audit log.")
    ] = None,
) -> None:
    """Say which versions stay; without options, show it. The newest, and what is needed, always stay."""
    asked = (keep_last, keep_days, hold)
    with opened() as ef:
        if asked == (None, None, None) and not everything:
            found = ef.blobs.retention(object_id)
        else:
            found = ef.blobs.retain(
                object_id, keep_last=keep_last, keep_days=keep_days, hold=hold, reason=reason
            )
            if everything and hold is not None:
                found = ef.blobs.retain(object_id, reason=reason)
    output.emit(found.to_json(), lambda: _page(found))


def _page(found: "Retention") -> None:
    rule = [
        f"the last {found.keep_last}" if found.keep_last else "",
        f"{found.keep_days} days" if found.keep_days else "",
    ]
    output.pairs(
        [
            ("blob", output.styled(found.object_id, "bold")),
            ("kept", " and ".join(filter(None, rule)) or "every version"),
            ("legal hold", "yes" if found.hold else "no"),
            ("reason", found.reason),
        ]
    )


def why_kept(
    object_id: Id,
    version: Annotated[
        int | None, typer.Option("--version", min=0, metavar="N", help="Version number; else the newest.")
    ] = None,
) -> None:
    """Name everything that keeps a version: records, runs, caches, datasets, holds, rules, the grace."""
    with opened() as ef:
        blob = ef.blobs.get(object_id, version)
        edges = ef.blobs.why_kept(object_id, blob.version)
    value = {
        "objectId": object_id,
        "version": blob.version,
        "kept": bool(edges),
        "edges": [edge.to_json() for edge in edges],
    }
    output.emit(
        value,
        lambda: output.listing(
            ("BECAUSE", "WHAT", "COLLECTION?", "ID?"),
            [(edge.kind.value, edge.text, edge.collection, edge.id) for edge in edges],
            empty=f"nothing keeps {object_id} version {blob.version}: the next `emboflow gc` collects it",
        ),
    )
