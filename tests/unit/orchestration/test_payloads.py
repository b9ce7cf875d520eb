"""Python values as bytes and back: what comes back is what was given, or nothing was stored."""

import dataclasses
import io
import math
from collections import OrderedDict
from datetime import UTC, date, datetime
from enum import Enum
from pathlib import Path
from typing import BinaryIO

import numpy as np  # noqa: TID253 - one of the types
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import BaseModel, Field, PrivateAttr

from emboflow_dagster.errors import ConfigurationError, ErrorKind, InvalidInputError
from emboflow_dagster.orchestration.payloads import arrays
from emboflow_dagster.orchestration.payloads.handler import Handler, Payload, Stored
from emboflow_dagster.orchestration.payloads.routing import Handlers
from tests.unit.orchestration.roundtrip import back, dumped, loaded

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=20,
)


class Colour(Enum):
    RED = "red"


class Pose(BaseModel):
    joint: str = Field(description="As the URDF names it.")
    angle: float | None = None
    at: datetime | None = None
    colour: Colour = Colour.RED


class Named(BaseModel):
    kind: str = Field(alias="type")


class Secretive(BaseModel):
    name: str
    _note: str = PrivateAttr(default="")


@dataclasses.dataclass
class Grasp:
    object: str
    poses: list[Pose]
    force: float = 1.0


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(TEXT, JSON))
def test_json_comes_back_as_it_was(value):
    assert back(value) == value
    assert back(value, dict) == value


@settings(deadline=None, max_examples=40)
@given(TEXT)
def test_text_comes_back_as_it_was(value):
    assert back(value) == back(value, str) == value


@settings(deadline=None, max_examples=40)
@given(st.binary())
def test_bytes_come_back_as_they_were(value):
    assert back(value) == back(value, bytes) == value


@settings(deadline=None, max_examples=25)
@given(
    hnp.arrays(
        dtype=hnp.scalar_dtypes() | hnp.unicode_string_dtypes() | hnp.array_dtypes(),
        shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0),
    )
)
def test_arrays_come_back_as_they_were(value):
    found = back(value, np.ndarray)

    assert found.dtype == value.dtype
    assert found.shape == value.shape
    assert found.tobytes() == np.asarray(value, order="C").tobytes()


@settings(deadline=None, max_examples=25)
@given(
    st.dictionaries(
        TEXT.filter(lambda t: 0 < len(t) <= 200 and t.isprintable()), hnp.arrays("f4", (3,)), min_size=1
    )
)
def test_dicts_of_arrays_come_back_and_equal_ones_are_equal_bytes(value):
    content, payload = dumped(value)
    found = loaded(content, payload, dict[str, np.ndarray])

    assert found.keys() == value.keys()
    assert all(np.array_equal(found[name], value[name], equal_nan=True) for name in value)
    assert dumped(dict(reversed(value.items())))[0] == content
    assert payload.content_type == "application/x-npz"


def test_names_of_arrays_never_meet():
    value = {"a": np.zeros(1), "a.npy": np.ones(1), "file": np.ones(2), "../x": np.ones(3)}

    assert {name: array.size for name, array in back(value).items()} == {
        "a": 1,
        "a.npy": 1,
        "file": 2,
        "../x": 3,
    }


def test_equal_arrays_are_equal_bytes_however_they_lie():
    value = np.arange(6.0).reshape(2, 3)

    assert dumped(value)[0] == dumped(np.asfortranarray(value))[0] == dumped(value.T.copy().T)[0]


@pytest.mark.parametrize(
    "value", [np.array([{"a": 1}], dtype=object), {"x": np.array([None])}, np.array([(1, "x")], dtype="i4,O")]
)
def test_arrays_of_objects_are_refused(value):
    with pytest.raises(InvalidInputError) as caught:
        dumped(value)

    assert caught.value.kind is ErrorKind.SERIALISED_UNSAFE


