"""Runs of graphs of any shape, written without a workflow file: its bound is for what people publish."""

from collections.abc import Mapping, Sequence
from typing import Any

from emboflow_dagster.model.run import RunTask, TaskSummary, WorkflowRun
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.runtime.outputs import Outputs
from emboflow_dagster.runtime.plan import plan_run
from emboflow_dagster.runtime.record import Claimed

FIRST: dict[str, Any] = {"workflow": "graph", "nodes": [{"id": "first", "type": "source"}]}


def planned(
    ef: EmboFlow, asset_id: str, graph: Mapping[str, Sequence[str]]
) -> tuple[WorkflowRun, list[RunTask]]:
    """The documents of a run whose nodes are ``graph``: node id to what it runs after; not written yet."""
    if not ef.workflows.list():
        ef.workflows.publish(FIRST)
    [head] = ef.workflows.list()
    version = ef.workflows.version(head.id, None)
    logic = version.logic_graph
    edges = [{"from": up, "to": node} for node, ups in graph.items() for up in ups]
    wide = logic.model_construct(
        nodes=[
            logic.nodes[0].model_copy(update={"id": node, "type": "set-union" if ups else "source"})
            for node, ups in graph.items()
        ],
        edges=[
            type(logic).model_fields["edges"].annotation.__args__[0].model_validate(e, by_alias=True)
            for e in edges
        ],
    )
    version = version.model_copy(update={"logic_graph": wide})
    return plan_run(ef.scope, head, version, [asset_id], triggered_by="user:ada")


def requested(ef: EmboFlow, asset_id: str, graph: Mapping[str, Sequence[str]]) -> WorkflowRun:
    """The same, in the queue."""
    run, tasks = planned(ef, asset_id, graph)
    ef.runs.recorder.request(run, tasks)
    return run


def done(ef: EmboFlow, claimed: Claimed, lines: int = 1) -> RunTask:
    """The task settled as a success that printed ``lines`` lines."""
    summary = TaskSummary(executor="python", outcome="done", asset_count=1, stdout_line_count=lines)
    return ef.runs.recorder.succeed(claimed, {"summary": summary.to_mongo()}, Outputs())


def wide(width: int, chain: int = 0) -> dict[str, list[str]]:
    """One node, ``width`` below it, one that joins them, and a chain below that."""
    middle = [f"m{number}" for number in range(width)]
    graph: dict[str, list[str]] = {"src": [], **{node: ["src"] for node in middle}, "join": middle}
    last = "join"
    for number in range(chain):
        graph[f"c{number}"] = [last]
        last = f"c{number}"
    return graph
