"""The container node on a real daemon: what it may do, what it is given, what becomes of what it leaves."""

import json
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.errors import ConfigurationError, EmboflowError
from emboflow_dagster.model.run import RunTask
from emboflow_dagster.project.handle import EmboFlow
from tests import docker_engine


def workflow(command: list[str], image: str = docker_engine.BASE, **config: Any) -> dict[str, Any]:
    return {
        "workflow": "boxed",
        "nodes": [
            {"id": "src", "type": "source"},
            {
                "id": "box",
                "type": "container",
                "after": ["src"],
                "config": {"image": image, "command": command, **config},
            },
        ],
    }


def run(ef: EmboFlow, file: Path, command: list[str], **config: Any) -> RunTask:
    ef.workflows.publish(workflow(command, **config))
    asset = ef.assets.register(file, type="raw_file")
    requested = ef.runs.request("boxed", assets=[asset.id])
    ef.runs.work(requested.id)
    assert ef.verify().problems == []
    return ef.tasks.get(requested.id, "box")


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def printed(ef: EmboFlow, task: RunTask, stream: str = "stdout") -> list[str]:
    return list(task.stdout_lines if stream == "stdout" else task.stderr_lines)


REPORT = "echo '{\"ok\": true}' > /out/report.json"


def test_an_image_works_on_its_inputs_and_leaves_a_report(
    docker_client: Any, ef: EmboFlow, asset_file: Path, tmp_path: Path
) -> None:
    script = (
        "import json; index = json.load(open('/in/index.json')); a = index['assets'][0];"
        "text = open('/in/' + a['path']).read(); print('read', len(text));"
        "json.dump({'name': a['name'], 'text': text}, open('/out/report.json', 'w'))"
    )
    task = run(ef, asset_file, ["python3", "-c", script])

    assert (task.status.value, task.error_message) == ("success", None)
    assert task.stdout_lines == ["read 12"]
    [artifact] = ef.artifacts.of_task(task)
    assert (artifact.type, artifact.storage_ref.content_type) == (
        "intermediate_task_output",
        "application/json",
    )
    report = json.loads(ef.artifacts.fetch(artifact, tmp_path / "report.json").read_text())
    assert report == {"name": "rows.csv", "text": asset_file.read_text()}
    pinned = docker_client.images.get(docker_engine.BASE).id
    assert artifact.summary is not None
    assert task.executor_config is not None
    assert artifact.summary["imageDigest"] == task.executor_config["imageDigest"] == pinned
    assert task.summary is not None
    assert task.summary.executor == "docker"


def test_it_can_do_nothing_else(docker_client: Any, ef: EmboFlow, asset_file: Path) -> None:
    probes = {
        "root": "touch /x",
        "inputs": "touch /in/index.json",
        "new input": "touch /in/x",
        "usr": "touch /bin/x",
    }
    tried = "; ".join(f"({probe}) 2>/dev/null && echo 'could: {name}'" for name, probe in probes.items())
    script = f"{tried}; id -u; cat /proc/net/dev | cat; cat /proc/self/status; {REPORT}"
    task = run(ef, asset_file, sh(script))

    assert task.status.value == "success", task.error_message
    lines = printed(ef, task)
    assert [line for line in lines if line.startswith("could")] == []
    assert lines[0] == "65534"
    devices = [line.partition(":")[0].strip() for line in lines if ":" in line and "\t" not in line]
    assert [name for name in devices if name.startswith(("eth", "lo", "docker"))] == ["lo"]
    status = {k: v.strip() for k, _, v in (line.partition(":") for line in lines)}
    assert (status["CapEff"], status["NoNewPrivs"]) == ("0" * 16, "1")


@pytest.mark.parametrize(
    ("script", "config", "field"),
    [
        ("true", {}, "contract.output: /out/report.json is missing"),
        ("echo no > /out/report.json", {}, "contract.output: /out/report.json is not JSON"),
        (
            "mkdir /out/report.json",
            {},
            "contract.output: /out/report.json is a folder; the contract says json",
        ),
        (f"{REPORT}; echo x > /out/model.bin", {}, "contract: /out/model.bin is not in it"),
        ("ln -s /etc/passwd /out/report.json", {}, "contract: /out/report.json is a link or special file"),
        (
            "echo x > /out/frames",
            {"contract": {"output": "/out/frames/"}},
            "contract.output: /out/frames is a file",
        ),
        (
            "echo x > /out/x",
            {"contract": {"output": None}},
            "contract: /out/x is not in it; allowed is nothing",
        ),
    ],
)
def test_what_breaks_the_contract_fails_the_task_and_nothing_is_stored(
    docker_client: Any, ef: EmboFlow, asset_file: Path, script: str, config: dict[str, Any], field: str
) -> None:
    before = ef.mongo["objects"].count_documents({"type": "artifact"})
    task = run(ef, asset_file, sh(script), **config)

    assert task.status.value == "failed"
    assert field in (task.error_message or "")
    assert task.output_artifact_ids == []
    assert ef.artifacts.list() == []
    assert ef.mongo["objects"].count_documents({"type": "artifact"}) == before


