"""`emboflow verify`: every invariant that a reader relies on, checked against what is really stored."""

from collections.abc import Callable
from contextlib import suppress

from emboflow_dagster.errors import EmboflowError
from emboflow_dagster.project.gc.leftovers import leftovers
from emboflow_dagster.project.opened import Opened
from emboflow_dagster.project.verify import documents, members, payloads, runs, uploads, versions
from emboflow_dagster.project.verify.progress import UNLIMITED, Budget, Position, Progress
from emboflow_dagster.project.verify.report import Finding, VerifyReport, View

__all__ = ["Budget", "Finding", "VerifyReport", "scrub", "verify"]
_EVERYTHING = "all"


def verify(
    opened: Opened,
    *,
    everything: bool = False,
    resume: bool = False,
    budget: Budget = UNLIMITED,
    quarantine: bool = True,
    workers: int | None = None,
    tick: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Check the handle's workspace, or every workspace.

    Args:
        opened: The deployment, at the scope to check.
        everything: All workspaces of the database.
        resume: Go on with the payloads where an interrupted verification stopped.
        budget: How much of the payloads to read; documents are always checked whole.
        quarantine: Set aside what is damaged.
        workers: Threads that read payloads; one a core by default.
        tick: Called with payloads and bytes read so far.

    Raises:
        InvalidInputError: The budget is none.
    """
    budget.check()
    view, report = View(opened, everything=everything), VerifyReport()
    documents.check_database(view, report)
    documents.check_documents(view, report)
    documents.check_references(view, report)
    documents.check_numbers(view, report)
    members.check_members(view, report)
    members.check_reports(view, report)
    versions.check_versions(view, report)
    versions.check_owners(view, report)
    uploads.check_uploads(view, report)
    uploads.check_notes(view, report)
    runs.check_runs(view, report)
    runs.check_audit(view, report)
    space = _EVERYTHING if everything else opened.scope.workspace_id
    progress = Progress(opened.mongo, f"{space}.verify", space)
    known = len(report.problems)
    start = progress.resume(report) if resume else Position()
    report.complete = payloads.check_payloads(
        view,
        report,
        progress,
        start=start,
        known=known,
        budget=budget,
        quarantine=quarantine,
        workers=workers,
        tick=tick,
    )
    if report.complete:
        progress.erase()
    if everything:
        with suppress(EmboflowError, LookupError, TypeError, ValueError, AttributeError):
            report.counts.update(
                leftovers(opened)
            )  # documents that are damaged were reported: no number then
    return report


def scrub(
    opened: Opened,
    *,
    budget: Budget = UNLIMITED,
    quarantine: bool = True,
    workers: int | None = None,
    tick: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Read a slice of the workspace's payloads, behind the slice that was read last; then begin anew.

    Returns:
        What was found in this slice; ``complete`` when it came to the end of the payloads.

    Raises:
        InvalidInputError: The budget is none.
    """
    budget.check()
    view, report = View(opened, everything=False), VerifyReport(sound=set())
    space = opened.scope.workspace_id
    progress = Progress(opened.mongo, f"{space}.scrub", space)
    start = progress.resume(VerifyReport())  # what earlier slices found was told then, and is in quarantine
    report.complete = payloads.check_payloads(
        view, report, progress, start=start, budget=budget, quarantine=quarantine, workers=workers, tick=tick
    )
    if report.complete:
        progress.save(Position(), report, 0, done=True)
    return report
