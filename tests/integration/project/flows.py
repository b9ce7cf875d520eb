"""Workflows that tests publish."""

from typing import Any

from emboflow_dagster.mongo import objects

HOOK = """
def count(ctx, inputs):
    print("one")
    print("two")
    print("three")
    import sys
    print("bad", file=sys.stderr)
    print("worse", file=sys.stderr)
    ctx.log("counted")
    return {"assets": len(ctx.assets)}
"""


def hook(source: str, entrypoint: str = "count") -> dict[str, Any]:
    """A code hook."""
    return {"language": "python", "entrypoint": entrypoint, "source": source}


SMALL: dict[str, Any] = {
    "workflow": "small",
    "name": "Small",
    "nodes": [
        {"id": "src", "type": "source"},
        {"id": "count", "type": "python", "after": ["src"], "codeHook": hook(HOOK)},
    ],
}


def diamond(middle: str = HOOK, **middle_fields: Any) -> dict[str, Any]:
    """src -> left, right -> join -> tail, with the code of ``left``."""
    return {
        "workflow": "diamond",
        "nodes": [
            {"id": "src", "type": "source"},
            {"id": "left", "type": "python", "after": ["src"], "codeHook": hook(middle), **middle_fields},
            {"id": "right", "type": "python", "after": ["src"], "codeHook": hook(HOOK)},
            {"id": "join", "type": "set-union", "after": ["left", "right"]},
            {"id": "tail", "type": "python", "after": ["join"], "codeHook": hook(HOOK)},
        ],
    }


def settle(ef: Any) -> None:
    """Let what earlier puts left in the outbox leave it: nobody waits for that otherwise."""
    for raw in ef.mongo["objects"].find({"tail.0": {"$exists": True}}, {"_id": 1}):
        objects.archive(ef.mongo, raw["_id"])
