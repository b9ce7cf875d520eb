"""The `python` node: users' code in a real child process."""

import json
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import Any

import pytest

from emboflow_dagster.errors import ErrorKind, ExecutionError, LimitError
from emboflow_dagster.model.artifact import Artifact, Lineage, ProducerType
from emboflow_dagster.model.asset import Asset, AssetProbeReport, AssetSourceType, AssetStatus, AssetType
from emboflow_dagster.model.base import new_id, utc_now
from emboflow_dagster.model.run import RunTask, TaskStatus
from emboflow_dagster.model.storage import StorageRef
from emboflow_dagster.model.workflow import CodeHook
from emboflow_dagster.runtime.child import child_call
from emboflow_dagster.runtime.node import BoundAsset, NodeContext, NodeInput, NodeResult
from emboflow_dagster.runtime.nodes.python import NODE

Ran = SimpleNamespace


def storage_ref(path: Path, content_type: str = "application/json") -> StorageRef:
    key = f"sha256/{'0' * 64}"
    return StorageRef(
        bucket="local",
        key=key,
        uri=f"file:///store/{key}",
        checksum="sha256:" + "0" * 64,
        content_type=content_type,
        size=path.stat().st_size,
    )


def bound(path: Path) -> BoundAsset:
    asset = Asset.checked(
        id=new_id("ast"),
        workspace_id="ws_1",
        project_id="prj_1",
        type=AssetType.RAW_FILE,
        source_type=AssetSourceType.REGISTERED_PATH,
        display_name=path.name,
        status=AssetStatus.READY,
        storage_ref=storage_ref(path),
        size_bytes=path.stat().st_size,
        file_count=1,
        created_by="ada",
        created_at=utc_now(),
        updated_at=utc_now(),
    )
    report = AssetProbeReport.checked(
        id=new_id("prb"),
        asset_id=asset.id,
        report_version=1,
        detected_format_candidates=[{"format": "csv", "confidence": 0.9}],
        structure_summary={"rows": 2},
        raw_report={},
        created_at=utc_now(),
    )
    return BoundAsset(asset, report, path)


def upstream(path: Path, kind: str = "intermediate_task_output") -> NodeInput:
    artifact = Artifact.checked(
        id=new_id("art"),
        workspace_id="ws_1",
        project_id="prj_1",
        type=kind,
        producer_type=ProducerType.RUN_TASK,
        producer_id="tsk_1",
        storage_ref=storage_ref(path),
        summary={"rows": 2},
        lineage=Lineage(),
        created_by="ada",
        created_at=utc_now(),
    )
    return NodeInput("before", "python", ("ast_1",), (artifact,), {"n": 3}, lambda _: path)


@pytest.fixture
def hook(tmp_path: Path) -> Callable[..., SimpleNamespace]:
    """Runs a source; what came out and what was said."""

    def run(
        source: str,
        config: dict[str, Any] | None = None,
        *,
        assets: tuple[BoundAsset, ...] = (),
        inputs: dict[str, NodeInput] | None = None,
        artifact_type: str | None = None,
    ) -> SimpleNamespace:
        workdir = tmp_path / "work"
        workdir.mkdir(exist_ok=True)
        said = SimpleNamespace(out=[], err=[], log=[], result=None, error=None, workdir=workdir)
        task = RunTask.checked(
            id=new_id("tsk"),
            workflow_run_id="run_1",
            workflow_version_id="wfv_1",
            node_id="mine",
            node_type="python",
            code_hook_spec=CodeHook(entrypoint="go", source=dedent(source)),
            artifact_type=artifact_type,
            status=TaskStatus.RUNNING,
            asset_ids=[],
            created_at=utc_now(),
        )
        context = NodeContext(
            task=task,
            workflow_slug="wf",
            workflow_version=1,
            assets=assets,
            options=NODE.options.model_validate(config or {}),
            inputs=inputs or {},
            workdir=workdir,
            log=said.log.append,
            child=child_call(
                workdir, on_stdout=said.out.append, on_stderr=said.err.append, on_log=said.log.append
            ),
            out=said.out.append,
            err=said.err.append,
        )
        try:
            said.result = NODE.run(context)
        except ExecutionError as error:
            said.error = error
        return said

    return run


def kept(ran: SimpleNamespace) -> Any:
    assert ran.error is None, (ran.error, ran.err)
    result: NodeResult = ran.result
    (output,) = result.outputs
    return output


