"""What a library writes to a file is read as it is written, and nobody is left waiting."""

import threading

import pytest

from emboflow_dagster.orchestration.payloads.piped import Piped


def waiting() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "payload"]


def test_everything_arrives_in_order_in_few_pieces():
    def write(out):
        for n in range(1000):
            out.write(b"%04d" % n)
        out.write(b"x" * (3 << 20))
        assert out.tell() == 4000 + (3 << 20)
        out.write(memoryview(b"end"))

    with Piped(write) as chunks:
        pieces = list(chunks)

    assert b"".join(pieces) == b"".join(b"%04d" % n for n in range(1000)) + b"x" * (3 << 20) + b"end"
    assert len(pieces) == 3
    assert waiting() == []


def test_nothing_written_is_nothing_read():
    with Piped(lambda _out: None) as chunks:
        assert list(chunks) == []


def test_a_writer_that_fails_fails_the_reader():
    def write(out):
        out.write(b"x" * (2 << 20))
        raise RuntimeError("out of ink")

    with Piped(write) as chunks, pytest.raises(RuntimeError, match="out of ink"):
        list(chunks)
    assert waiting() == []


def test_a_reader_that_stops_stops_the_writer():
    written = []

    def write(out):
        for n in range(1000):
            out.write(b"x" * (2 << 20))
            written.append(n)

    with Piped(write) as chunks:
        next(chunks)

    assert len(written) < 20
    assert waiting() == []


def test_a_pipe_that_nobody_read_starts_nothing():
    with Piped(lambda out: out.write(b"x")):
        pass
    assert waiting() == []
