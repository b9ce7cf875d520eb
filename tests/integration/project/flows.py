"""Workflows that tests publish."""

from typing import Any

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