def test_arrays_of_objects_that_others_stored_are_not_loaded():
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)

    with pytest.raises(InvalidInputError) as caught:
        loaded(file.getvalue(), Payload(b"", arrays.NPY), np.ndarray)

    assert caught.value.kind is ErrorKind.SERIALISED_UNSAFE


def test_equal_dicts_are_equal_bytes_whatever_their_order():
    assert dumped({"a": 1, "b": 2})[0] == dumped({"b": 2, "a": 1})[0]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (object(), "serialised-unknown"),
        ({1, 2}, "serialised-unknown"),
        ({"x": object()}, "value-type"),
        ({"x": math.nan}, "float-nonfinite"),
        ([math.inf], "float-nonfinite"),
        (np.float32("nan"), "float-nonfinite"),
        ({1: "a"}, "key-type"),
        ("\ud800", "text-surrogate"),
        ({"a": "\ud800"}, "text-surrogate"),
        (np.ma.array([1], mask=[True]), "serialised-unknown"),
        (io.StringIO("text"), "serialised-unknown"),
        (Secretive(name="a"), None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_cannot_be_written_is_refused_with_its_code(value, kind):
    if kind is None:
        value._note = "kept to itself"
        kind = "value-type"
    with pytest.raises(InvalidInputError) as caught:
        dumped(value)

    assert caught.value.kind == kind


def test_what_is_nested_too_deep_is_refused():
    value: list = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(InvalidInputError) as caught:
        dumped(value)

    assert caught.value.kind == "depth"


def test_dates_numpy_numbers_and_tuples_become_what_json_has():
    assert back({"day": date(2026, 1, 2), "n": np.int8(3), "t": (1, 2)}) == {
        "day": "2026-01-02",
        "n": 3,
        "t": [1, 2],
    }
    assert back((1, 2), tuple[int, ...]) == (1, 2)
    assert back(np.float64(1.5)) == 1.5
    assert back(OrderedDict(a=1)) == {"a": 1}


POSE = Pose(joint="elbow", angle=1.5, at=datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (POSE, Pose),
        (POSE, Pose | None),
        (Named(type="arm"), Named),
        (Grasp("cup", [POSE]), Grasp),
        ([POSE, POSE], list[Pose]),
        ({"left": POSE}, dict[str, Pose]),
        ([Grasp("cup", [])], list[Grasp]),
        ({"n": 1}, dict[str, int]),
        ([1, 2], list[int] | None),
        (7, int),
        (7, float),
        (True, bool),
        (7, int | str),
    ],
    ids=str,
)
def test_models_and_annotations_come_back_as_what_is_annotated(value, annotation):
    found = back(value, annotation)

    assert found == value
    assert isinstance(found, type(value)) or annotation is float


def test_a_model_is_plain_data_where_nothing_is_annotated():
    content, payload = dumped(Grasp("cup", [POSE]))

    assert payload.serializer.startswith("model:")
    assert payload.serializer.endswith(".Grasp")
    assert loaded(content, payload)["poses"][0]["joint"] == "elbow"


def test_nothing_is_imported_because_a_payload_names_it():
    content, payload = dumped(POSE)
    payload.serializer = "model:antigravity.Pose"

    assert loaded(content, payload)["joint"] == "elbow"
    assert loaded(content, payload, Pose) == POSE
    assert "antigravity" not in __import__("sys").modules


@pytest.mark.parametrize(
    ("value", "annotation"),
    [({"n": "7"}, dict[str, int]), ({"joint": 1}, Pose), ([1], dict), ("7", list[int])],
)
def test_a_payload_that_is_not_what_is_annotated_is_refused(value, annotation):
    content, payload = dumped(value)
    with pytest.raises((InvalidInputError, ValueError)) as caught:
        loaded(content, payload, annotation)

    assert caught.value.kind == "contract"


def test_an_annotation_wins_over_the_stored_type():
    content, payload = dumped({"n": 1})

    assert loaded(content, payload, bytes) == b'{"n": 1}'
    assert loaded(content, payload, Path).read_bytes() == b'{"n": 1}'
    with loaded(content, payload, BinaryIO) as file:
        assert file.read() == b'{"n": 1}'


