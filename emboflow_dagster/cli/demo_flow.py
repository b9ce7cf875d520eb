"""The steps of `emboflow demo`: the whole way of the data, each step one verb, timed and told.

Every step may be repeated: what is there already is "unchanged". So a database that dies on the way costs the
step it died in, and nothing that was acknowledged.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from emboflow_dagster.cli import demo_outcome, demo_workflow, execution, progress
from emboflow_dagster.cli.demo_outcome import Outcome, Recording
from emboflow_dagster.errors import (
    AlreadyExistsError,
    ConfigurationError,
    EmboflowError,
    InvalidInputError,
    UnavailableError,
)

if TYPE_CHECKING:
    from emboflow_dagster.formats.demo_recordings.together import Group
    from emboflow_dagster.model.asset import Asset
    from emboflow_dagster.model.run import WorkflowRun
    from emboflow_dagster.project.handle import EmboFlow
    from emboflow_dagster.project.settings import Settings
    from emboflow_dagster.project.workflows import Published

RUN_TIMEOUT_S: Final = 3_600.0
LOOK_TIMEOUT_S: Final = 1_800.0
LOOK_MEMORY_MB: Final = 3_072
MAX_STARTS: Final = 3
WATCH_EVERY_S: Final = 0.5
#: Told after each step: the outcome so far, the step's verb.
Tell = Callable[[Outcome, str], None]


def run_demo(settings: "Settings", folder: Path | None, tell: Tell, note: Callable[[str], None]) -> Outcome:
    """Go the whole way; start over when the embedded database went away.

    Args:
        settings: The deployment.
        folder: Where the recordings are; ``None`` makes them.
        tell: Called after each step.
        note: Takes a line about what went wrong and is being repaired.

    Raises:
        EmboflowError: A step failed for good.
    """
    for start in range(1, MAX_STARTS + 1):
        outcome = Outcome()
        try:
            with _kept_running(settings):
                _go(settings, folder, outcome, tell)
        except UnavailableError as error:
            if settings.mongo_uri is not None or start == MAX_STARTS:
                raise
            note(f"the database went away ({error.message}); it is started again, and so is the demo")
        else:
            return outcome
    raise AssertionError("unreachable")


@contextmanager
def _kept_running(settings: "Settings") -> Iterator[None]:
    """Start the embedded database again as soon as it dies, for the time of the block.

    It comes back on the same port, where the driver tries its last command again: nobody else notices.
    """
    if settings.mongo_uri is not None:
        yield
        return
    from emboflow_dagster.mongo import embedded

    done = threading.Event()

    def watch() -> None:
        while not done.wait(WATCH_EVERY_S):
            with suppress(EmboflowError):  # whoever needs the database says what is wrong
                embedded.ensure(settings.home)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _go(settings: "Settings", folder: Path | None, outcome: Outcome, tell: Tell) -> None:
    from emboflow_dagster.project.handle import EmboFlow

    @contextmanager
    def step(verb: str, waiting: str | None) -> Iterator[Callable[[str], None]]:
        said: list[str] = []
        started = time.perf_counter()
        with progress.waiting(waiting) if waiting else nullcontext():
            yield said.append
        outcome.steps.append((verb, time.perf_counter() - started, " ".join(said)))
        tell(outcome, verb)

    with step("open", "opening the database") as say:
        ef = EmboFlow.open(settings)
        embedded = settings.mongo_uri is None
        say(
            f"{'embedded MongoDB in ' + _near(settings.home) if embedded else 'MongoDB ' + settings.database}"
        )
        say(f"project {ef.scope.workspace_slug}/{ef.scope.project_slug}")
    with ef:
        with step("find" if folder else "make", "looking for recordings") as say:
            outcome.recordings = _recordings(settings, folder)
            where = folder or settings.home / "demo" / "recordings"
            say(f"{len(outcome.recordings)} recordings in {_near(where)}")
        with step("register", "registering") as say:
            _register(ef, outcome.recordings)
            known = sum(r.known for r in outcome.recordings)
            refused = sum(r.refused is not None for r in outcome.recordings)
            new = len(outcome.recordings) - known - refused
            say(f"{new} new, {known} unchanged" + (f", {refused} refused" if refused else ""))
        with step("probe", f"probing {len(outcome.recordings)} recordings") as say:
            _probe(ef, outcome)
            warned = sum(bool(r.warnings) for r in outcome.recordings)
            say(f"{len(outcome.recordings)} looked into, {warned} with warnings")
        with step("compare", "comparing the recordings' features") as say:
            outcome.group = _together(outcome)
            say(_group_text(outcome.group))
        with step("publish", "publishing the workflow") as say:
            published = outcome.published = _publish(ef, folder, outcome)
            state = "unchanged" if published.unchanged else "new"
            say(f"{published.definition.slug} version {published.version.version_number}, {state}")
        assets = _in_order(outcome)
        with step("request", "requesting a run") as say:
            run = ef.runs.request(published.definition.slug, assets=[a.id for a in assets])
            say(f"{run.id} of {run.summary.total_task_count} tasks over {len(assets)} assets")
        with step("work", None) as say:  # the tasks are shown as they go
            run = execution.carry_out(ef, run, timeout_s=RUN_TIMEOUT_S)
            _collect(ef, run, outcome)
            say(f"{run.status.value} in Dagster, {len(outcome.artifacts)} artifacts")
        execution.require_success(run, outcome.tasks)
        with step("verify", "verifying") as say:
            outcome.verified = ef.verify()
            problems = [f"{p.collection} {p.id} {p.field}: {p.message}" for p in outcome.verified.problems]
            outcome.problems += problems
            say(f"{len(problems)} problems" if problems else "every promise kept")


def _recordings(settings: "Settings", folder: Path | None) -> list[Recording]:
    from emboflow_dagster.formats.demo_recordings.find import Found, find_recordings
    from emboflow_dagster.formats.demo_recordings.make import make_recordings

    if folder is not None:
        return [Recording(found) for found in find_recordings(folder)]
    made = make_recordings(settings.home / "demo" / "recordings")
    return [Recording(Found(one.path, one.asset_type, one.name), one.truth) for one in made]


def _register(ef: "EmboFlow", recordings: Sequence[Recording]) -> None:
    from emboflow_dagster.model.base import utc_now

    for recording in recordings:
        found, before = recording.found, utc_now()
        try:
            try:
                asset = ef.assets.register(found.path, type=found.asset_type, name=found.name)
            except AlreadyExistsError:  # the recording changed since the last time
                asset = ef.assets.register(found.path, type=found.asset_type)
        except InvalidInputError as error:  # links in a folder, a name that cannot be stored
            recording.refused = error.message
            continue
        recording.asset, recording.known = asset, asset.created_at < before


def _probe(ef: "EmboFlow", outcome: Outcome) -> None:
    """Look into each; several at a time, since each waits for a process of its own."""

    def look(recording: Recording) -> None:
        if recording.asset is not None:
            recording.report = ef.assets.probe(recording.asset.id)

    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        list(pool.map(look, outcome.recordings))
    for recording in outcome.recordings:
        outcome.problems += demo_outcome.probe_differences(recording)


def _together(outcome: Outcome) -> "Group | None":
    """The largest group of whole recordings that share a schema, looked for in a child process."""
    from emboflow_dagster.formats.demo_recordings.together import DEFAULT_FPS, largest_group
    from emboflow_dagster.runtime.child import run_child

    blocking = demo_workflow.blocking_warnings()
    asked = [
        {"key": r.asset.id, "path": str(r.found.path), "format": r.report.format}
        for r in outcome.recordings
        if r.asset is not None
        and r.report is not None
        and "normalize" in r.report.recommended_next_nodes
        and blocking.isdisjoint(r.warnings)
    ]
    if not asked:
        return None
    looked = run_child(
        "emboflow_dagster.formats.demo_recordings.together:look_at",
        asked,
        DEFAULT_FPS,
        timeout_s=LOOK_TIMEOUT_S,
        memory_mb=LOOK_MEMORY_MB,
    )
    outcome.schemas = {
        row["key"]: [demo_outcome.in_words(s["features"]) for s in row["schemas"]] for row in looked
    }
    return largest_group(looked)


def _publish(ef: "EmboFlow", folder: Path | None, outcome: Outcome) -> "Published":
    from emboflow_dagster.runtime.workflow_file import load

    if folder is None:
        content = demo_workflow.text()
    else:
        content = demo_workflow.fitted(folder.expanduser().absolute(), outcome.group)
    workflow = load(content)
    path = ef.settings.home / "demo" / f"{workflow['workflow']}.yaml"
    try:
        demo_workflow.write(path, content)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror}", hint="set EMBOFLOW_HOME"
        ) from error
    outcome.workflow_file = path
    outcome.dataset = demo_workflow.dataset_name(workflow)
    return ef.workflows.publish(path)


def _in_order(outcome: Outcome) -> "list[Asset]":
    """The assets to bind, the group first: the first episode fixes the dataset's features."""
    assets = [r.asset for r in outcome.recordings if r.asset is not None]
    if not assets:
        refused = "; ".join(f"{r.found.name}: {r.refused}" for r in outcome.recordings[:5])
        raise InvalidInputError(f"no recording could be registered: {refused}")
    members = outcome.group.members if outcome.group else ()
    return sorted(assets, key=lambda asset: asset.id not in members)


