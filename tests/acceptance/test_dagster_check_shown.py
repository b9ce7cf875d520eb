"""The red check as a person finds it: through GraphQL, and on the asset's page where there is a browser."""

import os
from pathlib import Path

import pytest

from tests.acceptance import served as serving
from tests.acceptance.browsing import CHROMIUM, DRIVER, FLAGS, visible

pytestmark = [pytest.mark.slow]
KEY = ["acme", "pick-place", "raw", "joints"]
CHECKS = """
query Checks($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) { ... on AssetNode { assetChecksOrError {
    ... on AssetChecks { checks { name executionForLatestMaterialization {
      status evaluation { severity description metadataEntries { label __typename
        ... on TextMetadataEntry { text } ... on IntMetadataEntry { intValue } } } } } }
  } } }
}
"""
LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) { __typename ... on LaunchRunSuccess { run { runId } } }
}
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A registered table, and Dagster beside it."""
    deployment = serving.Deployment.in_folder(tmp_path_factory.mktemp("checked"))
    table = deployment.folder / "joints.csv"
    table.write_text("time,joint\n" + "".join(f"{i / 10},{i % 7}\n" for i in range(50)))
    deployment.emboflow("asset", "register", str(table), "--type", "raw_file", "--name", "joints")
    with serving.serve(deployment) as running:
        yield running


def scrubbed(served):
    selector = {
        "repositoryLocationName": "emboflow",
        "repositoryName": "__repository__",
        "jobName": "emboflow_scrub",
    }
    params = {"selector": selector, "mode": "default", "runConfigData": {}}
    return served.ended(served.server.ask(LAUNCH, {"params": params})["launchRun"]["run"]["runId"])


def check_of(served):
    [check] = served.server.ask(CHECKS, {"key": {"path": KEY}})["assetNodeOrError"]["assetChecksOrError"][
        "checks"
    ]
    assert check["name"] == "bytes_verified"
    return check["executionForLatestMaterialization"]


def test_a_flipped_byte_is_red_and_repaired_it_is_green(served, tmp_path):
    [asset] = served.deployment.emboflow("asset", "list")
    ref = asset["storageRef"]
    assert scrubbed(served) == "SUCCESS"
    assert check_of(served)["status"] == "SUCCEEDED"
    path = Path(ref["uri"].removeprefix("file://"))
    good = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(bytes([good[0] ^ 1]) + good[1:])

    assert scrubbed(served) == "FAILURE"

    found = check_of(served)
    assert found["status"] == "FAILED"
    assert found["evaluation"]["severity"] == "ERROR"
    told = {
        entry["label"]: entry.get("text", entry.get("intValue"))
        for entry in found["evaluation"]["metadataEntries"]
    }
    assert told["object_id"] == ref["objectId"]
    assert told["version"] == 0
    assert told["recorded"] == ref["checksum"]
    assert told["found"].startswith("sha256:")
    assert told["found"] != ref["checksum"]
    if CHROMIUM and DRIVER:
        text = shown(served, tmp_path, f"/assets/{'/'.join(KEY)}?view=checks")
        assert "bytes_verified" in text
        assert "Failed" in text or "failed" in text
    backup = tmp_path / "joints.csv"
    backup.write_bytes(good)
    served.deployment.emboflow("blob", "repair", ref["objectId"], "--version", "0", "--from", str(backup))
    serving.until(lambda: True if check_of(served)["status"] == "SUCCEEDED" else None, 120)


def shown(served, folder, path):
    """The text of a page; a screenshot is kept."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    screenshots = Path(os.environ.get("EMBOFLOW_SCREENSHOTS") or folder)
    screenshots.mkdir(parents=True, exist_ok=True)
    try:
        driver.set_page_load_timeout(60)
        driver.get(served.server.url + path)
        serving.until(lambda: True if "bytes_verified" in visible(driver) else None, 60)
        serving.until(lambda: True if "found" in visible(driver) else None, 30)
        return visible(driver)
    finally:
        driver.save_screenshot(str(screenshots / "bytes_verified.png"))
        driver.quit()