def test_a_folder_can_be_the_output(
    docker_client: Any, ef: EmboFlow, asset_file: Path, tmp_path: Path
) -> None:
    script = "mkdir -p /out/frames/a; echo 1 > /out/frames/a/x; echo 22 > /out/frames/y"
    task = run(ef, asset_file, sh(script), contract={"output": "/out/frames/"})

    [artifact] = ef.artifacts.of_task(task)
    folder = ef.artifacts.fetch(artifact, tmp_path / "frames")
    assert {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()} == {
        "a/x": "1\n",
        "y": "22\n",
    }


@pytest.mark.parametrize(
    ("script", "config", "said"),
    [
        ("echo broken part >&2; exit 3", {}, "exit code 3: broken part"),
        ("sleep 60", {"timeoutSeconds": 1}, "stopped after 1 s of wall-clock time"),
        (
            "dd if=/dev/zero of=/out/report.json bs=1M count=9 2>/dev/null; sleep 60",
            {"maxOutputMb": 4},
            "more than 4 MiB",
        ),
        ("python3 -c 'x = bytearray(200 << 20)'", {"memoryMb": 64}, "more than 64 MiB of memory"),
    ],
)
def test_how_it_ends_is_the_error(
    docker_client: Any, ef: EmboFlow, asset_file: Path, script: str, config: dict[str, Any], said: str
) -> None:
    task = run(ef, asset_file, sh(script), **config)

    assert task.status.value == "failed"
    assert said in (task.error_message or "")
    if "exit 3" in script:
        assert task.stderr_lines == ["broken part"]


def test_a_run_stays_with_the_image_that_its_name_meant_when_it_was_requested(
    docker_client: Any, ef: EmboFlow, asset_file: Path
) -> None:
    first = docker_engine.image(docker_client, "team/said:1", "ENV WORD=first")
    config = workflow(sh('echo "{\\"word\\": \\"$WORD\\"}" > /out/report.json'), "team/said:1")
    ef.workflows.publish(config)
    asset = ef.assets.register(asset_file, type="raw_file")
    requested = ef.runs.request("boxed", assets=[asset.id])
    docker_engine.image(docker_client, "team/said:1", "ENV WORD=second")
    later = ef.runs.request("boxed", assets=[asset.id])
    again = ef.runs.request("boxed", assets=[asset.id])

    words, hits = [], []
    for one in (requested, later, again):
        ef.runs.work(one.id)
        task = ef.tasks.get(one.id, "box")
        words.append((task.last_result_preview or {}).get("value"))
        hits.append(task.cache_hit)
    assert words == [{"word": "first"}, {"word": "second"}, {"word": "second"}]
    assert hits == [False, False, True]
    assert ef.runs.get(requested.id).to_json()["runtimeSnapshot"]["runtimeGraph"]["nodeConfigs"]["box"][
        "image"
    ]
    assert (ef.tasks.get(requested.id, "box").executor_config or {})["imageDigest"] == first


def test_no_daemon_and_no_image_are_said_when_the_run_is_requested(
    ef: EmboFlow, asset_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    ef.workflows.publish(workflow(["true"]))
    asset = ef.assets.register(asset_file, type="raw_file")

    with pytest.raises(ConfigurationError, match="no Docker daemon answers at unix:///nowhere") as caught:
        ef.runs.request("boxed", assets=[asset.id])
    assert caught.value.kind.value == "container-engine"
    assert "DOCKER_HOST" in (caught.value.hint or "")
    assert ef.runs.list() == []


def test_an_image_that_is_not_here(docker_client: Any, ef: EmboFlow, asset_file: Path) -> None:
    ef.workflows.publish(workflow(["true"], "nobody/nothing:9"))
    asset = ef.assets.register(asset_file, type="raw_file")

    with pytest.raises(EmboflowError, match="nobody/nothing:9") as caught:
        ef.runs.request("boxed", assets=[asset.id])
    assert caught.value.kind.value == "image-missing"
