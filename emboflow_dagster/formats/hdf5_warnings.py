"""What a person should know of an HDF5 file before using it."""

from collections.abc import Callable, Sequence
from typing import Any

from emboflow_dagster.formats.hdf5_layout import Layout
from emboflow_dagster.formats.report import Probe

Place = Callable[[str], str]


def warn_about(layout: Layout, file: str | None, report: Probe) -> None:
    """Name everything that is wrong with one file, or left out of it.

    Args:
        layout: What stands in it.
        file: Its name where the asset has several.
        report: Gets the warnings.
    """

    def at(path: str) -> str:
        return f"{file}:{path}" if file else path

    if layout.damage is not None:
        found = recoverable([layout])
        text = (
            f"{layout.damage.text}; of {len(layout.fields)} datasets {found['datasets']} are whole, "
            f"{found['datasetsCut']} have their first rows, {found['datasetsLost']} none: "
            f"{found['rows']} of {found['declaredRows']} rows"
        )
        report.warn(layout.damage.code, f"{text}; `recover` writes a closed file of it", file)
    if not layout.complete:
        report.warn("listing_truncated", "the file nests deeper or holds more objects than are walked", file)
    for link, reason in layout.links.items():
        report.warn("link_not_followed", reason, at(link))
    for path, reason in layout.unreadable.items():
        code = "truncated" if layout.damage is not None else "corrupt"
        report.warn("unsupported_type" if "its type" in reason else code, reason, at(path))
    for item in layout.fields:
        if item.foreign:
            report.warn("external_data", "the values stand in another file and were not read", at(item.path))
        if item.missing:
            text = f"packed with {item.missing}, which is not installed: {REPACK}"
            report.warn("filter_unavailable", text, at(item.path))
        if item.zero_width:
            report.warn("zero_width_dataset", f"shape {list(item.shape)} holds no number", at(item.path))
    if layout.format != "hdf5":
        _warn_about_demos(layout, file, at, report)
        _warn_about_left_out(layout, at, report)
        _warn_about_keys(layout, at, report)


REPACK = "`h5repack -f GZIP=1 IN OUT` where it is writes a file that needs none"


def recoverable(layouts: Sequence[Layout]) -> dict[str, Any]:
    """How much of damaged files can be read.

    Returns:
        ``datasets`` (whole), ``datasetsCut`` (their first rows), ``datasetsLost`` (none), ``rows`` of those
        ``declaredRows``, ``episodes`` and ``frames``.
    """
    fields = [item for layout in layouts for item in layout.fields]
    cut = [item for item in fields if item.declared is not None]
    lost = [item for item in cut if not item.shape[0]]
    unreadable = sum(path in {f.path for f in x.fields} for x in layouts for path in x.unreadable)
    demos = [demo for layout in layouts for demo in layout.demos]
    return {
        "datasets": len(fields) - len(cut) - unreadable,
        "datasetsCut": len(cut) - len(lost),
        "datasetsLost": len(lost) + unreadable,
        "rows": sum(item.shape[0] for item in fields if item.shape),
        "declaredRows": sum(
            item.shape[0] if item.declared is None else item.declared for item in fields if item.shape
        ),
        "episodes": len(demos),
        "frames": sum(demo.length for demo in demos),
    }


def _warn_about_demos(layout: Layout, file: str | None, at: Place, report: Probe) -> None:
    if not layout.demos:
        report.warn("no_episodes", "the group data holds no demonstration", at("data"))
    for group in layout.empty:
        report.warn("empty_episode", "neither states, actions nor observations stand in it", at(group))
    for again, first in layout.again.items():
        report.warn("linked_twice", f"the same group as {first}, taken for one of its own", at(again))
    without_actions = [demo.group for demo in layout.demos if demo.action is None]
    if without_actions:
        many = f"{len(without_actions)} of {len(layout.demos)} episodes have no actions"
        report.warn("no_actions", many, at(without_actions[0]))
    without = [demo.group for demo in layout.demos if not demo.observations]
    if without:
        many = f"{len(without)} of {len(layout.demos)} episodes have no observations, simulator states only"
        report.warn("no_observations", many, at(without[0]))
    for demo in layout.demos:
        rows = {
            n: f.shape[0] for n, f in demo.fields.items() if f.shape and (f.is_numeric or n in demo.cameras)
        }
        state, action = demo.state, demo.action
        if state is not None and action is not None and state.shape[0] != action.shape[0]:
            text = f"{state.shape[0]} states, {action.shape[0]} actions"
            report.warn("declared_count_mismatch", text, at(demo.group))
        if demo.declared is not None and demo.declared != demo.length:
            text = f"attribute num_samples says {demo.declared}, counted {demo.length}"
            report.warn("declared_count_mismatch", text, at(demo.group))
        if not demo.length:
            report.warn("empty_episode", f"no frames in any of {len(rows)} datasets", at(demo.group))
    total = layout.attrs.get("total")
    counted = sum(demo.length for demo in layout.demos)
    if isinstance(total, int) and total != counted:
        report.warn("declared_count_mismatch", f"attribute total says {total}, counted {counted}", at("data"))
    for label, widths in (
        ("states", {d.state.width for d in layout.demos if d.state}),
        ("actions", {d.action.width for d in layout.demos if d.action}),
    ):
        if len(widths) > 1:
            text = f"{label} have {sorted(w for w in widths if w is not None)} numbers in different episodes"
            report.warn("dimension_mismatch", text, file)


def _warn_about_left_out(layout: Layout, at: Place, report: Probe) -> None:
    """Observations that an episode cannot hold, each name once: its first place and how often."""
    places: dict[tuple[str, str], list[str]] = {}
    for demo in layout.demos:
        for name, reason in demo.no_video.items():
            places.setdefault((name, reason), []).append(demo.fields[name].path)
    for (_, reason), paths in places.items():
        many = f", in {len(paths)} episodes" if len(paths) > 1 else ""
        report.warn("depth_left_out", f"{reason}; it is left out{many}", at(paths[0]))


def _warn_about_keys(layout: Layout, at: Place, report: Probe) -> None:
    """Filter keys that name what is not there, and one demonstration for training and for validation."""
    there = {demo.group.removeprefix("data/") for demo in layout.demos}
    for key, names in layout.filter_keys.items():
        absent = [name for name in names if name not in there]
        if absent:
            text = f"names {len(absent)} demonstrations that are not there: {', '.join(absent[:5])}"
            report.warn("missing_references", text, at(f"mask/{key}"))
    both = set(layout.filter_keys.get("train", ())) & set(layout.filter_keys.get("valid", ()))
    if both:
        text = f"{len(both)} demonstrations are in train and in valid: {', '.join(sorted(both)[:5])}"
        report.warn("split_overlap", text, at("mask"))
