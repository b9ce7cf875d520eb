"""Recordings of which an episode was forgotten, for nodes that cannot leave it out: copies without it."""

from pathlib import Path
from typing import Any, Final

from emboflow_dagster.blobs.forgotten_place import Place
from emboflow_dagster.formats.without import NOTHING, SHARED
from emboflow_dagster.model.asset import Asset
from emboflow_dagster.runtime.node import ChildCall

SECONDS: Final = 4 * 3600.0
_REST: Final = "register the rest of it without that episode"
_INSTEAD: Final = "read it with `normalize`, which leaves the episode out, and give this node the package"


def cut(
    child: ChildCall, asset: Asset, form: str, path: Path, places: list[Place], out: Path
) -> tuple[Path | None, str]:
    """A copy without the episodes, or ``None``; and a line that says it.

    Args:
        child: Calls a function in a child process.
        asset: The asset.
        form: Its format, as its newest probe report names it.
        path: Its bytes.
        places: Where in it forgotten episodes are.
        out: A folder that is not there yet.
    """
    out.mkdir(parents=True)
    told = [place.to_json() for place in places]
    made: dict[str, Any] = child(
        "emboflow_dagster.runtime.cutting:without_places", str(path), form, told, str(out), timeout_s=SECONDS
    )
    if made["path"] is not None:
        said = f"{asset.display_name}: without what was forgotten of it (episode-forgotten)"
        return out / made["path"], said
    why = str(made["why"])
    more = ""
    if why.startswith(SHARED):
        more = f"; {_INSTEAD}"
    elif why != NOTHING:
        more = f"; {_REST}"
    return (
        None,
        f"left out (episode-forgotten): {asset.display_name}: an episode in it was forgotten: {why}{more}",
    )


def without_places(path: str, form: str, places: list[list[Any]], out: str) -> dict[str, Any]:
    """:func:`~emboflow_dagster.formats.without.without` over JSON; runs in a child process."""
    from emboflow_dagster.formats.probe import format_of
    from emboflow_dagster.formats.without import without

    recording = Path(path)
    known = form if form != "unknown" else format_of(recording)
    return without(recording, known, [Place.of(place) for place in places], Path(out))
