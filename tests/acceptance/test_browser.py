"""The Dagster UI in a headless Chromium: pressed by a button, recorded like everything else.

Screenshots are kept in the folder that ``EMBOFLOW_SCREENSHOTS`` names, else beside the test's files.
"""

import json
import os
import re
from pathlib import Path

import pytest

from emboflow_dagster.formats.demo_recordings.make import make_recordings
from tests.acceptance import served as serving
from tests.acceptance.browsing import CHROMIUM, DRIVER, FLAGS, visible
from tests.acceptance.test_dagster_dev import WORKFLOW

pytestmark = [pytest.mark.slow, pytest.mark.browser]

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)")
ID = re.compile(r"\b([a-z]+)_[0-9A-HJKMNP-TV-Z]{26}\b")
# How long it took, and how far of Dagster's log was read.
PASSING = {"durationMs", "recordedUpTo"}
UUID = re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
RUNS = "{ runsOrError(limit: 10) { ... on Runs { results { runId jobName status } } } }"
if not (CHROMIUM and DRIVER):
    pytest.skip("chromium and chromedriver are not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A recording, a published workflow, and Dagster beside it."""
    deployment = serving.Deployment.in_folder(tmp_path_factory.mktemp("browsed"))
    recordings = make_recordings(deployment.folder / "recordings")
    hdf5 = next(recording for recording in recordings if recording.path.suffix == ".hdf5")
    deployment.emboflow(
        "asset", "register", str(hdf5.path), "--type", hdf5.asset_type, "--name", "teleoperated.hdf5"
    )
    file = deployment.folder / "arm.json"
    file.write_text(json.dumps(WORKFLOW))
    deployment.emboflow("workflow", "publish", str(file))
    with serving.serve(deployment) as running:
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser with a profile of its own."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(served, browser, tmp_path_factory):
    """Opens a page and waits for a text on it; keeps a screenshot."""
    folder = Path(os.environ.get("EMBOFLOW_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)

    def open_page(path, *texts, name):
        browser.get(served.server.url + path)
        try:
            for text in texts:
                serving.until(lambda wanted=text: True if wanted in visible(browser) else None, 60)
        finally:
            browser.save_screenshot(str(folder / f"{name}.png"))
        return visible(browser)

    return open_page


@pytest.fixture(scope="module")
def pressed(served, browser, page):
    """The run that pressing Materialize on the job's page made, when it is over."""
    from selenium.webdriver.common.by import By

    page("/locations/__repository__@emboflow/jobs/acme__pick_place__arm", "Materialize all", name="job")
    [button, *_] = browser.find_elements(By.XPATH, "//button[contains(., 'Materialize all')]")
    button.click()

    def started():
        runs = served.server.ask(RUNS)["runsOrError"]["results"]
        return next((run["runId"] for run in runs), None)

    dagster_run_id = serving.until(started, 60)
    assert served.ended(dagster_run_id) == "SUCCESS"
    return dagster_run_id


def test_materialize_in_the_browser_gives_a_recorded_run(served, pressed, page):
    [run] = served.deployment.emboflow("run", "list")
    shown = served.deployment.emboflow("run", "show", run["_id"])

    assert run["dagsterRunIds"] == [pressed]
    assert run["triggeredBy"] == "dagster-ui"
    assert run["status"] == "success"
    assert {task["status"] for task in shown["tasks"]} == {"success"}
    # The id stands in the log, which the page loads last.
    page(f"/runs/{pressed}", "Success", "acme__pick_place__arm__publish", run["_id"], name="run")


def test_the_lineage_of_the_dataset_is_drawn(served, pressed, page):
    text = page(
        "/assets/acme/pick-place/datasets/moves?view=lineage&lineageScope=upstream&lineageDepth=5",
        *("teleoperated-hdf5", "take", "look", "episodes", "moves"),
        name="lineage",
    )

    assert "Never materialized" not in text.replace("Never observed", "")


def test_the_page_of_the_dataset_has_version_numbers_and_links(served, pressed, page):
    [version] = served.deployment.emboflow("dataset", "versions", "moves")

    text = page("/assets/acme/pick-place/datasets/moves", "dataset_version", "episodes", name="dataset")

    assert version["versionTag"] in text
    assert version["manifestRef"]["checksum"][:20] in text
    assert "emboflow dataset versions moves" in text


def test_the_page_of_a_recording_says_what_it_is(served, pressed, page):
    text = page("/assets/acme/pick-place/raw/teleoperated-hdf5", "Raw input", name="raw")

    assert "teleoperated.hdf5" in text
    assert "hdf5" in text


# ------------------------------------------------------------------------------------------- stopped by it

SLOW = "import time\ndef run(ctx, inputs):\n    time.sleep(300)\n"


@pytest.fixture(scope="module")
def slow(served):
    """Two runs of a workflow that does not end by itself, both at their second node."""
    hook = {"language": "python", "entrypoint": "run", "source": SLOW}
    # Of equal tasks at once only one computes; here both are to.
    take = {"id": "take", "type": "source", "cache": "off"}
    work = {"id": "work", "type": "python", "after": ["take"], "codeHook": hook, "cache": "off"}
    nodes = [take, work, {**work, "id": "after", "after": ["work"]}]
    file = served.deployment.folder / "slow.json"
    file.write_text(json.dumps({"workflow": "slow", "nodes": nodes}))
    served.deployment.emboflow("workflow", "publish", str(file))
    runs = [
        served.deployment.emboflow("workflow", "run", "slow", "--asset", "teleoperated.hdf5")
        for _ in range(2)
    ]
    return [when(served, run, lambda found: found["tasks"][1]["status"] == "running") for run in runs]


def when(served, run, is_right):
    """A run with its tasks, once it is right."""
    return serving.until(
        lambda: next(filter(is_right, [served.deployment.emboflow("run", "show", run["_id"])]), None), 240
    )


def shape(value):
    """A document without what differs between any two: ids, and times."""
    if isinstance(value, dict):
        return {UUID.sub("uuid", name): shape(one) for name, one in value.items() if name not in PASSING}
    if isinstance(value, list):
        return [shape(one) for one in value]
    if isinstance(value, str):
        return MOMENT.sub("moment", ID.sub(r"\1", UUID.sub("uuid", value)))
    return value


def test_terminate_in_the_browser_and_cancel_end_in_the_same_documents(served, slow, browser, page):
    from selenium.webdriver.common.by import By

    def press(text):
        def look():
            found = browser.find_elements(By.XPATH, f"//button[contains(., '{text}')]")
            return found[-1] if found and found[-1].is_enabled() else None

        serving.until(look, 60).click()

    by_command, by_button = slow
    [dagster_run_id] = by_button["dagsterRunIds"]

    served.deployment.emboflow("run", "cancel", by_command["_id"])
    page(f"/runs/{dagster_run_id}", "Terminate", name="running")
    press("Terminate")
    press("Terminate 1 run")
    by_command = when(served, by_command, lambda found: found["finishedAt"] is not None)
    by_button = when(served, by_button, lambda found: found["finishedAt"] is not None)

    assert served.ended(dagster_run_id) == "CANCELED"
    page(f"/runs/{dagster_run_id}", "Canceled", name="terminated")
    assert by_button["status"] == "cancelled"
    assert shape(by_button) == shape(by_command)
    assert served.deployment.emboflow("verify")["ok"]
