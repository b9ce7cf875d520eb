"""The shared corpus of bad inputs through the public calls: refused by code, nothing written."""

import json
import os
import runpy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from emboflow_dagster import BlobIOManager, BlobRef, Create, MongoResource, ObjectStoreResource
from emboflow_dagster.blobs.listing import restore
from emboflow_dagster.errors import EmboflowError, IntegrityError, InvalidInputError
from emboflow_dagster.model.collections import COLLECTIONS
from emboflow_dagster.model.storage import LISTING_TYPE
from emboflow_dagster.project.handle import EmboFlow

CORPUS = Path(os.environ.get("EMBOFLOW_CORPUS") or Path(__file__).parents[3].parent / "shared" / "corpus")
FILE = CORPUS / "bad_inputs.jsonl"
CATEGORIES = (
    "1 free-form dicts",
    "3 ids, slugs, names, versions, hashes",
    "4 paths and storage refs",
    "7 serialised payloads",
    "12 secrets",
)
ROWS = (
    [row for row in map(json.loads, FILE.read_text("utf-8").splitlines()) if row["category"] in CATEGORIES]
    if FILE.exists()
    else []
)
SHA = f"sha256:{'ab' * 32}"
PICKLE = "acme.pick-place.stored"


@dataclass
class Place:
    """A project with a blob, an announced upload and an annotation task."""

    ef: EmboFlow
    folder: Path
    blob: str
    upload: str
    task: str

    def annotation(self, **fields: Any) -> object:
        given = {"annotationTaskId": self.task, "targetRef": {"id": "ast_1"}, "payload": {}, **fields}
        return self.ef.cud([Create("annotations", given)])

    def asset(self, **fields: Any) -> object:
        ref = BlobRef(object_id=self.blob, version=0)
        given = {"type": "raw_file", "displayName": "rows", "storageRef": ref, **fields}
        return self.ef.cud([Create("assets", given)])

    def node(self, **fields: Any) -> object:
        given = {
            "definitionId": "custom:a",
            "name": "a",
            "slug": "a",
            "category": "transform",
            "contract": {},
            "source": {"kind": "docker_image", "image": f"node@{SHA}"},
            **fields,
        }
        return self.ef.cud([Create("custom_nodes", given)])

    def connection(self, **fields: Any) -> object:
        given = {"type": "object_storage", "provider": "s3", "name": "S", **fields}
        return self.ef.cud([Create("storage_connections", given)])

    def workflow(self, text: str) -> object:
        path = self.folder / "flow.yaml"
        path.write_text(text, encoding="utf-8")
        return self.ef.workflows.publish(path)

    def unpickled(self, content: bytes) -> object:
        """Loaded by the IO manager of a deployment that allows another type."""
        settings = self.ef.settings
        self.ef.blobs.put(content, object_id=PICKLE, content_type="application/x-python-pickle")
        manager = BlobIOManager(
            mongo=MongoResource(uri=settings.mongo_uri, database=settings.database, home=str(settings.home)),
            object_store=ObjectStoreResource(url=settings.object_store),
            workspace=settings.workspace,
            project=settings.project,
            allow_pickle=["datetime.date"],
        ).create_io_manager(None)
        key = dg.AssetKey("stored")
        try:
            return manager.load_input(dg.build_input_context(asset_key=key, name="stored"))
        except dg.Failure as failure:
            raise failure.__cause__ or failure from None


