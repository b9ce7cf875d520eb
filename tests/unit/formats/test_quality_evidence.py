"""Evidence: rules judge, stored rows are judged again, what is not kept still counts."""

import json
import math

import numpy as np  # noqa: TID253 - this module is about files that these libraries write
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.formats.quality import evidence
from emboflow_dagster.formats.quality.bundle import evidence_of, write_bundle
from emboflow_dagster.formats.quality.evidence import Kept, Measurement, Rule, rules_for
from emboflow_dagster.formats.quality.plots import histogram
from emboflow_dagster.formats.quality.render import render_page
from emboflow_dagster.formats.quality.report import ALL_CHECKS, STANDARD_RULES, quality_report
from tests.unit.formats.test_quality import dataset, good

NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(st.lists(NUMBERS, min_size=1, max_size=60), NUMBERS, st.floats(0, 1e6), st.booleans())
def test_the_worst_of_what_was_kept_is_the_worst_of_all(values, warn, more, below):
    rule = Rule(warn, warn - more if below else warn + more, below)
    kept, limit = Kept([], {}), evidence.MAX_ROWS
    try:
        evidence.MAX_ROWS = 5
        for value in values:
            kept.add(Measurement("c", 1, "m", value))
    finally:
        evidence.MAX_ROWS = limit

    worst = max((rule.verdict(value) for value in values), key=evidence.ORDER.__getitem__)
    assert kept.worst({"m": rule}) == worst
    # Any other threshold judges the rows that were kept as it would have judged all.
    assert max((rule.verdict(row.value) for row in kept.rows), key=evidence.ORDER.__getitem__) == worst
    assert len(kept.rows) + kept.dropped == len(values)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_fails_wherever_there_is_a_limit(value):
    assert Rule(warn=1).verdict(value) == "fail"
    assert Rule().verdict(value) == "info"


def test_thresholds_are_merged_and_unknown_ones_refused():
    rules = {"share": Rule(0.5, 0.9), "run": Rule()}

    assert rules_for("c", rules, {"c": {"share": {"fail": 0.7}}}) == {"share": Rule(0.5, 0.7), "run": Rule()}
    assert rules_for("c", rules, {"c": {"share": None}}) == {"share": Rule(), "run": Rule()}
    assert rules_for("c", rules, {"c": None}) is None
    assert rules_for("c", rules, {"other": None}) == rules
    with pytest.raises(InvalidInputError, match="does not measure 'sahre'"):
        rules_for("c", rules, {"c": {"sahre": {"fail": 1}}})


def test_every_check_declares_what_it_measures_and_says_what_it_is_for(tmp_path):
    part = tmp_path / "part.jsonl"
    quality_report(dataset(tmp_path / "d", [good(1), good(2)]), evidence=part)

    for row in map(json.loads, part.read_text().splitlines()):
        assert row["metric"] in STANDARD_RULES[row["check"]], row
    assert all(len(check.title) > 20 for check in ALL_CHECKS.values())


def test_a_report_is_the_same_bytes_again_and_answers_by_check_episode_and_consumer(tmp_path):
    folder = dataset(tmp_path / "d", [good(1), good(2)])
    strict = {"training": {"length_outlier": {"frames": {"fail": 1_000}}}}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        part = tmp_path / f"{name}.jsonl"
        report = quality_report(folder, evidence=part, consumers=strict)
        write_bundle(tmp_path / name, [report], [part], {}, None, strict)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["evidence.parquet", "report.html", "report.json", "report.md"]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()

    table = tmp_path / "one" / "evidence.parquet"
    rows = evidence_of(table, check="length_outlier", episode="1")
    assert {row["metric"]: row["verdicts"]["training"] for row in rows}["frames"] == "fail"
    assert report["verdicts"] == {"training": "fail"}
    assert report["verdict"] == "pass"
    assert rows == evidence_of(table, check="length_outlier", episode=rows[0]["episodeSha256"])
    again = evidence_of(
        table, check="length_outlier", episode="1", consumers={"lax": {"length_outlier": None}}
    )
    assert {row["verdicts"]["lax"] for row in again} == {"not asked"}
    assert evidence_of(table, verdict="fail", limit=1)[0]["check"] == "length_outlier"


def test_a_page_is_drawn_of_rows_and_lets_no_name_become_markup(tmp_path):
    state, action = good(1)
    action[50] = 90.0
    part = tmp_path / "part.jsonl"
    name = "<script>alert(1)</script>"
    report = quality_report(
        dataset(tmp_path / "d", [(state, action), *map(good, range(5))]), name=name, evidence=part
    )
    write_bundle(tmp_path, [report], [part], {})

    page = (tmp_path / "report.html").read_text()

    assert page.count("<svg") > 3
    assert "<script" not in page
    assert "http" not in page
    assert "first jump" in page
    assert len(page) < 100_000
    assert render_page([], {}, STANDARD_RULES).startswith("<!doctype html>")


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=40), NUMBERS)
def test_any_numbers_can_be_drawn(values, warn):
    drawn = histogram("a: b", values, "s", Rule(warn))

    assert drawn == "" or (drawn.startswith("<svg") and "nan" not in drawn.lower())


@pytest.mark.parametrize(("step_ms", "severity"), [(10, "pass"), (300, "warn")])
def test_state_is_looked_for_beside_each_picture(step_ms, severity):
    check = ALL_CHECKS["sync_age"]()
    check.declared = check.resolved = 1
    pictures = np.arange(100, dtype=np.int64) * 33_000_000
    samples = np.arange(400, dtype=np.int64) * step_ms * 1_000_000

    check.beside(None, "/camera", "/joints", pictures, samples)

    found = check.result()
    assert found["severity"] == severity
    worst = max(min(abs(p - s) for s in samples.tolist()) for p in pictures.tolist()) / 1e6
    assert found["values"]["maxAgeMs"] == pytest.approx(worst)
