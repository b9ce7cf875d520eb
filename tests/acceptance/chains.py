"""Workflow files for tests."""

HOOK = "def run(ctx, inputs):\n    return {'assets': len(ctx.assets)}\n"
BROKEN = "def run(ctx, inputs):\n    raise ValueError('no gripper in this recording')\n"


def chain(slug: str = "triage", *, source: str = HOOK, nodes: tuple[str, ...] = ("count",)) -> dict:
    """A workflow file: take, look, then one hook node for each name, one after the other."""
    hook = {"language": "python", "entrypoint": "run", "source": source}
    rows = [{"id": "take", "type": "source"}, {"id": "look", "type": "probe", "after": ["take"]}]
    before = "look"
    for name in nodes:
        rows.append({"id": name, "type": "python", "after": [before], "codeHook": hook})
        before = name
    return {"workflow": slug, "nodes": rows}