def _collect(ef: "EmboFlow", run: "WorkflowRun", outcome: Outcome) -> None:
    """Read back what the run left."""
    from emboflow_dagster.orchestration.sync import sync

    # A Dagster that runs shows the recordings, the workflow and the dataset from here on.
    outcome.url = sync(ef.settings.dagster_home).url
    outcome.run = run
    outcome.tasks = ef.runs.tasks(run)
    outcome.artifacts = [artifact for task in outcome.tasks for artifact in ef.artifacts.of_task(task)]
    tasks = {task.node_id: task for task in outcome.tasks}
    outcome.left_out = demo_outcome.left_out(tasks, outcome)
    if run.status != "success" or outcome.dataset is None:
        return
    summary = tasks["publish"].summary
    if summary is None or summary.outcome != "done":
        return
    version = ef.datasets.version(outcome.dataset)
    outcome.version = version
    outcome.version_known = version.created_at < run.created_at
    outcome.problems += demo_outcome.size_differences(outcome)


def _group_text(group: "Group | None") -> str:
    if group is None:
        return "none gives episodes: the run makes no dataset"
    size = f"{group.episodes} episodes at {group.fps:g} fps"
    return f"{len(group.members)} share a schema: {size} of {demo_outcome.in_words(group.features)}"


def _near(path: Path) -> str:
    """A path as short as it can be typed here."""
    try:
        return str(path.expanduser().absolute().relative_to(Path.cwd()))
    except (ValueError, OSError):  # elsewhere, or the working directory is gone
        return str(path)
