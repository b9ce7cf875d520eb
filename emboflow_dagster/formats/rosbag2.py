"""rosbag2 recordings: a folder of SQLite or MCAP files with, without or in spite of a ``metadata.yaml``.

The list of files is taken from the folder and the metadata together, never from a library's directory mode:
that one gives no message at all for official recordings whose QoS entries differ from their storage.
"""

from dataclasses import dataclass, field
from pathlib import Path

from emboflow_dagster.errors import InvalidInputError
from emboflow_dagster.formats import mcap_file, rosbag2_sqlite3
from emboflow_dagster.formats.bags import match_files, probe_recording, split_order
from emboflow_dagster.formats.detect import Entry, Format, Source, is_lfs_pointer, signature
from emboflow_dagster.formats.recording import Part, Reader
from emboflow_dagster.formats.report import Candidate, Probe
from emboflow_dagster.formats.rosbag2_metadata import KEY, NAME, Metadata, read_metadata
from emboflow_dagster.formats.rosbag2_packed import SUFFIXES as PACKED
from emboflow_dagster.formats.rosbag2_packed import kind_inside, unpacked_reader

SUFFIXES = (".db3", ".mcap", *PACKED)
HALF = 0.5
SUPPORTED_SERIALIZATION = frozenset({"cdr"})


@dataclass(slots=True)
class _Bag:
    """One recording inside the source: its folder (``""`` or with a trailing slash), metadata and files."""

    folder: str
    metadata: Metadata | None = None
    problem: str | None = None
    parts: list[Part] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)


def _parts(source: Source) -> list[Part]:
    """The readable files of all rosbag2 recordings in ``source``, in split order."""
    return [part for bag in _bags(source) for part in bag.parts]


def _metadata_entries(source: Source) -> list[Entry]:
    return [entry for entry in source.named(NAME) if KEY.encode() in source.head_of(entry)]


def _bags(source: Source) -> list[_Bag]:
    if not source.is_folder:
        return [_Bag("", parts=[(source.path, source.path.name, _reader(source.path, source.head, ""))])]
    bags = [_read_bag(source, entry) for entry in _metadata_entries(source)]
    folders = {bag.folder for bag in bags}
    # Of a recorder that was killed: a recording without a description, beside others that have one.
    suffixes = (".db3", ".mcap") if bags else (".db3",)
    entries = [e for e in (*source.with_suffix(*suffixes), *_packed(source)) if _folder(e) not in folders]
    entries.sort(key=lambda entry: split_order(entry.path))
    parts = [_part(source, entry, "") for entry in entries if _is_storage(source, entry)]
    if parts or not bags:
        bags.append(_Bag("", parts=parts))
    return sorted(bags, key=lambda bag: split_order(bag.parts[0][1] if bag.parts else bag.folder))


def _folder(entry: Entry) -> str:
    return entry.path[: -len(entry.name)]


def _described(source: Source) -> dict[str, str]:
    return _listed(_bags(source))


def _listed(bags: list[_Bag]) -> dict[str, str]:
    return {
        name: bag.folder
        for bag in bags
        if bag.metadata
        for _, name, _ in bag.parts
        if name not in bag.unlisted
    }


def _packed(source: Source) -> list[Entry]:
    """Recordings of a folder that were compressed as a whole."""
    return [e for e in source.with_suffix(*PACKED) if _storage_inside(source.head_of(e), e.name)]


def _storage_inside(head: bytes, name: str) -> str | None:
    found = kind_inside(head, name) if signature(head) == "zstd" else None
    return found if found in {"sqlite3", "mcap"} else None


def _read_bag(source: Source, entry: Entry) -> _Bag:
    bag = _Bag(entry.path[: -len(NAME)])
    try:
        bag.metadata = read_metadata(source.file(entry))
    except (InvalidInputError, OSError) as error:
        bag.problem = str(error)
    mode = bag.metadata.compression_mode if bag.metadata else ""
    here = {
        e.path: e
        for e in source.with_suffix(*SUFFIXES)
        if e.path.startswith(bag.folder) and "/" not in e.path[len(bag.folder) :]
    }
    listed: list[str] = []
    for name in bag.metadata.files if bag.metadata else ():
        # Older versions list the files with the folder's own name before them. Only files beside the metadata
        # are taken: a path that leads elsewhere is not part of this recording.
        path = bag.folder + name.replace("\\", "/").rpartition("/")[2]
        if path not in here and f"{path}.zstd" in here:
            path += ".zstd"
        if path in here and _is_storage(source, here[path]):
            listed.append(path)
        else:
            bag.missing.append(name)
    names = list(dict.fromkeys(listed))
    extra = [p for p in sorted(here, key=split_order) if p not in names and _is_storage(source, here[p])]
    if bag.metadata:
        bag.unlisted = extra
    bag.parts = [_part(source, here[path], mode) for path in [*names, *extra]]
    return bag


