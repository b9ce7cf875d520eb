"""The shared corpus of bad texts, dicts, filters and references: every row is refused by its code."""

import json
import os
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.model import text
from emboflow_dagster.model.base import check_datetime, utc_now
from emboflow_dagster.model.freeform import check_freeform
from emboflow_dagster.model.plugin import StorageConnection, check_secret_ref
from emboflow_dagster.model.storage import check_storage_ref
from emboflow_dagster.mongo.filters import check_filter

CORPUS = Path(os.environ.get("EMBOFLOW_CORPUS") or Path(__file__).parents[3].parent / "shared" / "corpus")
FILE = CORPUS / "bad_inputs.jsonl"


def connection(config: object) -> StorageConnection:
    now = utc_now()
    return StorageConnection.checked(
        id="stc_1",
        workspace_id="ws_1",
        type="object_storage",
        provider="s3",
        name="S",
        config=config,
        created_by="ada",
        created_at=now,
        updated_at=now,
    )


CHECKS: dict[str, Callable[[Any], object]] = {
    "freeform": check_freeform,
    "filter_": check_filter,
    "object_id": text.check_object_id,
    "slug": text.check_slug,
    "name": text.check_name,
    "version": text.check_version,
    "sha256": text.check_sha256,
    "rel_path": text.check_rel_path,
    "storage_ref": check_storage_ref,
    "datetime_": check_datetime,
    "connection_config": connection,
    "secret_ref": check_secret_ref,
}
ROWS = (
    [row for row in map(json.loads, FILE.read_text("utf-8").splitlines()) if row["target"] in CHECKS]
    if FILE.exists()
    else []
)


@pytest.fixture(scope="module")
def words() -> dict[str, Any]:
    """What the rows, Python expressions, are written with."""
    return runpy.run_path(str(CORPUS / "helpers.py"))


def test_the_corpus_is_there() -> None:
    if not ROWS:
        reason = f"no corpus at {FILE}; EMBOFLOW_CORPUS names its folder"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    assert {row["target"] for row in ROWS} == set(CHECKS)


@pytest.mark.filterwarnings("ignore:.*utcnow.*:DeprecationWarning")
@pytest.mark.parametrize("row", ROWS, ids=[f"{row['target']}-{row['id']}" for row in ROWS])
def test_every_row_is_refused_with_its_code(row: dict[str, str], words: dict[str, Any]) -> None:
    value = eval(row["input"], dict(words))  # noqa: S307 - the team's own corpus, read from a local folder

    with pytest.raises(InvalidInputError) as caught:
        CHECKS[row["target"]](value)

    problem = caught.value.problems[0]
    assert "E_" + problem.kind.value.upper().replace("-", "_") == row["expect"], problem
    assert caught.value.kind == problem.kind
