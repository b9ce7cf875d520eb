"""A task's log as Dagster shows it: the first lines as events, what is printed in stdout and stderr, a link.

Dagster's event log is a database that a child must not fill, and its compute logs are read whole by the page:
both get so much and then the command that shows the rest.
"""

import shlex
import sys
from collections.abc import Callable
from typing import Any, Final

import dagster as dg

from emboflow_dagster.errors import EmboflowError
from emboflow_dagster.model.run import RunTask, WorkflowRun
from emboflow_dagster.orchestration import orphans, page
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.runtime.log_records import parse

#: Lines of `ctx.log` that become events of a step: each is a write to a database that the child waits for.
EVENTS: Final = 50
#: Bytes of each of stdout and stderr that a step prints.
PRINTED_BYTES: Final = 1 << 20


def command(run_id: str, node_id: str, attempt: int | None = None) -> str:
    """What shows a task's log on the command line."""
    which = f" --attempt {attempt}" if attempt else ""
    return f"emboflow task logs {shlex.quote(f'{run_id}:{node_id}')}{which}"


class StepLog:
    """Takes the log of one task for the step that executes it.

    Args:
        context: The step's.
        run: The task's run.
        node_id: Its node.
    """

    def __init__(self, context: dg.OpExecutionContext, run: WorkflowRun, node_id: str) -> None:
        self._info: Callable[[str], None] = context.log.info
        self._command = command(run.id, node_id)
        self._seen = {"lines": 0, "errors": 0}
        # In the process of a command its terminal would be written to.
        prints = orphans.PROCESS_TAG not in context.run.tags
        self._left = {"stdout": PRINTED_BYTES, "stderr": PRINTED_BYTES} if prints else {}

    def line(self, line: str) -> None:
        """One line of the task's log, as an event while there are few."""
        # However much came before, how it ended is shown.
        name = "errors" if line.startswith(("error[", "error: ")) else "lines"
        self._seen[name] += 1
        if self._seen[name] <= EVENTS:
            self._info(line)
        elif self._seen[name] == EVENTS + 1:
            self._info(f"more {name} came; all are shown by: {self._command} --follow")

    def printed(self, stream: str, records: bytes) -> None:
        """Records of the task's output; they go where this process prints."""
        left = self._left.get(stream, 0)
        if left <= 0:
            return
        rows = map(parse, records.split(b"\n")[:-1])
        text = b"".join(row.data + (b"\n" if row.ends else b"") for row in rows)
        shown = text[:left]
        self._left[stream] = left - len(shown)
        if self._left[stream] <= 0:
            shown += f"\n... all of it is shown by: {self._command} --{stream}\n".encode()
        target = sys.stdout if stream == "stdout" else sys.stderr
        try:
            target.write(shown.decode("utf-8", "replace"))
            target.flush()
        except (OSError, ValueError):
            self._left[stream] = 0  # nobody listens


def link(task: RunTask) -> dict[str, Any]:
    """Where a task's log is, as metadata: the command that shows it, and its bytes when they are stored."""
    result: dict[str, Any] = {"log_command": command(task.workflow_run_id, task.node_id, task.attempt)}
    if task.log_ref is not None:
        stored = page.storage_metadata(task.log_ref)
        result["log_ref"] = stored.pop("uri")
        result["log"] = dg.MetadataValue.json(stored)
    return result


def link_of(ef: EmboFlow, run_id: str, node_id: str) -> dict[str, Any]:
    """The same for a task that failed; empty when nobody knows."""
    try:
        return link(ef.tasks.get(run_id, node_id))
    except EmboflowError:
        return {}
