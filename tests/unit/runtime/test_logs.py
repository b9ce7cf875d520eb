"""Logs: exact counts, bounded tails, and a file with every byte when the tails do not say it all."""

import os
import re
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emboflow_dagster.model.run import MAX_LOG_BYTES, MAX_LOG_LINES
from emboflow_dagster.runtime.log_records import PIECE_BYTES, Joiner, parse
from emboflow_dagster.runtime.log_tail import MAX_LINE_CHARS, LogTail, tails_of
from emboflow_dagster.runtime.logs import TaskLog
from emboflow_dagster.runtime.secrets_filter import SecretsFilter, secrets_of


def tail_of(*lines: str) -> LogTail:
    tail = LogTail()
    for line in lines:
        tail.add(line)
    return tail


def records(path: Path) -> Iterator:
    with path.open("rb") as stream:
        for line in stream:
            yield parse(line)


def printed(path: Path, stream: str = "stdout") -> bytes:
    return b"".join(r.data + (b"\n" if r.ends else b"") for r in records(path) if r.stream == stream)


def fed(path: Path, *pieces: bytes, **how) -> TaskLog:
    log = TaskLog(path, **how)
    for piece in pieces:
        log.streams["stdout"].feed(piece)
    log.close()
    return log


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


@given(st.binary(max_size=3_000), st.lists(st.integers(0, 3_000), max_size=12))
def test_every_byte_is_in_the_file_however_it_comes(tmp_path_factory, data: bytes, cuts: list[int]) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    log = TaskLog(path)
    for start, end in pairwise(places):
        log.streams["stdout"].feed(data[start:end])
        log.flush()  # as a reader who follows makes it do
    log.close()
    lines = data.split(b"\n")
    count = len(lines) - (lines[-1] == b"")

    assert printed(path) == data
    assert log.counts == {"log": 0, "stdout": count, "stderr": 0}
    assert tails_of(records(path))["stdout"].lines == log.tails["stdout"].lines
    assert [row.text for row in joined(path)] == [
        line.removesuffix(b"\r").decode("utf-8", "replace") for line in lines[:count]
    ]


def joined(path: Path) -> list:
    joiner = Joiner(["stdout"])
    return [*joiner.lines(records(path)), *joiner.rest(over=True)]


def test_a_log_of_one_stream_that_fits_needs_no_file(tmp_path: Path) -> None:
    log = TaskLog(tmp_path / "log")
    log.add("stdout", "one")
    assert log.close() is None
    assert log.whole() == tmp_path / "log"
    assert {name: tail.lines for name, tail in log.tails.items()} == {
        "log": [],
        "stdout": ["one"],
        "stderr": [],
    }


def test_a_log_of_nothing_is_no_file_at_all(tmp_path: Path) -> None:
    log = TaskLog(tmp_path / "log")
    assert (log.close(), log.whole()) == (None, None)


def test_the_order_of_two_streams_is_worth_a_file(tmp_path: Path) -> None:
    log = TaskLog(tmp_path / "log")
    log.add("stderr", "one")
    log.add("log", "two")
    log.add("stderr", "three")

    assert log.close() == tmp_path / "log"
    assert (tmp_path / "log").read_bytes() == b"stderr\tone\nlog\ttwo\nstderr\tthree\n"


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


def test_a_text_of_several_lines_is_several_lines(tmp_path: Path) -> None:
    log = TaskLog(tmp_path / "log")
    log.add("log", "one\ntwo\n")
    log.close()

    assert log.tails["log"].lines == ["one", "two"]


def test_a_line_of_5_mb_costs_no_memory_and_is_whole(tmp_path: Path) -> None:
    line = os.urandom(1 << 16).replace(b"\n", b"N").replace(b"\r", b"R")
    log = TaskLog(tmp_path / "log", secrets=SecretsFilter(["canary-5f1c"]))
    tracemalloc.start()
    for _ in range(80):
        log.streams["stdout"].feed(line)
    log.streams["stdout"].feed(b"\nshort\n")
    log.close()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert printed(tmp_path / "log") == line * 80 + b"\nshort\n"
    assert log.counts["stdout"] == 2
    assert log.tails["stdout"].lines[0].endswith(f"… [{80 << 16} bytes]")
    assert max(len(r.data) for r in records(tmp_path / "log")) <= PIECE_BYTES
    assert most < 2 << 20


