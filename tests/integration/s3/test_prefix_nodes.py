"""Nodes over a prefix of a bucket read what a folder of the same files gives, and leave nothing behind."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.errors import EmboflowError, ErrorKind
from emboflow_dagster.model.asset import AssetSourceType, AssetType
from emboflow_dagster.object_storage.prefix import Prefix
from emboflow_dagster.project.handle import EmboFlow
from emboflow_dagster.project.settings import Settings
from tests import mutant_files
from tests.integration.s3.proxy import CutError, Exchange, Fault

HOOK = """
def names(ctx, inputs):
    import hashlib
    [asset] = ctx.assets
    files = sorted(p for p in asset.path.rglob("*") if p.is_file())
    return {p.relative_to(asset.path).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
"""
NODES: list[dict[str, Any]] = [
    {"id": "src", "type": "source"},
    {"id": "look", "type": "probe", "after": ["src"]},
    {"id": "check", "type": "quality-report", "after": ["look"]},
    {"id": "episodes", "type": "normalize", "after": ["look"], "config": {"fps": 20}},
    {"id": "publish", "type": "publish-dataset", "after": ["episodes"], "config": {"dataset": "lifts"}},
]


@pytest.fixture
def lake(s3_server: Any, bucket: str, tmp_path: Path) -> dict[str, bytes]:
    """Two files of demonstrations, under two folders."""
    made: dict[str, bytes] = {}
    for day in ("mon", "tue"):
        (tmp_path / day).mkdir()
        mutant_files.hdf5(tmp_path / day)
        made[f"{day}/a.hdf5"] = (tmp_path / day / "a.hdf5").read_bytes()
    for name, data in made.items():
        s3_server.client.put_object(Bucket=bucket, Key=f"lake/{name}", Body=data)
    return made


def ran(ef: EmboFlow, nodes: list[dict[str, Any]], asset: str) -> dict[str, Any]:
    """The tasks of a run, by node."""
    ef.workflows.publish({"workflow": "over-a-lake", "nodes": nodes})
    run = ef.workflows.run("over-a-lake", assets=[asset])
    ef.runs.work(run.id)
    return {task.node_id: task for task in ef.runs.tasks(ef.runs.get(run.id))}


def hooked(ef: EmboFlow, asset: str) -> Any:
    code = {"language": "python", "entrypoint": "names", "source": HOOK}
    nodes = [NODES[0], {"id": "code", "type": "python", "after": ["src"], "codeHook": code}]
    return ran(ef, nodes, asset)["code"]


def refused(ef: EmboFlow, asset: Any) -> EmboflowError:
    with pytest.raises(EmboflowError) as said, ef.assets.path(asset):
        pass
    return said.value


def nothing_left(ef: EmboFlow) -> bool:
    return not list((ef.settings.home / "work").glob("asset-*"))


def test_a_workflow_goes_over_a_prefix_as_over_a_folder(ef, bucket, lake, proxy, monkeypatch, tmp_path):
    got: list[str] = []
    proxy.faults.append(Fault("GetObject", times=10**6, after=lambda exchange: got.append(exchange.path)))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
    ef.assets.register(f"s3://{bucket}/lake", type="object_storage_prefix", name="lake")

    tasks = ran(ef, NODES, "lake")

    assert {name: (t.status.value, t.error_message) for name, t in tasks.items()} == dict.fromkeys(
        tasks, ("success", None)
    )
    assert tasks["look"].last_result_preview["formats"] == [{"format": "hdf5_robomimic", "count": 1}]
    (report,) = ef.assets.latest_reports([ef.assets.get("lake").id]).values()
    assert report.raw_report["kind"] == "prefix"  # the probe node looked there, and brought nothing
    episodes = list(ef.datasets.episodes("lifts"))
    assert [e["source"]["path"] for e in episodes] == ["mon/a.hdf5"] * 2 + ["tue/a.hdf5"] * 2
    assert ef.verify(all=True).problems == []
    assert nothing_left(ef)


def test_every_object_is_there_byte_for_byte(ef, bucket, lake):
    ef.assets.register(f"s3://{bucket}/lake/", type="object_storage_prefix", name="lake")

    task = hooked(ef, "lake")

    assert task.last_result_preview == {name: hashlib.sha256(data).hexdigest() for name, data in lake.items()}
    assert nothing_left(ef)


def test_the_name_of_one_object_is_a_file(ef, bucket, lake):
    asset = ef.assets.register(f"s3://{bucket}/lake/mon/a.hdf5", type="object_storage_prefix", name="one")

    with ef.assets.path(asset) as path:
        assert (path.name, path.read_bytes()) == ("a.hdf5", lake["mon/a.hdf5"])


@pytest.mark.parametrize("what", ["replaced", "gone"])
def test_an_object_that_changed_is_told(ef, s3_server, bucket, lake, what):
    ef.assets.register(f"s3://{bucket}/lake", type="object_storage_prefix", name="lake")
    ef.assets.probe("lake")
    if what == "gone":
        s3_server.client.delete_object(Bucket=bucket, Key="lake/tue/a.hdf5")
    else:  # as large as it was
        s3_server.client.put_object(Bucket=bucket, Key="lake/tue/a.hdf5", Body=bytes(len(lake["tue/a.hdf5"])))

    task = hooked(ef, "lake")

    assert task.status.value == "failed"
    assert {"gone": "is gone since", "replaced": "changed since"}[what] in task.error_message
    assert "tue/a.hdf5" in task.error_message
    assert nothing_left(ef)


def test_what_breaks_off_goes_on_and_what_is_altered_is_refused(ef, s3_server, bucket, proxy, monkeypatch):
    data = bytes(range(256)) * 16_384
    s3_server.client.put_object(Bucket=bucket, Key="lake/big.bin", Body=data)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
    asset = ef.assets.register(f"s3://{bucket}/lake", type="object_storage_prefix", name="lake")
    proxy.faults.append(Fault("GetObject", times=2, send=_cut))
    with ef.assets.path(asset) as path:
        assert (path / "big.bin").read_bytes() == data

    proxy.faults.append(Fault("GetObject", times=2, after=_flip))
    assert refused(ef, asset).kind is ErrorKind.HASH_MISMATCH
    with ef.assets.path(asset) as path:  # and altered once on the way, it is asked for again
        assert path.is_dir()
    assert nothing_left(ef)


def _cut(stream: Any, body: bytes) -> None:
    stream.write(body[: len(body) // 2])
    raise CutError


def _flip(exchange: Exchange) -> None:
    exchange.reply = exchange.reply[:-1] + bytes([exchange.reply[-1] ^ 1])


def test_bounds_and_names_that_are_no_files(ef, s3_server, bucket, settings):
    put = s3_server.client.put_object
    put(Bucket=bucket, Key="lake/a.bin", Body=bytes(1000))
    asset = ef.assets.register(f"s3://{bucket}/lake", type="object_storage_prefix", name="large")
    small = Settings.from_env(**{**_fields(settings), "prefix_max_bytes": 999})
    with EmboFlow.open(small) as handle:
        said = refused(handle, asset)
    assert "1000 bytes" in said.message
    assert said.kind is ErrorKind.LIMIT_SIZE
    for number, key in enumerate(("x/../../evil", "x//y", "a.bin/below", "x/\u202ecod", "x/" + "n" * 256)):
        put(Bucket=bucket, Key=f"bad{number}/{key}", Body=b"x")
        put(Bucket=bucket, Key=f"bad{number}/a.bin", Body=b"x")
        asset = ef.assets.register(f"s3://{bucket}/bad{number}", type="object_storage_prefix")
        assert refused(ef, asset).kind in (ErrorKind.PATH_TRAVERSAL, ErrorKind.PATH_SEGMENT)
    assert nothing_left(ef)


def _fields(settings: Settings) -> dict[str, Any]:
    names = ("home", "mongo_uri", "database", "object_store", "workspace", "project", "actor")
    return {name: getattr(settings, name) for name in names}


def test_any_number_of_objects_is_compared_in_bounded_memory(ef, monkeypatch):
    """The listing goes by: what is in memory does not grow with it."""
    import tracemalloc

    from emboflow_dagster.object_storage.prefix import Listed
    from emboflow_dagster.project import prefixes

    class Many(Prefix):
        def objects(self) -> Iterator[Listed]:
            return (Listed(f"d{n // 1000:03d}/{n:06d}.bin", n, f"{n:032x}") for n in range(20_000))

    taken = prefixes.take_prefix(ef.blobs, "s3://some-lake/many", make=Many)
    assert (taken.files, taken.size) == (20_000, sum(range(20_000)))
    asset = ef.assets._record(
        taken,
        AssetType.OBJECT_STORAGE_PREFIX,
        "s3://some-lake/many",
        "many",
        of=AssetSourceType.OBJECT_STORAGE,
    )
    tracemalloc.start()
    try:
        report = prefixes.probe_prefix(
            ef.blobs,
            asset,
            make=Many,
            child=lambda *_a, **_k: {"warnings": [], "counts": _a[2]},
            timeout_s=9,
            memory_mb=512,
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (report["warnings"], report["counts"]["files"]) == ([], 20_000)
    assert peak < 4 << 20