def _is_storage(source: Source, entry: Entry) -> bool:
    head = source.head_of(entry)
    return signature(head) in {"sqlite3", "mcap", "zstd"} and not is_lfs_pointer(head)


def _part(source: Source, entry: Entry, mode: str) -> Part:
    path = source.file(entry)
    return (path, entry.path, _reader(path, source.head_of(entry), mode))


def _reader(path: Path, head: bytes, mode: str) -> Reader:
    kind = signature(head)
    if kind == "zstd":
        inside = kind_inside(head, path.name)
        return unpacked_reader(mcap_file.messages if inside == "mcap" else rosbag2_sqlite3.messages)
    if kind == "mcap":
        return mcap_file.compressed_messages if mode == "message" else mcap_file.messages
    return rosbag2_sqlite3.compressed_messages if mode == "message" else rosbag2_sqlite3.messages


def _matches(source: Source) -> Candidate | None:
    if source.is_folder:
        for entry in _metadata_entries(source):
            bag = _read_bag(source, entry)
            storages = [signature(source.head_of(Entry(name, 0))) for _, name, _ in bag.parts]
            storage = next((s for s in storages if s != "zstd"), bag.metadata.storage if bag.metadata else "")
            name = "rosbag2_mcap" if storage == "mcap" else "rosbag2_sqlite3"
            return Candidate(
                name, 0.97, (f"{entry.path} describes a rosbag2 recording", f"storage {storage}")
            )
    packed = _matches_packed(source)
    if packed is not None:
        return packed
    found = match_files(source, "rosbag2_sqlite3", "sqlite3", (".db3",))
    if found is None or found.confidence < 0.5:  # noqa: PLR2004 - the name alone
        return found
    if not source.is_folder:
        return found if rosbag2_sqlite3.is_bag_database(source.path, source.head) else None
    entries = [e for e in source.with_suffix(".db3") if signature(source.head_of(e)) == "sqlite3"]
    bags = any(rosbag2_sqlite3.is_bag_database(source.file(e), source.head_of(e)) for e in entries[:20])
    return found if bags else None


def _matches_packed(source: Source) -> Candidate | None:
    """Recordings compressed as a whole without a ``metadata.yaml``, where nothing else is in the folder."""
    if not source.is_folder:
        kinds = [_storage_inside(source.head, source.path.name)]
    else:
        packed = _packed(source)
        share = sum(entry.size for entry in packed) / max(source.size, 1)
        kinds = [_storage_inside(source.head_of(e), e.name) for e in packed[:20]] if share > HALF else []
    name = {"sqlite3": "rosbag2_sqlite3", "mcap": "rosbag2_mcap"}.get(next(iter(kinds), None) or "")
    return Candidate(name, 0.9, (f"{kinds[0]} inside of zstd",)) if name else None


def _probe(source: Source, probe: Probe) -> None:
    bags = _bags(source)
    if not (source.is_folder and _metadata_entries(source)):
        text = "no metadata.yaml: counts, order and types come from the storage files alone"
        probe.warn("metadata_missing", text)
    for bag in bags:
        if len(bags) > 1 and not bag.metadata and not bag.problem:
            for _, name, _ in bag.parts:
                probe.warn("metadata_missing", "no metadata.yaml beside it describes it", name)
        where = bag.folder + NAME
        if bag.problem:
            probe.warn("metadata_missing", f"cannot be used: {bag.problem}", where)
        for name in bag.missing:
            probe.warn("missing_parts", "declared in metadata.yaml, but not there as a recording", name)
        for name in bag.unlisted:
            probe.warn("metadata_mismatch", "a recording file that metadata.yaml does not list", name)
        for serialization in bag.metadata.serialization if bag.metadata else ():
            if serialization not in SUPPORTED_SERIALIZATION:
                text = f"metadata.yaml declares the serialization {serialization!r}, read is cdr"
                probe.warn("unsupported_serialization", text, where)
    probe_recording(probe, [part for bag in bags for part in bag.parts], _listed(bags))
    if len(bags) > 1:
        probe.structure["declared"] = {
            "recordings": {bag.folder or ".": bag.metadata.to_json() for bag in bags if bag.metadata}
        }
        for bag in bags:
            _compare_count(probe, bag)
    elif bags[0].metadata:
        probe.structure["declared"] = bags[0].metadata.to_json()
        if "compressed_files" not in probe.codes:
            bags[0].metadata.compare(probe, bags[0].folder + NAME)


def _compare_count(probe: Probe, bag: _Bag) -> None:
    found = sum(probe.structure["files"].get(name, 0) for _, name, _ in bag.parts)
    if bag.metadata and bag.metadata.message_count not in {None, found}:
        text = f"message count: declared {bag.metadata.message_count}, found {found}"
        probe.warn("metadata_mismatch", text, bag.folder + NAME)


FORMAT = Format(
    names=("rosbag2_sqlite3", "rosbag2_mcap"),
    matches=_matches,
    probe=_probe,
    parts=_parts,
    described=_described,
)
