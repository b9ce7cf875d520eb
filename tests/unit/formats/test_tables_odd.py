"""Tables as loggers, spreadsheets and scripts write them."""

import numpy as np  # noqa: TID253 - this module compares what is read with what was written
import pytest

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.formats.as_arrays import parts
from emboflow_dagster.formats.canonical import from_csv
from emboflow_dagster.formats.probe import probe_path
from emboflow_dagster.runtime.normalize_readers import rate_of, read

BODY = "".join(f"{index * 0.01:.2f},{index},{index * 0.5}\n" for index in range(100))
PLAIN = f"time,a,b\n{BODY}"
#: What is written; the warnings, and what the report says beside 100 records of time, a and b.
ODD = {
    "crlf": (PLAIN.replace("\n", "\r\n").encode(), set(), {}),
    "cr": (PLAIN.replace("\n", "\r").encode(), set(), {}),
    "utf16": (PLAIN.encode("utf-16"), set(), {"encoding": "utf-16"}),
    "utf16be": (PLAIN.encode("utf-16-be"), set(), {"encoding": "utf-16-be"}),
    "mark": (PLAIN.encode("utf-8-sig"), set(), {"encoding": "utf-8-sig"}),
    "late": (f"{PLAIN}1.0,3\n1.1,3,4,5\n".encode(), {"ragged_rows"}, {"rows": 102, "raggedRows": 2}),
    "comments": (f"# arm: ur5\n# x\n{PLAIN}# end\n".encode(), set(), {"rows": 103, "comments": 3}),
    "percent": (f"% arm\n{PLAIN}".encode(), set(), {"rows": 101, "comments": 1}),
    "savetxt": (f"# {PLAIN}".encode(), set(), {"header": False}),
    "tabs": (PLAIN.replace(",", "\t").encode(), set(), {"delimiter": "\t"}),
    "comma": (PLAIN.replace(",", ";").replace(".", ",").encode(), set(), {"delimiter": ";", "decimal": ","}),
    "blank": (PLAIN.replace("0.50,", "\n0.50,").encode(), set(), {"rows": 101}),
    "spaces": (PLAIN.replace(",", ", ").encode(), set(), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_a_table_is_read_however_it_is_written(tmp_path, name):
    content, codes, said = ODD[name]
    (path := tmp_path / "x.csv").write_bytes(content)

    report = probe_path(path)
    (episode,) = from_csv.episodes(path)

    assert report.format == "csv"
    assert report.codes == codes
    found = report.structure
    assert found | {"rows": 100, "records": 100, "columns": ["time", "a", "b"]} | said == found
    assert found["kinds"] == {"time": "number", "a": "integer", "b": "number"}
    assert (found["time"]["column"], found["time"]["rateHz"], found["time"]["end"]) == ("time", 100.0, 0.99)
    assert "normalize" in report.recommended_next_nodes
    assert episode.features["observation.state"].tolist()[-1] == [99.0, 49.5]
    assert episode.source_timestamp_ns is not None
    assert episode.source_timestamp_ns[-1] == 990_000_000


def probed(tmp_path, text):
    (path := tmp_path / "x.csv").write_text(text, encoding="utf-8")
    return probe_path(path)


def test_what_is_wrong_with_a_table_is_named(tmp_path):
    said = {
        BODY: ({"header_missing"}, {"rows": 100, "header": False}),
        "time,a\n": ({"no_rows"}, {"rows": 0, "records": 0}),
        'time,note\n0.0,"two\nlines"\n0.1,b\n': (set(), {"rows": 3, "records": 2}),
        'time,note\n0.0,"no end\n' + "0.1,b\n" * 30: ({"unclosed_quote"}, {"rows": 31}),
        f"time,a,a\n{BODY}": ({"duplicate_column"}, {"rows": 100}),
        f"time,a\n{BODY}": ({"ragged_rows"}, {"columns": ["time", "a", "column_2"], "records": 100}),
        ",".join(f"c{n}" for n in range(5000)) + "\n" + "1," * 4999 + "1\n": (
            set(),
            {"rows": 1, "columnCount": 5000},
        ),
        "a,b\n1,\nNaN,2\n,3\n": (set(), {"missing": {"a": 2, "b": 1}}),
    }

    for text, (codes, structure) in said.items():
        report = probed(tmp_path, text)
        assert report.codes == codes, text[:40]
        assert report.structure | structure == report.structure, text[:40]


def test_the_unit_of_time_comes_with_its_reason(tmp_path):
    said = {
        "timestamp,q\n" + "".join(f"{1_700_000_000_000_000_000 + n * 10**7},1\n" for n in range(20)): (
            "ns",
            100.0,
            "nanoseconds since 1970",
        ),
        "t,q\n" + "".join(f"{n * 10},1\n" for n in range(20)): (
            "ms",
            100.0,
            "whole numbers with a step of 10",
        ),
        "Time (us),q\n" + "".join(f"{n * 5000},1\n" for n in range(20)): ("us", 200.0, "its name says us"),
        "stamp,q\n" + "".join(f"2026-01-01 10:00:{n:02d}.5,1\n" for n in range(20)): ("ns", 1.0, "moments"),
        "q,time\n" + "".join(f"1,{n * 0.05}\n" for n in range(20)): ("s", 20.0, "fractions"),
    }
    for text, (unit, rate, reason) in said.items():
        time = probed(tmp_path, text).structure["time"]
        assert (time["unit"], time["rateHz"]) == (unit, rate)
        assert reason in time["reason"]
    assert probed(tmp_path, "force_t,q\n1,2\n5,6\n3,4\n").structure["time"] is None


def test_gaps_and_order_of_time_are_checked_over_the_whole_table(tmp_path):
    stamps = [n * 0.1 for n in range(200_000)]
    stamps[150_000:] = [stamp + 7 for stamp in stamps[150_000:]]
    stamps[199_000] = stamps[198_999]
    stamps[199_500] = 1.0
    text = "time,q\n" + "".join(f"{stamp:.3f},1.5e-3\n" for stamp in stamps)

    report = probed(tmp_path, text)
    time = report.structure["time"]

    assert len(text) > 2_500_000  # several blocks
    assert (time["backwards"], time["repeated"], time["gaps"]) == (1, 1, 3)
    assert time["largestGapS"] == pytest.approx(stamps[199_501] - 1.0)
    named = {w.code: w.message for w in report.warnings}
    assert "the first is record 199001" in named["time_not_monotonic"]
    assert "time_gap" in named
    (episode,) = from_csv.episodes(tmp_path / "x.csv")
    assert episode.flags == ("time_not_monotonic", "time_gaps")


def test_columns_become_features_and_a_wrong_rate_is_refused(tmp_path):
    for number in (2, 10):
        text = "time,frame,q1,q2,cmd_q1,note,empty\n"
        text += "".join(f"{n * 0.05},{n},{number},0,{n},hello,\n" for n in range(number))
        (tmp_path / f"run_{number}.csv").write_text(text)
    asset = {"id": "a", "path": str(tmp_path), "format": "csv"}
    request = {"task": "wipe", "mapping": {}, "fps": None}
    skipped = []

    found = list(read(asset, request, rate_of(asset)[0], skipped))
    mapping = {"q1+q2": "observation.state", "cmd_q1": "action", "time": "timestamp"}
    mapped = list(read(asset, {**request, "mapping": mapping}, 20, []))

    assert rate_of(asset) == (20.0, False)
    assert [(e.source["path"], e.length, e.task) for e in found] == [
        ("run_2.csv", 2, "wipe"),
        ("run_10.csv", 10, "wipe"),
    ]
    assert found[1].specs["observation.state"].names == ("q1", "q2")
    assert found[1].features["action"][:, 0].tolist() == list(range(10))
    assert {item["reason"] for item in skipped} == {
        "note: not every cell is a number",
        "empty: every cell is empty",
    }
    (first, *_) = parts(tmp_path, "csv", "episode", [])
    assert (first.ref, sorted(first.arrays)) == ("run_2.csv", ["action", "observation.state"])
    for one, other in zip(found, mapped, strict=True):
        np.testing.assert_array_equal(one.features["observation.state"], other.features["observation.state"])
    with pytest.raises(InvalidInputError, match="recorded at 20 Hz"):
        list(read(asset, request, 50, []))