def test_who_loads_what_nobody_of_ours_stored():
    routes = Handlers()

    assert routes.loader("model/gltf-binary", None, None).name == "bytes"
    assert routes.loader("text/csv; charset=utf-8", None, None).name == "text"
    assert routes.loader("application/vnd.apache.parquet", None, None).name == "pandas"
    assert routes.loader("application/json", "unheard-of", None).name == "json"


def test_files_keep_their_name_and_type(tmp_path):
    source = tmp_path / "arm.csv"
    source.write_text("a,b\n1,2\n")
    content, payload = dumped(source)
    found = loaded(content, payload)

    assert payload.content_type == "text/csv"
    assert (found.name, found.read_text()) == ("arm.csv", "a,b\n1,2\n")
    assert loaded(content, payload, str) == "a,b\n1,2\n"


@pytest.mark.parametrize("name", ["../../evil", "/etc/passwd", "..", "", "a\nb", "x" * 300])
def test_a_name_out_of_a_document_leads_nowhere(name):
    content, payload = dumped(b"x")
    payload.name = name
    found = loaded(content, payload, Path)

    assert found.parent.name.startswith("emboflow-test-")


def test_a_path_must_be_there(tmp_path):
    with pytest.raises(InvalidInputError, match="is not a file"):
        dumped(tmp_path / "nothing")


def test_open_files_and_iterators_are_streamed(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        file.seek(3)
        assert dumped(file)[0] == b"3456789"
    assert dumped(iter([b"ab", bytearray(b"cd")]))[0] == b"abcd"
    with pytest.raises(InvalidInputError, match="made of bytes"):
        dumped(iter(["text"]))


class PoseHandler(Handler):
    name = "pose-line"

    def stores(self, value):
        return isinstance(value, Pose)

    def makes(self, annotation):
        return annotation is Pose

    def dump(self, value, draft):
        path = draft.temporary("pose.txt")
        path.write_text(value.joint)
        return Payload(path, "text/x-pose")

    def load(self, stored: Stored):
        return Pose(joint=stored.read().decode())


OWN = [PoseHandler]


@pytest.mark.parametrize("attribute", ["PoseHandler", "OWN"])
def test_a_handler_of_a_users_own_comes_first(attribute):
    handlers = Handlers.configured([f"{__name__}:{attribute}"])
    content, payload = dumped(POSE, handlers=handlers)

    assert (content, payload.serializer) == (b"elbow", "pose-line")
    assert loaded(content, payload, Pose, handlers=handlers) == Pose(joint="elbow")
    assert loaded(content, payload, handlers=handlers) == Pose(joint="elbow")
    assert loaded(content, payload) == b"elbow"  # where it is not configured


@pytest.mark.parametrize(
    "name", ["nowhere", "nowhere:X", f"{__name__}:Nothing", f"{__name__}:Pose", "json:dumps", ""]
)
def test_a_handler_that_is_none_is_refused(name):
    with pytest.raises(ConfigurationError, match="handlers"):
        Handlers.configured([name])


def test_previews_are_bounded_and_nothing_in_them_is_markup():
    rows = [{"name": "<script>", "note": "|" * 500, "t": "a\nb"}] * 5
    _, payload = dumped(rows)

    assert payload.facts.row_count == 5
    assert "<script>" not in payload.facts.preview
    assert len(payload.facts.preview) < 2_000
    assert len(payload.facts.preview.splitlines()) == 7
    assert dumped("```\n# x" * 5_000)[1].facts.preview.splitlines()[0] == "    ```"
    assert len(dumped({"a": "x" * 50_000})[1].facts.preview) < 2_500
    assert dumped({"a": 1}, preview_rows=0)[1].facts.preview is None


def test_models_say_what_their_fields_are():
    _, payload = dumped([POSE])

    assert payload.facts.columns[0].description == "As the URDF names it."
    assert [column.nullable for column in payload.facts.columns] == [False, True, True, False]