#: Name to target and the public call that takes such a value.
CALLS: dict[str, tuple[str, Callable[[Place, Any], object]]] = {
    "annotation payload": ("freeform", lambda at, value: at.annotation(payload=value)),
    "annotation selector": ("freeform", lambda at, v: at.annotation(targetRef={"id": "a", "selector": v})),
    "connection config": ("freeform", lambda at, value: at.connection(config=value)),
    "put metadata": ("freeform", lambda at, value: at.ef.blobs.put(b"x", custom_metadata=value)),
    "save metadata": ("freeform", lambda at, v: at.ef.blobs.save_or_update_object(b"x", custom_metadata=v)),
    "updated metadata": (
        "freeform",
        lambda at, value: at.ef.blobs.update_object_metadata(at.blob, custom_metadata=value),
    ),
    "put": ("object_id", lambda at, value: at.ef.blobs.put(b"x", object_id=value)),
    "get": ("object_id", lambda at, value: at.ef.blobs.get(value)),
    "history": ("object_id", lambda at, value: at.ef.blobs.history(value)),
    "own": ("object_id", lambda at, value: at.asset(storageRef={"objectId": value, "version": 0})),
    "transfer": (
        "object_id",
        lambda at, value: at.ef.blobs.transfer(value, to=("assets", "a", "storageRef")),
    ),
    "release": ("object_id", lambda at, value: at.ef.blobs.release(value)),
    "withdraw": ("object_id", lambda at, value: at.ef.blobs.withdraw(value, reason="none")),
    "why kept": ("object_id", lambda at, value: at.ef.blobs.why_kept(value, 0)),
    "Flowcept's get": ("object_id", lambda at, value: at.ef.blobs.get_blob_object(value)),
    "upload": ("object_id", lambda at, value: at.ef.blobs.upload(value, b"x")),
    "dataset": ("slug", lambda at, value: at.ef.datasets.create(value, type="canonical")),
    "node slug": ("slug", lambda at, value: at.node(slug=value)),
    "node name": ("name", lambda at, value: at.node(name=value)),
    "asset name": ("name", lambda at, value: at.asset(displayName=value)),
    "upload name": ("name", lambda at, v: at.ef.blobs.announce(owner=("assets", "storageRef"), name=v)),
    "own version": ("version", lambda at, v: at.asset(storageRef={"objectId": at.blob, "version": v})),
    "get version": ("version", lambda at, value: at.ef.blobs.get(at.blob, value)),
    "read version": ("version", lambda at, value: at.ef.blobs.read(at.blob, value)),
    "release version": ("version", lambda at, value: at.ef.blobs.release(at.blob, value)),
    "withdraw version": ("version", lambda at, v: at.ef.blobs.withdraw(at.blob, v, reason="none")),
    "fingerprint": ("version", lambda at, value: at.ef.blobs.get_blob_fingerprint(at.blob, value)),
    "uploaded hash": ("sha256", lambda at, value: at.ef.blobs.upload(at.upload, b"x", sha256=value)),
    "key": ("rel_path", lambda at, v: at.asset(storageRef={"bucket": "lake", "key": v, "checksum": SHA})),
    "reference": ("storage_ref", lambda at, value: at.asset(storageRef=value)),
    "secrets": ("connection_config", lambda at, value: at.connection(config=value)),
    "secret": ("secret_ref", lambda at, value: at.connection(secretRef=value)),
    "workflow": ("yaml_", lambda at, value: at.workflow(value)),
    "pickle": ("pickle_", lambda at, value: at.unpickled(value)),
}
#: Where ``None`` says that nothing is said.
OPTIONAL = {
    *("annotation selector", "put metadata", "save metadata", "updated metadata", "secret"),
    *("get version", "read version", "release version", "withdraw version", "fingerprint"),
}
#: Rows that no call can be asked: a connection without a secret is one that needs none.
LEFT_OUT = {"B0859": "None"} if ROWS else {}
#: Codes of bounds that a call has not, or has its own of.
OTHER_BOUNDS = {"annotation payload": {"E_TOO_MANY_KEYS"}}


@pytest.fixture(scope="module")
def words() -> dict[str, Any]:
    """What the rows, Python expressions, are written with."""
    return runpy.run_path(str(CORPUS / "helpers.py"), run_name="helpers")


@pytest.fixture
def place(ef: EmboFlow, tmp_path: Path) -> Place:
    upload = ef.blobs.announce(owner=("assets", "storageRef"), name="rows.csv")
    target = {"targetType": "asset", "targetRef": {"id": "#1"}, "labelType": "box"}
    blob = ef.blobs.put(b"x")
    rows = ef.blobs.put(b"rows")
    ref = BlobRef(object_id=rows.object_id, version=0)
    made = ef.cud(
        [
            Create("assets", {"type": "raw_file", "displayName": "all", "storageRef": ref}, ref="#1"),
            Create("annotation_tasks", target),
        ]
    )
    return Place(ef, tmp_path, blob.object_id, upload.object_id, made[1].id)


