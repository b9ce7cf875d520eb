"""What nodes have done in a child process: functions over JSON values that call the parsers of ``formats``.

Nothing of the parsers is imported here at module level, nor in the process that starts the child.
"""

import json
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emboflow_dagster.errors import EmboflowError, ErrorKind, ExecutionError, LimitError
from emboflow_dagster.formats.report import Probe
from emboflow_dagster.runtime import reading
from emboflow_dagster.runtime.node import ChildCall

PARSER_SECONDS = 900.0
_START_SECONDS = 60.0


def probe(path: str, asset_type: str | None, tell_every: float | None = None) -> dict[str, Any]:
    """``formats.probe.probe_path`` of one asset, as :meth:`Probe.to_json` gives it.

    Args:
        path: The asset's file or folder.
        asset_type: What it was registered as.
        tell_every: Seconds between two texts that say how much was read; ``None`` says nothing.
    """
    from emboflow_dagster.formats.probe import probe_path

    with reading.told(Path(path), tell_every):
        return probe_path(Path(path), asset_type=asset_type).to_json()


def quality(
    path: str,
    subject: str,
    is_dataset: bool,  # noqa: FBT001 - arguments cross the process border by position
    report: dict[str, Any] | None,
    options: dict[str, Any],
    evidence: str,
    about: dict[str, Any],
) -> dict[str, Any]:
    """``formats.quality.report`` of one asset or canonical dataset; its measurements in a file."""
    from emboflow_dagster.formats.quality.report import quality_report

    more = {"name": subject, "evidence": Path(evidence), "subject": about, **options}
    if is_dataset:
        return quality_report(canonical=Path(path), **more)
    return quality_report(Path(path), probe=report, **more)


def quality_bundle(
    folder: str,
    reports: list[dict[str, Any]],
    parts: list[str],
    summary: dict[str, Any],
    thresholds: dict[str, Any],
    consumers: dict[str, Any],
) -> dict[str, Any]:
    """``formats.quality.bundle.write_bundle``: the files of a report."""
    from emboflow_dagster.formats.quality.bundle import write_bundle

    return write_bundle(Path(folder), reports, [Path(part) for part in parts], summary, thresholds, consumers)


