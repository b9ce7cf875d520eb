"""`emboflow verify`: every invariant that a reader relies on, checked against what is really stored."""

from collections.abc import Callable

from emboflow_dagster.project.gc.leftovers import leftovers
from emboflow_dagster.project.opened import Opened
from emboflow_dagster.project.verify import documents, payloads, runs, uploads
from emboflow_dagster.project.verify.report import Finding, VerifyReport, View

__all__ = ["Finding", "VerifyReport", "verify"]


def verify(
    opened: Opened, *, everything: bool = False, tick: Callable[[int, int], None] | None = None
) -> VerifyReport:
    """Check the handle's workspace, or every workspace.

    Args:
        opened: The deployment, at the scope to check.
        everything: All workspaces of the database.
        tick: Called with payloads and bytes read so far.
    """
    view, report = View(opened, everything=everything), VerifyReport()
    documents.check_database(view, report)
    documents.check_documents(view, report)
    documents.check_references(view, report)
    documents.check_numbers(view, report)
    payloads.check_versions(view, report)
    payloads.check_owners(view, report)
    uploads.check_uploads(view, report)
    uploads.check_notes(view, report)
    runs.check_runs(view, report)
    runs.check_audit(view, report)
    payloads.check_payloads(view, report, tick)
    if everything:
        report.counts.update(leftovers(opened))
    return report
