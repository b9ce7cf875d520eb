"""Logs: exact counts, bounded tails, and a file with everything when the tails are not everything."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from emboflow_dagster.model.run import MAX_LOG_BYTES, MAX_LOG_LINES
from emboflow_dagster.runtime.logs import MAX_LINE_CHARS, LogTail, TaskLog


def tail_of(*lines: str) -> LogTail:
    tail = LogTail()
    for line in lines:
        tail.add(line)
    return tail


def test_few_lines_are_kept_whole() -> None:
    tail = tail_of("a", "", "c\td")
    assert (tail.lines, tail.count, tail.cut) == (["a", "", "c\td"], 3, False)


def test_the_last_500_lines_are_kept() -> None:
    assert not tail_of(*map(str, range(MAX_LOG_LINES))).cut
    tail = tail_of(*map(str, range(MAX_LOG_LINES + 1)))
    assert (tail.count, tail.cut, len(tail.lines)) == (501, True, 500)
    assert (tail.lines[0], tail.lines[-1]) == ("1", "500")


def test_a_long_line_is_cut_and_says_how_long_it_was() -> None:
    tail = tail_of("x" * (MAX_LINE_CHARS + 1))
    assert tail.lines[0].endswith(f"[{MAX_LINE_CHARS + 1} characters]")
    assert tail.cut


def test_nul_characters_are_replaced_since_the_database_refuses_them() -> None:
    assert tail_of("a\0b").lines == ["a�b"]


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=9_000), max_size=60))
def test_counts_are_exact_and_tails_bounded_whatever_is_written(lines: list[str]) -> None:
    tail = tail_of(*lines)
    kept = tail.lines

    assert tail.count == len(lines)
    assert len(kept) <= MAX_LOG_LINES
    assert sum(len(line.encode()) for line in kept) <= MAX_LOG_BYTES
    assert tail.cut or kept == lines
    assert not any("\0" in line for line in kept)


def test_a_log_that_fits_needs_no_file(tmp_path: Path) -> None:
    log = TaskLog(tmp_path / "log")
    log.add("stdout", "one")
    log.add("stderr", "two")
    assert log.close() is None
    assert (log.tails["stdout"].lines, log.tails["stderr"].lines, log.tails["log"].lines) == (
        ["one"],
        ["two"],
        [],
    )


def test_a_log_that_does_not_fit_is_whole_on_disk(tmp_path: Path) -> None:
    log = TaskLog(tmp_path / "log")
    lines = [f"line {n} é\udcff" for n in range(2_000)]
    for line in lines:
        log.add("stdout", line)
    log.add("log", "end")
    whole = log.close()

    assert whole is not None
    written = whole.read_text("utf-8").splitlines()
    assert len(written) == 2_001
    assert written[0] == "stdout\tline 0 é?"
    assert written[-1] == "log\tend"


def test_lines_of_several_threads_are_neither_lost_nor_mixed(tmp_path: Path) -> None:
    log = TaskLog(tmp_path / "log")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: [log.add("stdout", f"{n}:{k}") for k in range(300)], range(8)))
    whole = log.close()

    assert whole is not None
    assert log.tails["stdout"].count == 2_400
    assert sorted(whole.read_text().splitlines()) == sorted(
        f"stdout\t{n}:{k}" for n in range(8) for k in range(300)
    )


def test_closing_twice_and_writing_late_do_no_harm(tmp_path: Path) -> None:
    log = TaskLog(tmp_path / "log")
    log.add("log", "a")
    log.close()
    log.add("log", "late")

    assert log.close() is None
    assert log.tails["log"].count == 2
