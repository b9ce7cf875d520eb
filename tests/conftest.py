"""The same surroundings for every test: none of the machine's own settings, credentials or caches.

A test that wants a setting sets it. Without this a developer's `EMBOFLOW_MONGO_URI` would be written to, and
a stray `AWS_PROFILE` would make a test pass here and fail elsewhere.
"""

import os
import shutil
import tempfile

#: Where the test material is, not how EmboFlow behaves.
KEPT = frozenset(
    {"EMBOFLOW_SAMPLES", "EMBOFLOW_CORPUS", "EMBOFLOW_MONGOD", "EMBOFLOW_SCREENSHOTS", "EMBOFLOW_FAULTS"}
    | {"EMBOFLOW_FAULTS_RUNS", "EMBOFLOW_FAULTS_KILLS", "EMBOFLOW_FAULTS_SEED"}
    | {"EMBOFLOW_TEST_S3_ENDPOINT", "EMBOFLOW_TEST_S3_KEY", "EMBOFLOW_TEST_S3_SECRET"}
    | {"EMBOFLOW_GRAPHS_NODES", "EMBOFLOW_GRAPHS_FAN"}
)
REMOVED_PREFIXES = ("EMBOFLOW_", "AWS_", "DAGSTER_", "XDG_")

for _name in list(os.environ):
    if _name.startswith(REMOVED_PREFIXES) and _name not in KEPT:
        del os.environ[_name]

# Before any test module is imported: libraries look at HOME when they are.
_EMPTY_HOME = tempfile.mkdtemp(prefix="emboflow-tests-home-")
os.environ["HOME"] = _EMPTY_HOME


def pytest_unconfigure() -> None:
    shutil.rmtree(_EMPTY_HOME, ignore_errors=True)
