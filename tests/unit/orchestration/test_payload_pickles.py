"""Nothing is unpickled unless it is named: every row of the shared corpus is refused with its code."""

import collections
import datetime as dt
import json
import os
import pickle
import runpy
import sys
from pathlib import Path

import pytest

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.orchestration.payloads import pickles
from emboflow_dagster.orchestration.payloads.handler import Payload
from emboflow_dagster.orchestration.payloads.routing import Handlers
from tests.unit.orchestration.roundtrip import dumped, loaded

CORPUS = Path(os.environ.get("EMBOFLOW_CORPUS") or Path(__file__).parents[3].parent / "shared" / "corpus")
FILE = CORPUS / "bad_inputs.jsonl"
ROWS = (
    [row for row in map(json.loads, FILE.read_text("utf-8").splitlines()) if row["target"] == "pickle_"]
    if FILE.exists()
    else []
)


class Calibration:
    """A type that has no other form."""

    def __init__(self, offsets):
        self.offsets = offsets

    def __eq__(self, other):
        return type(other) is Calibration and other.offsets == self.offsets

    __hash__ = None


NAME = f"{__name__}.Calibration"


def test_the_corpus_is_there():
    if not ROWS:
        reason = f"no corpus at {FILE}; EMBOFLOW_CORPUS names its folder"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="module")
def words():
    return runpy.run_path(str(CORPUS / "helpers.py"), run_name="helpers")


@pytest.mark.parametrize("allowed", [[], [NAME, "datetime.datetime"]], ids=["none named", "others named"])
@pytest.mark.parametrize("row", ROWS, ids=[row["id"] for row in ROWS])
def test_every_row_is_refused_with_its_code(row, words, allowed, monkeypatch):
    # The rows of the corpus pickle classes of their own.
    module = type(sys)("helpers")
    vars(module).update(words)
    monkeypatch.setitem(sys.modules, "helpers", module)
    content = eval(row["input"], dict(words))  # noqa: S307 - the team's own corpus, read from a local folder

    with pytest.raises(InvalidInputError) as caught:
        pickles.loads(content, frozenset(allowed))

    assert "E_" + caught.value.kind.value.upper().replace("-", "_") == row["expect"], caught.value


@pytest.mark.parametrize("content_type", sorted(pickles.PICKLES))
@pytest.mark.parametrize("annotation", [None, dict, Calibration])
def test_a_stored_pickle_is_not_opened_where_none_is_named(content_type, annotation):
    content = pickle.dumps({"a": 1})
    with pytest.raises(InvalidInputError) as caught:
        loaded(content, Payload(b"", content_type), annotation)

    assert caught.value.kind == "serialised-unsafe"
    assert loaded(content, Payload(b"", content_type), bytes) == content


def test_a_named_type_is_stored_and_loaded():
    handlers = Handlers(allow_pickle=[NAME])
    value = Calibration([1.5, 2.5])
    content, payload = dumped(value, handlers=handlers)

    assert payload.serializer == f"pickle:{NAME}"
    assert loaded(content, payload, handlers=handlers) == value
    assert loaded(content, payload, Calibration, handlers=handlers) == value


def test_what_a_named_type_brings_along_must_be_named_too():
    with pytest.raises(InvalidInputError, match=r"asks for 'datetime\.date'") as caught:
        dumped(Calibration(dt.date(2026, 1, 1)), handlers=Handlers(allow_pickle=[NAME]))
    both = Handlers(allow_pickle=[NAME, "datetime.date"])

    assert caught.value.kind == "pickle-global"
    assert dumped(Calibration(dt.date(2026, 1, 1)), handlers=both)


def test_a_name_is_that_name_alone():
    for allowed in ("collections", "collections.OrderedDict.fromkeys", "OrderedDict", "collections.*"):
        with pytest.raises(InvalidInputError, match="not allowed"):
            pickles.loads(pickle.dumps(collections.OrderedDict(a=1)), frozenset([allowed]))
    assert pickles.loads(
        pickle.dumps(collections.OrderedDict(a=1)), frozenset(["collections.OrderedDict"])
    ) == {"a": 1}


def test_values_that_are_not_named_are_not_pickled_when_others_are():
    with pytest.raises(InvalidInputError) as caught:
        dumped(object(), handlers=Handlers(allow_pickle=[NAME]))

    assert caught.value.kind == "serialised-unknown"