def test_a_piece_ends_between_characters(tmp_path: Path) -> None:
    text = "x" + "é" * PIECE_BYTES
    fed(tmp_path / "log", text.encode())

    pieces = [r.data.decode() for r in records(tmp_path / "log")]
    assert (len(pieces), "".join(pieces)) == (3, text)


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
    assert (tmp_path / "log").read_bytes() == b"log\ta\nlog\tlate\n"


def test_what_is_beyond_the_bound_is_counted_and_said(tmp_path: Path) -> None:
    log = fed(tmp_path / "log", *(b"%05d\n" % n for n in range(1_000)), max_bytes=130)

    assert log.counts["stdout"] == 1_000
    assert log.tails["stdout"].lines[-1] == "00999"
    *kept, note = records(tmp_path / "log")
    assert len(kept) == 10
    assert note.stream == "note"
    assert note.data == b"not kept: 990 lines (12870 bytes) of stdout; a log is kept up to 130 bytes"


def test_a_full_disk_does_not_fail_the_work(tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    log = TaskLog(tmp_path / "full")
    log.streams["stdout"].feed(b"line of text\n" * 100_000)

    assert log.close() is not None
    assert log.counts["stdout"] == 100_000


def test_secrets_are_filtered_wherever_they_are_cut(tmp_path: Path) -> None:
    secret = "canary-5f1c-" + "0123456789" * 3
    data = b"a" * (PIECE_BYTES - 7) + secret.encode() + b" b\n" + secret.encode() + b"\n" + secret.encode()
    for cut in range(PIECE_BYTES - 10, len(data), 11):
        log = TaskLog(tmp_path / "log", secrets=SecretsFilter([secret]))
        log.streams["stdout"].feed(data[:cut])
        log.flush()
        log.streams["stdout"].feed(data[cut:])
        log.close()

        whole = printed(tmp_path / "log")
        assert whole == data.replace(secret.encode(), b"***")
        assert secret not in str(log.tails["stdout"].lines)


def test_the_search_for_secrets_would_find_them(tmp_path: Path) -> None:
    fed(tmp_path / "log", b"it is canary-5f1c\n", secrets=SecretsFilter([]))
    assert b"canary-5f1c" in (tmp_path / "log").read_bytes()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("EMBOFLOW_SECRET_TOKEN", "canary-5f1c", {"canary-5f1c"}),
        ("EMBOFLOW_SECRET_KEY", "first-line\nsecond-line\n", {"first-line", "second-line"}),
        ("EMBOFLOW_MONGO_URI", "mongodb://ada:can%40ry-5f1c@host/db", {"can%40ry-5f1c", "can@ry-5f1c"}),
        ("AWS_SECRET_ACCESS_KEY", "canary-5f1c", {"canary-5f1c"}),
        ("EMBOFLOW_SECRET_SHORT", "abc", set()),
        ("EMBOFLOW_MONGO_URI", "mongodb://host/db", set()),
        ("EMBOFLOW_ACTOR", "user:ada-canary", set()),
    ],
)
def test_what_is_a_secret(name: str, value: str, expected: set[str]) -> None:
    assert secrets_of({name: value}) == expected


def test_what_is_written_is_watched_with_its_secrets_filtered(tmp_path: Path) -> None:
    seen: list[tuple[str, bytes]] = []
    log = TaskLog(
        tmp_path / "log", secrets=SecretsFilter(["canary-5f1c"]), watch=lambda *what: seen.append(what)
    )
    log.streams["stderr"].feed(b"one canary-5f1c\ntwo\n")
    log.add("log", "three")
    log.close()

    assert re.sub(rb"\n(?=stderr)", b"|", b"".join(data for _, data in seen)) == (
        b"stderr\tone ***|stderr\ttwo\nlog\tthree\n"
    )
    assert [name for name, _ in seen] == ["stderr", "stderr", "log"]
