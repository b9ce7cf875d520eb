"""Which assets the sources of a run bind: each its own, or all the same.

Wherever assets of a run are named, ``NODE=ASSET`` (the id of a source, then a name, an id or a selector) is
for that source alone. What stands without a node is for every source that is not named. Where nothing is
named, the workflow's ``assetBindings`` hold.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from emboflow_dagster.errors import ErrorKind, InvalidInputError, NotFoundError, shown
from emboflow_dagster.model.base import utc_now
from emboflow_dagster.model.run import RunTask
from emboflow_dagster.model.workflow import WorkflowDefinitionVersion
from emboflow_dagster.project import sources
from emboflow_dagster.project.assets import Assets
from emboflow_dagster.project.selection import Selected, Selection
from emboflow_dagster.runtime import asset_bindings
from emboflow_dagster.runtime.machine import own_assets
from emboflow_dagster.runtime.registry import nearest, node_types
from emboflow_dagster.runtime.selector import is_key

Named = Sequence[str] | Mapping[str, Sequence[str]]
_ALL: Final = ""


class Bound(NamedTuple):
    """The assets of a run in order, and those of each source; none by source where all take the run's."""

    asset_ids: list[str]
    by_source: dict[str, list[str]]


def sources_of(version: WorkflowDefinitionVersion) -> list[str]:
    """The nodes of a version that bind assets, in the order of its file."""
    kinds = {node_type.id for node_type in node_types() if node_type.source}
    return [node.id for node in version.logic_graph.nodes if node.type in kinds]


def split(entries: Sequence[str], takers: Sequence[str]) -> dict[str, list[str]]:
    """Entries by the source that they are for; those for all under an empty name.

    Raises:
        NotFoundError: One is for a node that is no source, and nearly called as one.

    >>> split(["a", "left=b", "type=rosbag"], ["left", "right"])
    {'left': ['b'], '': ['a', 'type=rosbag']}
    """
    found: dict[str, list[str]] = {}
    rest: list[str] = []
    for entry in entries:
        node_id, equals, name = entry.partition("=")
        # A source that is called `type` is bound by the mapping that Python takes.
        if equals and node_id in takers and not is_key(node_id):
            found.setdefault(node_id, []).append(name)
        elif equals and not is_key(node_id) and nearest(node_id, takers):
            _known({node_id: name}, takers)  # which says what was meant
        else:
            rest.append(entry)
    return {**found, _ALL: rest} if rest else found


def resolve(
    selection: Selection, version: WorkflowDefinitionVersion, named: Named | None, *, at: datetime
) -> Bound:
    """The assets that somebody named for a run of ``version``, or its own where nobody named any.

    Raises:
        NotFoundError: No such asset, or a mapping names a node that is no source.
        InvalidInputError: A source is left without assets.
    """
    if isinstance(named, Mapping):
        groups = {node_id: list(names) for node_id, names in named.items()}
        _known(groups, sources_of(version))
    else:
        groups = split(named or (), sources_of(version))
    return _bound(version, groups, lambda names: selection.named(names, at=at))


def default(selection: Selection, assets: Assets, version: WorkflowDefinitionVersion) -> Bound:
    """The assets a run binds when nobody names any: its schedule's, else those of its sources."""
    schedule = version.runtime_graph.schedule
    if schedule is not None and schedule.assets:
        # Whoever materializes by hand has no last run to look back to.
        return Bound(selection.named(schedule.assets, at=utc_now(), last_run=False), {})
    return of_sources(selection, assets, version)


def of_sources(selection: Selection, assets: Assets, version: WorkflowDefinitionVersion) -> Bound:
    """What the file binds to the sources of a version, else all that they take."""
    if asset_bindings.of_version(version):
        return resolve(selection, version, None, at=utc_now())
    return Bound([asset.id for asset in sources.taken(assets, version)], {})


def again(tasks: Sequence[RunTask], asset_ids: Sequence[str], version: WorkflowDefinitionVersion) -> Named:
    """What the run of ``tasks`` bound, for another version: by source where that one has the same sources."""
    own = {task.node_id: own_assets(task) for task in tasks}
    by_source = {node_id: ids for node_id, ids in own.items() if ids is not None}
    return by_source if by_source and by_source.keys() == set(sources_of(version)) else asset_ids


def of_schedule(
    selection: Selection,
    schedule_id: str,
    version: WorkflowDefinitionVersion,
    entries: Sequence[str],
    *,
    at: datetime,
    looked_at: datetime | None,
) -> tuple[Selected, dict[str, list[str]]]:
    """What a tick of a schedule binds, in all and by source; a selector may match nothing."""
    fresh: list[str] = []
    left: list[bool] = []

    def chosen(names: Sequence[str]) -> list[str]:
        found = selection.of_schedule(schedule_id, names, at=at, looked_at=looked_at)
        fresh.extend(found.fresh)
        left.append(found.left)
        return found.asset_ids

    bound = _bound(version, split(entries, sources_of(version)), chosen)
    kept = [asset_id for asset_id in dict.fromkeys(fresh) if asset_id in set(bound.asset_ids)]
    return Selected(bound.asset_ids, kept, any(left)), bound.by_source


def check(selection: Selection, version: WorkflowDefinitionVersion, entries: Sequence[str]) -> None:
    """Refuse entries that could not be resolved; see :meth:`Selection.check`."""
    for names in split(entries, sources_of(version)).values():
        selection.check(names)


def _known(groups: Mapping[str, object], takers: Sequence[str]) -> None:
    for node_id in groups:
        if node_id not in takers:
            near = nearest(node_id, takers)
            hint = f"did you mean {near!r}?" if near else f"its sources are {', '.join(takers)}"
            raise NotFoundError(f"no source {shown(node_id)} in this workflow", hint=hint)


_OF_FILE = "the workflow file binds it: register it, with that --name"


def _bound(
    version: WorkflowDefinitionVersion,
    groups: Mapping[str, Sequence[str]],
    chosen: Callable[[Sequence[str]], list[str]],
) -> Bound:
    own = {node_id: names for node_id, names in groups.items() if node_id != _ALL}
    for_all = groups.get(_ALL)
    defaults = {} if for_all else asset_bindings.of_version(version)
    if not own and not defaults:
        return Bound(chosen(for_all or ()), {})
    takers = sources_of(version)
    if for_all and own.keys() >= set(takers):
        raise InvalidInputError(
            f"every source has assets of its own; {shown(for_all[0])} is for none of them"
        )
    by_source: dict[str, list[str]] = {}
    for node_id in takers:
        # An empty list that somebody gave is an answer: this source takes nothing.
        names = own.get(node_id, for_all or defaults.get(node_id))
        if names is None:
            raise InvalidInputError(
                f"source {node_id} is left without assets",
                kind=ErrorKind.INPUT_MISSING,
                hint=f"name some with --asset {node_id}=NAME, or some for all with --asset NAME",
            )
        try:
            by_source[node_id] = chosen(names)
        except NotFoundError as error:
            if node_id in own or for_all:
                raise
            error.hint = f"{_OF_FILE}; or name others: --asset {node_id}=NAME ({error.hint})"
            raise
    return Bound(list(dict.fromkeys(a for ids in by_source.values() for a in ids)), by_source)