def evidence(table: str, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """``formats.quality.bundle.evidence_of``: rows of a stored table of evidence."""
    from emboflow_dagster.formats.quality.bundle import evidence_of

    return evidence_of(Path(table), **asked)


def preview(
    path: str, out: str, images: int, report: dict[str, Any] | None, kinds: list[str], inline: int
) -> dict[str, Any]:
    """``formats.previews.bundle`` of one asset or canonical dataset, and some of it as small JPEGs."""
    from emboflow_dagster.formats.previews.bundle import preview_bundle
    from emboflow_dagster.formats.previews.motion import thumbnails

    index = preview_bundle(Path(path), Path(out), images=images, probe=report, kinds=kinds)
    return {**index, "inline": thumbnails(Path(out), index["files"], inline)}


def preview_page(subjects: list[dict[str, Any]]) -> str:
    """``formats.previews.motion.index_page``: the page of a bundle."""
    from emboflow_dagster.formats.previews.motion import index_page

    return index_page(subjects)


def extract_archive(path: str, out: str, bounds: dict[str, Any]) -> dict[str, Any]:
    """``formats.archives.extract.extract`` of one archive; what came out, the format that it has, and where.

    What stands alone in the archive is the recording: a folder around everything says nothing.
    """
    from emboflow_dagster.formats.archives.extract import Bounds, extract
    from emboflow_dagster.formats.probe import probe_path

    limits = Bounds(bounds["maxBytes"], bounds["maxMembers"], bounds["maxRatio"], bounds["links"])
    found = extract(Path(path), Path(out), limits, nested=bounds["nested"])
    root = Path(out)
    while root.is_dir() and len(inside := list(root.iterdir())) == 1:
        root = inside[0]
    return {
        "files": found.files,
        "bytes": found.bytes,
        "archives": found.archives,
        "leftOut": found.left_out[:20],
        "format": probe_path(root).format,
        "path": root.relative_to(Path(out).parent).as_posix(),
    }


def recover(path: str, out: str) -> dict[str, Any]:
    """``formats.recover.recover_recording`` of one recording into an existing folder."""
    from emboflow_dagster.formats.recover import recover_recording
    from emboflow_dagster.runtime.child_main import log

    def tell(messages: int) -> None:
        if messages % 262_144 == 0:
            log(f"{Path(path).name}: {messages} messages read")

    return recover_recording(Path(path), Path(out), tell)


def one_by_one(function: str, calls: list[list[Any]], done: str, seconds: float) -> None:
    """Call a function of this module for each list of arguments; each result becomes a line of ``done``."""
    with Path(done).open("w", encoding="utf-8") as stream:
        for arguments in calls:
            # Not handled in Python: the alarm ends native code too, and the line that is missing says whose.
            signal.setitimer(signal.ITIMER_REAL, seconds)
            try:
                line = {"result": globals()[function](*arguments)}
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - one bad input is no reason to leave out the others
                code = error.kind.value if isinstance(error, EmboflowError) else ErrorKind.NODE_FAILED.value
                line = {"code": code, "message": str(error) or type(error).__name__}
            signal.setitimer(signal.ITIMER_REAL, 0)
            stream.write(json.dumps(line) + "\n")
            stream.flush()


def each(
    child: ChildCall,
    function: str,
    calls: Sequence[Sequence[Any]],
    workdir: Path,
    *,
    seconds: float = PARSER_SECONDS,
    memory_mb: int | None = None,
) -> list[Any]:
    """The result of ``function`` for each list of arguments, or the :class:`ExecutionError` it ended with.

    One process does them all, since its imports cost more than most inputs; after a crash or a limit another
    one goes on behind the input that did it.
    """
    results: list[Any] = []
    done = workdir / f".{function}.jsonl"
    alone = False
    while len(results) < len(calls):
        left = [list(arguments) for arguments in calls[len(results) :]][: 1 if alone else None]
        failure: ExecutionError | None = None
        try:
            child(
                f"{__name__}:one_by_one",
                function,
                left,
                str(done),
                seconds,
                timeout_s=_START_SECONDS + (seconds + 1) * len(left),
                memory_mb=memory_mb,
            )
        except ExecutionError as error:
            failure = _timed(error, seconds)
        finished = _finished(done)
        results += finished
        done.unlink(missing_ok=True)
        if failure is None:
            alone = False
        elif finished and failure.kind is ErrorKind.LIMIT_MEMORY:
            alone = True  # what the inputs before it left in memory may be to blame
        elif len(finished) < len(left):
            results.append(failure)
            alone = False
        else:
            raise failure
    return results


def _finished(done: Path) -> list[Any]:
    if not done.exists():
        return []
    found: list[Any] = []
    for line in done.read_text(encoding="utf-8").splitlines():
        said = json.loads(line)
        if "result" in said:
            found.append(said["result"])
        else:
            found.append(ExecutionError(said["message"], kind=ErrorKind(said["code"])))
    return found


def _timed(error: ExecutionError, seconds: float) -> ExecutionError:
    if error.kind is ErrorKind.CHILD_CRASHED and "SIGALRM" in error.message:
        return LimitError(f"stopped after {seconds:g} s of wall-clock time", kind=ErrorKind.LIMIT_TIME)
    return error


def probe_safely(
    child: ChildCall,
    path: Path,
    asset_type: str | None,
    *,
    timeout_s: float | None = None,
    memory_mb: int | None = None,
    tell_every: float | None = None,
) -> dict[str, Any]:
    """Probe in a child; a parser that crashed or went over a limit is a report with a warning.

    Returns:
        The JSON of a probe: ``detectedFormatCandidates``, ``structureSummary``, ``warnings``,
        ``truncated``, ``recommendedNextNodes``, ``rawReport``.
    """
    try:
        return child(
            f"{__name__}:probe",
            str(path),
            asset_type,
            tell_every,
            timeout_s=PARSER_SECONDS if timeout_s is None else timeout_s,
            memory_mb=memory_mb,
        )
    except ExecutionError as error:
        return failed_probe(error)


def failed_probe(error: ExecutionError) -> dict[str, Any]:
    """The report of an asset whose parser did not come back."""
    report = Probe()
    report.suggest("unknown", 1.0, "the parser did not come back")
    report.warn("parser_failed", f"{error.kind.value}: {error.message}")
    report.recommend("filter")
    report.raw["parserFailure"] = {"code": error.kind.value, "message": error.message}
    return report.to_json()


def best_format(report: Mapping[str, Any]) -> str:
    """The surest format of a probe's JSON."""
    candidates = report["detectedFormatCandidates"]
    return candidates[0]["format"] if candidates else "unknown"