def counts(ef: EmboFlow) -> dict[str, int]:
    return {name: ef.mongo[name].count_documents({}) for name in COLLECTIONS}


def named(words: dict[str, Any]) -> Any:
    """The module that the pickles of some rows name."""
    module = type(sys)("helpers")
    vars(module).update(words)
    return module


def asked_of(name: str, words: dict[str, Any]) -> dict[str, tuple[str, Any]]:
    """The rows that are asked of a call: id to the code that is expected, and the value."""
    target, _ = CALLS[name]
    found: dict[str, tuple[str, Any]] = {}
    for row in ROWS:
        if row["target"] != target or row["expect"] in OTHER_BOUNDS.get(name, ()):
            continue
        value = eval(row["input"], dict(words))  # noqa: S307 - the team's own corpus, read from a local folder
        if value is not None or name not in OPTIONAL:
            found[row["id"]] = row["expect"], value
    return found


def code_of(error: EmboflowError) -> str:
    return "E_" + error.kind.value.upper().replace("-", "_")


def test_the_corpus_is_there_and_every_row_has_a_call() -> None:
    if not ROWS:
        reason = f"no corpus at {FILE}; EMBOFLOW_CORPUS names its folder"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    assert {row["target"] for row in ROWS} == {target for target, _ in CALLS.values()}


@pytest.mark.filterwarnings("ignore:.*utcnow.*:DeprecationWarning")
def test_no_row_is_left_out_but_those_that_are_named(
    words: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "helpers", named(words))
    asked = {row for name in CALLS for row in asked_of(name, words)}

    assert {row["id"]: row["input"] for row in ROWS if row["id"] not in asked} == LEFT_OUT


@pytest.mark.filterwarnings("ignore:.*utcnow.*:DeprecationWarning")
@pytest.mark.parametrize("name", CALLS)
def test_every_row_is_refused_with_its_code_and_nothing_is_written(
    place: Place, words: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "helpers", named(words))
    target, call = CALLS[name]
    before = counts(place.ef)
    asked = asked_of(name, words)
    found: dict[str, str] = {}
    for row, (_, value) in asked.items():
        try:
            found[row] = f"accepted: {call(place, value)!r:.80}"
        except InvalidInputError as error:
            found[row] = code_of(error)

    assert found == {row: expected for row, (expected, _) in asked.items()}
    if target != "pickle_":  # those are there, to be loaded
        assert before == counts(place.ef)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("../x", "path-traversal"),
        ("a/../../b", "path-traversal"),
        ("/etc/passwd", "path-absolute"),
        ("", "path-empty"),
        ("a//b", "path-segment"),
        ("./a", "path-segment"),
        ("a/", "path-segment"),
        ("a\0b", "path-control"),
        ("\ud800", "path-encoding"),
        ("x" * 256, "path-too-long"),
    ],
)
def test_a_listing_that_names_what_is_no_file_of_its_folder_is_refused_where_it_is_read(
    ef: EmboFlow, tmp_path: Path, path: str, code: str
) -> None:
    head = {"schema": "emboflow-listing/1", "files": 1, "bytes": 1}
    row = {"path": path, "sha256": SHA.removeprefix("sha256:"), "size": 1}
    blob = ef.blobs.put(f"{json.dumps(head)}\n{json.dumps(row)}\n".encode(), content_type=LISTING_TYPE)

    with pytest.raises(IntegrityError) as caught:
        restore(ef.blobs, ef.blobs.ref(blob), tmp_path / "restored")

    assert code == caught.value.kind
    assert not (tmp_path / "restored").exists()


def test_names_that_disks_of_robots_have_stay_readable(ef: EmboFlow, tmp_path: Path) -> None:
    folder = tmp_path / "recorded"
    names = [
        "run-10:32.bag",
        "aux.h5",
        " padded ",
        "a%2Fb.csv",
        "back\\slash",
        "e\u0301.h5",
        "~x",
        "tab\t.csv",
    ]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())

    asset = ef.assets.register(folder, type="folder", name="recorded")
    restored = restore(ef.blobs, asset.storage_ref, tmp_path / "restored")

    assert sorted(names) == sorted(path.name for path in restored.iterdir())
