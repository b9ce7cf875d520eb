"""Documents that nothing refers to, and that must be there all the same: found by who, and what, is left."""

from collections import defaultdict
from typing import Any

from emboflow_dagster.model.workspace import MembershipRole
from emboflow_dagster.mongo.client import translated
from emboflow_dagster.project.verify.report import VerifyReport, View

_OWNER = {"role": MembershipRole.OWNER.value, "projectId": None}


def check_members(view: View, report: VerifyReport) -> None:
    """Who owns a workspace is a member of it: without, nobody could let anybody in."""
    for raw in view.sound("workspaces", {"ownerId": 1}):
        place = {"workspaceId": raw["_id"], "userId": raw["ownerId"], **_OWNER}
        with translated():
            found = view.mongo["memberships"].find_one(place, {"_id": 1})
        if found is None:
            report.add(
                "membership-missing",
                "workspaces",
                raw["_id"],
                "ownerId",
                f"{raw['ownerId']} owns the workspace and has no membership as its owner",
            )


def check_reports(view: View, report: VerifyReport) -> None:
    """The probe reports of an asset are numbered from 1 without gaps (I14)."""
    numbers: defaultdict[Any, list[Any]] = defaultdict(list)
    for raw in view.sound("asset_probe_reports", {"assetId": 1, "reportVersion": 1}):
        numbers[raw["assetId"]].append(raw["reportVersion"])
    for asset, found in numbers.items():
        if sorted(found) != list(range(1, len(found) + 1)):
            report.add(
                "version-gap",
                "assets",
                asset,
                "reportVersion",
                f"its probe reports are {sorted(found)[:20]}: one is gone",
            )