def test_a_hook_sees_assets_config_and_inputs(hook, tmp_path) -> None:
    data = tmp_path / "a.csv"
    data.write_text("x,y\n1,2\n3,4\n")
    before = tmp_path / "before.json"
    before.write_text('{"hello": [1, 2]}')

    ran = hook(
        """
        def go(ctx, inputs):
            ctx.log("working on " + ctx.assets[0].name)
            return {
                "asset": [ctx.assets[0].name, ctx.assets[0].format, ctx.assets[0].report["structureSummary"]],
                "bytes": len(ctx.assets[0].path.read_bytes()),
                "config": ctx.config,
                "upstream": inputs["before"].json(),
                "preview": inputs["before"].preview,
                "summary": inputs["before"]["intermediate_task_output"].summary,
                "ids": inputs["before"].asset_ids,
                "workdir": str(ctx.workdir),
            }
        """,
        {"threshold": 0.5, "nested": {"a": [1]}, "memoryMb": 900},
        assets=(bound(data),),
        inputs={"before": upstream(before)},
    )

    output = kept(ran)
    found = json.loads(output.payload.read_text())
    assert found == {
        "asset": ["a.csv", "csv", {"rows": 2}],
        "bytes": 12,
        "config": {"threshold": 0.5, "nested": {"a": [1]}},
        "upstream": {"hello": [1, 2]},
        "preview": {"n": 3},
        "summary": {"rows": 2},
        "ids": ["ast_1"],
        "workdir": str(ran.workdir),
    }
    assert ran.result.preview == found
    assert ran.log == ["working on a.csv"]
    assert output.type == "intermediate_task_output"
    assert output.content_type == "application/json"


def test_lines_go_where_they_were_written(hook) -> None:
    ran = hook("""
        import sys
        def go(ctx, inputs):
            for i in range(3): print("out", i)
            print("err 1", file=sys.stderr); print("err 2", file=sys.stderr)
    """)

    assert ran.out == ["out 0", "out 1", "out 2"]
    assert ran.err == ["err 1", "err 2"]
    assert json.loads(kept(ran).payload.read_text()) is None


def test_a_table_becomes_parquet(hook) -> None:
    import pandas as pd

    ran = hook(
        """
        import pandas as pd
        def go(ctx, inputs):
            return pd.DataFrame({"t": pd.date_range("2026-01-01", periods=30, tz="UTC"), "v": range(30)})
        """,
        artifact_type="features",
    )

    output = kept(ran)
    frame = pd.read_parquet(output.payload)
    assert list(frame["v"]) == list(range(30))
    assert output.type == "features"
    assert output.content_type == "application/vnd.apache.parquet"
    assert output.summary["rows"] == 30
    assert output.summary["columns"] == ["t", "v"]
    assert len(ran.result.preview["head"]) == 10


def test_a_table_of_the_node_before_can_be_read(hook, tmp_path) -> None:
    import pandas as pd

    path = tmp_path / "up.parquet"
    pd.DataFrame({"v": [1, 2, 3]}).to_parquet(path)

    ran = hook(
        "def go(ctx, inputs):\n    return int(inputs['before'].dataframe()['v'].sum())",
        inputs={"before": upstream(path)},
    )

    assert json.loads(kept(ran).payload.read_text()) == 6


def test_numbers_of_numpy_are_json(hook) -> None:
    ran = hook("""
        import numpy as np
        def go(ctx, inputs):
            return {"mean": np.float32(0.5), "n": np.int64(3), "rows": np.arange(4).reshape(2, 2)}
    """)

    assert json.loads(kept(ran).payload.read_text()) == {"mean": 0.5, "n": 3, "rows": [[0, 1], [2, 3]]}


def test_bytes_and_paths_are_kept(hook) -> None:
    raw = hook("def go(ctx, inputs):\n    return b'\\x00\\xff'")
    file = hook("def go(ctx, inputs):\n    p = ctx.workdir / 'a.csv'\n    p.write_text('x')\n    return p")
    folder = hook("""
        from pathlib import Path
        def go(ctx, inputs):
            (ctx.workdir / "out" / "deep").mkdir(parents=True)
            (ctx.workdir / "out" / "deep" / "x.bin").write_bytes(b"123")
            return Path("out")
    """)

    assert kept(raw).payload.read_bytes() == b"\x00\xff"
    assert kept(file).content_type == "text/csv"
    assert (kept(folder).payload / "deep" / "x.bin").read_bytes() == b"123"
    assert kept(folder).summary == {"kind": "path", "files": 1, "bytes": 3}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("from pathlib import Path\ndef go(c, i): return Path('/etc/passwd')", "not inside"),
        ("def go(c, i): return c.workdir / '..' / 'x'", "not inside"),
        ("def go(c, i): return c.workdir", "not inside"),
        ("def go(c, i): return c.workdir / 'absent'", "no file or folder"),
        ("def go(c, i):\n p = c.workdir / 'l'\n p.symlink_to('/etc/passwd')\n return p", "not inside"),
        (
            "def go(c, i):\n d = c.workdir / 'd'\n d.mkdir()\n (d / 'l').symlink_to('/etc')\n return d",
            "a link or special file",
        ),
        ("def go(c, i): return {1, 2}", "set is no JSON value"),
        ("def go(c, i): return float('nan')", "not JSON compliant"),
        ("def go(c, i): return object()", "object is no JSON value"),
    ],
)
def test_what_cannot_be_kept_is_refused(hook, source, words) -> None:
    ran = hook(source)

    assert words in ran.error.message


