"""Quality in Dagster: checks with severity and coverage, reports that survive a refusal, evidence."""

import json
import subprocess

import dagster as dg
import h5py  # noqa: TID253 - this module is about files that these libraries write
import numpy as np  # noqa: TID253
import pytest

from emboflow_dagster import build_definitions
from emboflow_dagster.errors import NotFoundError
from emboflow_dagster.orchestration import keys
from emboflow_dagster.orchestration.catalog import catalog_of
from emboflow_dagster.orchestration.direct import execute_queued
from tests.acceptance.served import EMBOFLOW


@pytest.fixture
def demos(ef, tmp_path):
    """Three demonstrations; the last repeats one action for most of its length."""
    path = tmp_path / "demos.hdf5"
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for number in range(3):
            actions = rng.normal(size=(60, 3)).astype(np.float32)
            if number == 2:
                actions[5:] = actions[5]
            file[f"data/demo_{number}/actions"] = actions
            file[f"data/demo_{number}/states"] = np.cumsum(rng.normal(size=(60, 4)), axis=0)
    return ef.assets.register(path, type="hdf5_dataset", name="demos")


def flow(qc, *, publish=True):
    nodes = [
        {"id": "src", "type": "source"},
        {"id": "probe", "type": "probe", "after": ["src"]},
        {"id": "normalize", "type": "normalize", "after": ["probe"], "config": {"fps": 20}},
        {"id": "qc", "type": "quality-check", "after": ["normalize"], "config": qc},
    ]
    if publish:
        after = {"id": "publish", "type": "publish-dataset", "after": ["normalize", "qc"]}
        nodes.append({**after, "config": {"dataset": "lift"}})
    return {"workflow": "lift", "nodes": nodes}


def executed(ef, asset, file):
    ef.workflows.publish(file)
    return execute_queued(ef, ef.runs.request("lift", assets=[asset.id]).id)


def check(instance, place, name):
    asked = dg.AssetCheckKey(keys.artifact_key(place, "lift", "qc"), name)
    record = instance.event_log_storage.get_latest_asset_check_execution_by_key([asked]).get(asked)
    return record.event.dagster_event.event_specific_data if record else None


def test_each_check_has_a_severity_and_says_what_it_could_look_at(ef, demos, instance, place):
    run = executed(ef, demos, flow({"checks": ["nan_inf", "frozen_action", "video_freeze"]}))

    assert run.status == "success", [t.error_message for t in ef.runs.tasks(run)]
    good, warned, blind = (check(instance, place, n) for n in ("nan_inf", "frozen_action", "video_freeze"))
    assert good.passed
    assert (warned.passed, warned.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "frames repeat one action" in warned.metadata["places"].value
    coverage = [warned.metadata[name].value for name in ("declared", "resolved", "unresolved")]
    assert coverage == [3, 3, 0]
    # There is no camera: nothing was looked at, and that is not clean.
    assert (blind.passed, blind.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert (blind.metadata["resolved"].value, blind.metadata["unresolved"].value) == (0, 1)
    assert check(instance, place, "readable").passed
    assert check(instance, place, "jumps") is None

    # Executed from the page of its asset it shows the same again; no recording is read.
    job = build_definitions(catalog_of(ef)).resolve_implicit_global_asset_job_def()
    asked = {dg.AssetCheckKey(keys.artifact_key(place, "lift", "qc"), "frozen_action")}
    subset = job.get_subset(asset_selection=set(), asset_check_selection=asked)
    [shown] = subset.execute_in_process(instance=instance).get_asset_check_evaluations()
    assert (shown.check_name, shown.passed) == ("frozen_action", False)


def test_a_refused_input_keeps_its_report_and_turns_its_checks_red(ef, demos, instance, place):
    qc = {"checks": ["frozen_action"], "thresholds": {"frozen_action": {"longestShare": {"fail": 0.6}}}}
    run = executed(ef, demos, flow({**qc, "failOn": ["frozen_action"]}))

    assert run.status == "failed"
    task = ef.tasks.get(run.id, "qc")
    assert (task.status, task.output_artifact_ids) == ("failed", [])
    assert "frozen_action" in task.error_message
    [report] = ef.artifacts.of_task(task)
    assert (report.type, report.lineage.attempt) == ("quality_report", 1)
    assert report.summary["failedChecks"] == ["frozen_action"]
    assert ef.artifacts.evidence(report.id, verdict="fail")[0]["episode"] == "episode 2"
    red = check(instance, place, "frozen_action")
    assert (red.passed, red.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert ef.verify().ok

    # Once more, as a person would: the earlier report stays, the new one names its attempt.
    ef.runs.retry_tasks(run.id, ["qc"])
    execute_queued(ef, run.id)
    again = ef.tasks.get(run.id, "qc")
    assert again.attempt == 2
    assert [a.lineage.attempt for a in ef.artifacts.of_task(again)] == [2]
    assert len(ef.artifacts.list(producer_id=again.id)) == 2
    assert ef.verify().ok


def test_what_is_stored_answers_other_questions_without_the_recordings(ef, demos, instance, place):
    strict = {"training": {"frozen_action": {"longestShare": {"fail": 0.6}}}}
    digests = set()
    for title in ("one", "two"):
        file = flow({"consumers": strict})
        file["nodes"][3] |= {"title": title, "cache": "off"}
        run = executed(ef, demos, file)
        assert run.status == "success"
        [report] = ef.artifacts.of_task(ef.tasks.get(run.id, "qc"))
        digests.add(report.storage_ref.sha256)
    # Equal inputs and checks: the same bytes again, whatever the run is called.
    assert len(digests) == 1
    ef.assets.path = None  # nobody may ask for a recording's bytes from here on

    rows = ef.datasets.evidence("lift", check="frozen_action", episode="2")
    told = {row["metric"]: (row["verdict"], row["verdicts"]["training"]) for row in rows}
    assert told == {"longestShare": ("warn", "fail"), "longestRun": ("info", "info")}
    [episode] = [one for one in ef.datasets.episodes("lift") if one["episode"] == 2]
    assert rows[0]["episodeSha256"] == episode["content"]
    assert rows == ef.datasets.evidence("lift", check="frozen_action", episode=episode["content"])

    lenient = {
        "standard": {"frozen_action": {"longestShare": {"warn": 1.0}}},
        "other": {"frozen_action": None},
    }
    [row] = [
        row
        for row in ef.datasets.evidence("lift", check="frozen_action", episode="2", consumers=lenient)
        if row["metric"] == "longestShare"
    ]
    assert (row["verdict"], row["verdicts"]) == ("pass", {"other": "not asked"})

    command = [
        EMBOFLOW,
        "--json",
        "dataset",
        "evidence",
        "lift",
        "--check",
        "frozen_action",
        "--episode",
        "2",
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(told) == rows
    with pytest.raises(NotFoundError):
        ef.artifacts.evidence("art_" + "0" * 26)