def test_an_exception_names_its_line_and_leaves_its_traceback(hook) -> None:
    ran = hook("""
        def helper(n):
            raise ValueError(f"found {n}")

        def go(ctx, inputs):
            return helper(3)
    """)

    assert ran.error.message == "ValueError: found 3 (line 3 of the hook)"
    assert ran.error.kind is ErrorKind.NODE_FAILED
    assert ran.err[0] == "Traceback (most recent call last):"
    assert any('File "hook", line 6, in go' in line for line in ran.err)
    assert any("return helper(3)" in line for line in ran.err)
    assert ran.err[-1] == "ValueError: found 3"
    assert not any("emboflow_dagster" in line for line in ran.err)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def go(ctx, inputs:\n    pass", "SyntaxError"),
        (
            "import no_such_module_x\ndef go(c, i): pass",
            "No module named 'no_such_module_x' (line 1 of the hook)",
        ),
        ("def other(c, i): pass", "no function 'go'; it has: other"),
        ("import sys\ndef go(c, i): sys.exit(3)", "SystemExit: 3 (line 2 of the hook)"),
        ("def go(c): pass", "takes 1 positional argument"),
        ("def go(c, i): return i['nope']", "no upstream node 'nope'; upstream are: none"),
        ("import ctypes\ndef go(c, i): ctypes.string_at(0)", "SIGSEGV"),
        ("import os\ndef go(c, i): os._exit(0)", "exit code 0 and no result"),
    ],
)
def test_failures_say_what_happened(hook, source, message) -> None:
    ran = hook(source)

    assert message in ran.error.message


def test_a_hook_is_held_to_its_limits(hook) -> None:
    memory = hook("def go(c, i): return len(bytearray(800 << 20))", {"limits": {"memoryMb": 400}})
    enough = hook("def go(c, i): return len(bytearray(800 << 20))", {"limits": {"memoryMb": 1500}})
    wall = hook("import time\ndef go(c, i):\n  print('here')\n  time.sleep(60)", {"timeoutSeconds": 1})
    processor = hook("def go(c, i):\n  while True: pass", {"limits": {"cpuSeconds": 1}})

    assert memory.error.kind is ErrorKind.LIMIT_MEMORY
    assert json.loads(kept(enough).payload.read_text()) == 800 << 20
    assert wall.error.kind is processor.error.kind is ErrorKind.LIMIT_TIME
    assert isinstance(wall.error, LimitError)
    assert wall.out == ["here"]  # what it said before it was stopped is there


def test_a_hook_sees_no_secret_and_no_stdin(hook, monkeypatch) -> None:
    monkeypatch.setenv("EMBOFLOW_SECRET_CANARY", "canary-77ab")
    source = """
        import os, sys
        def go(ctx, inputs):
            seen = {"env": dict(os.environ), "argv": sys.argv, "x": ctx.config.get("x")}
            return {"stdin": sys.stdin.read(), **seen}
    """

    found = kept(hook(source)).payload.read_text()
    control = kept(hook(source, {"x": "canary-77ab"})).payload.read_text()

    assert "canary-77ab" not in found
    assert "canary-77ab" in control
    assert json.loads(found)["stdin"] == ""


def test_numerical_libraries_fit_into_the_default_memory(hook) -> None:
    ran = hook("""
        import numpy as np, pandas as pd
        import pyarrow.parquet
        def go(ctx, inputs):
            a = np.random.default_rng(0).normal(size=(500, 500))
            return float((a @ a).shape[0])
    """)

    assert json.loads(kept(ran).payload.read_text()) == 500.0


def test_a_large_or_odd_result_has_a_bounded_preview(hook) -> None:
    large = hook("def go(c, i): return {'x': 'y' * 200_000}")
    odd = hook("def go(c, i): return {'$where': 1}")
    plain = hook("def go(c, i): return [1, 2]")

    assert large.result.preview == {"kind": "json", "bytes": 200_009}
    assert odd.result.preview["kind"] == "json"
    assert plain.result.preview == {"value": [1, 2]}
