"""A version as a tree of episodes: shared where equal, the same bytes again, checked without a database."""

import json
import shutil
from pathlib import Path

import numpy as np  # noqa: TID253 - this module is about numbers
import pyarrow as pa  # noqa: TID253 - likewise
import pyarrow.parquet as pq  # noqa: TID253 - likewise
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emboflow_dagster.blobs import pages
from emboflow_dagster.blobs.pages import Builder, Page, line_of
from emboflow_dagster.errors import ErrorKind, IntegrityError, InvalidInputError
from emboflow_dagster.formats.canonical.checking import check_folder
from emboflow_dagster.formats.canonical.compose import compose
from emboflow_dagster.formats.canonical.content import table_digest
from emboflow_dagster.formats.canonical.reader import open_canonical
from emboflow_dagster.formats.canonical.schema import Camera, RawStream
from emboflow_dagster.formats.canonical.split import split
from tests.unit.formats.test_canonical import episode, write


def entry(number):
    return {
        "id": f"ep_{number}",
        "length": number % 7 + 1,
        "files": {"frames": {"sha256": "0" * 64, "size": number}},
    }


class Kept:
    """Pages by their hash."""

    def __init__(self):
        self.pages = {}

    def tree(self, numbers):
        import hashlib

        builder = Builder(lambda page: self.pages.setdefault(hashlib.sha256(page).hexdigest(), page))
        for number in numbers:
            builder.add(line_of(entry(number)))
        return builder.close()

    def read(self, sha256, size):
        assert len(self.pages[sha256]) == size
        return self.pages[sha256]

    def below(self, root):
        return {page.sha256 for page in pages.every_page(self.read, root)}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=300))
def test_a_tree_gives_its_episodes_back_and_knows_their_sums(numbers):
    kept = Kept()
    root = kept.tree(numbers)
    if not numbers:
        assert root is None
        return

    assert [one.entry for one in pages.episodes(kept.read, root)] == [entry(n) for n in numbers]
    assert [one.index for one in pages.episodes(kept.read, root)] == list(range(len(numbers)))
    assert (root.episodes, root.frames, root.files, root.bytes) == (
        len(numbers),
        sum(n % 7 + 1 for n in numbers),
        len(numbers),
        sum(numbers),
    )
    assert set(kept.pages) == kept.below(root)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_dropped_episode_changes_few_pages_and_the_way_to_a_tree_is_no_matter(data):
    numbers = list(range(2000))
    gone = data.draw(st.integers(0, 1999))
    kept = Kept()
    old = kept.below(kept.tree(numbers))
    del numbers[gone]
    new = kept.below(kept.tree(numbers))

    assert len(new - old) <= 20
    assert sum(len(kept.pages[name]) for name in new - old) < 30_000
    assert kept.tree([*numbers[:gone], gone, *numbers[gone:]]).sha256 == kept.tree(range(2000)).sha256


def test_a_page_that_is_not_what_was_named_is_refused():
    kept = Kept()
    root = kept.tree(range(500))
    leaf = next(page for page in pages.every_page(kept.read, root) if page.level == 0)
    for payload in (b"", b"{}\n", b'{"schema":"emboflow-pages/1","level":1,"entries":1}\n{}\n', b"\xff\n"):
        with pytest.raises(IntegrityError) as caught:
            pages.lines(leaf, payload)
        assert caught.value.kind == ErrorKind.FILE_CORRUPT
    wrong = Page(root.sha256, root.size, root.level, root.episodes + 1, root.frames, root.files, root.bytes)
    with pytest.raises(IntegrityError, match="not what it says"):
        pages.below(wrong, kept.read(root.sha256, root.size))
    for row in ({}, None, {**root.to_json(), "level": "1"}, {**root.to_json(), "size": -1}):
        with pytest.raises(IntegrityError):
            Page.from_json(row)


def test_what_a_lost_page_names_is_only_left_out_by_who_reads_all_that_is_named():
    kept = Kept()
    root = kept.tree(range(500))
    lost = [page for page in pages.every_page(kept.read, root) if page.level == 0][3].sha256

    def read(sha256, size):
        if sha256 == lost:
            raise IntegrityError("gone", kind=ErrorKind.PAYLOAD_MISSING)
        return kept.read(sha256, size)

    named = [sha256 for _, sha256, _ in pages.named(read, root, lenient=True)]
    assert lost in named
    assert len(named) < len([*pages.named(kept.read, root)])
    with pytest.raises(IntegrityError, match="gone"):
        list(pages.named(read, root))


# ---------------------------------------------------------------------------------- with real episodes


def many(count, **more):
    return [episode(5 + i % 9, i, task=("lift", "place")[i % 2], **more) for i in range(count)]


def rich(seed):
    def frames():
        rng = np.random.default_rng(seed)
        for _ in range(6):
            yield rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)

    return episode(
        6,
        seed,
        source_timestamp_ns=np.arange(6, dtype=np.int64) + 2**60 + seed,
        t0_ns=2**60 + seed,
        valid=np.array([True, False, True, True, True, True]),
        success=bool(seed % 2),
        flags=("resampled",),
        cameras={"wrist": Camera((16, 16, 3), frames, "/cam")},
        raw_streams=(RawStream(np.arange(9, dtype=np.int64), np.ones((9, 2), np.float32) * seed, "/ft"),),
        sync={"action": {"maxAgeNs": 12, "meanAgeNs": 3.5}},
    )


def exported(version, out):
    """What `emboflow dataset export` does, from a folder instead of a store."""
    manifest = (version / "manifest.json").read_bytes()
    root = pages.root_of(json.loads(manifest))
    names = []

    def read(sha256, size):
        page = (version / "objects" / sha256).read_bytes()
        names.append(f"{pages.FOLDER}/{sha256}.jsonl")
        (out / pages.FOLDER).mkdir(parents=True, exist_ok=True)
        (out / names[-1]).write_bytes(page)
        return page

    def fetch(file, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(version / "objects" / file["sha256"], path))

    compose(manifest, (one.entry for one in pages.episodes(read, root)), fetch, out, extra=names)
    return out


@pytest.mark.parametrize("episodes", [many(40), [rich(1), rich(2), rich(3)]], ids=["plain", "rich"])
def test_a_version_becomes_the_package_again_byte_for_byte(tmp_path, episodes):
    write(tmp_path / "package", episodes, robot_type="Panda", source_assets=[{"assetId": "a", "sha256": "b"}])
    package = open_canonical(tmp_path / "package")
    split(package, tmp_path / "version")
    out = exported(tmp_path / "version", tmp_path / "out")

    assert {f["path"]: f for f in package.manifest.files} == {
        f["path"]: f for f in open_canonical(out).manifest.files if not f["path"].startswith("version/")
    }
    report = check_folder(out)
    assert (report.ok, report.by_episode, report.episodes) == (True, True, len(episodes))


def test_equal_packages_make_equal_versions_and_a_dropped_episode_shares_the_rest(tmp_path):
    objects = []
    for name, episodes in (("a", many(300)), ("b", many(300)), ("c", many(300)[:77] + many(300)[78:])):
        write(tmp_path / name, episodes)
        manifest = split(open_canonical(tmp_path / name), tmp_path / f"{name}.version")
        files = {p.name: p.stat().st_size for p in (tmp_path / f"{name}.version" / "objects").iterdir()}
        objects.append((manifest["tree"]["sha256"], files))
    (a, all_of_a), (b, all_of_b), (c, all_of_c) = objects

    assert (a, all_of_a) == (b, all_of_b)
    assert a != c
    fresh = {name: size for name, size in all_of_c.items() if name not in all_of_a}
    assert sum(fresh.values()) < 0.1 * sum(all_of_a.values())
    assert len(fresh) <= 6


def test_the_content_of_an_episode_is_its_values_not_its_file():
    plain = pa.table({"a": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32())), "n": [1, None]})
    again = pa.concat_tables([plain.slice(0, 1), plain.slice(1)])
    assert table_digest(plain) == table_digest(again) == table_digest(plain.select(["n", "a"]))
    others = [
        {"a": [[1.0, 2.0], [3.0, 5.0]], "n": [1, None]},
        {"a": [[1.0, 2.0, 3.0], [4.0]], "n": [1, None]},
        {"a": [[1.0, 2.0], [3.0, 4.0]], "n": [1, 0]},
        {"b": [[1.0, 2.0], [3.0, 4.0]], "n": [1, None]},
    ]
    digests = {
        table_digest(
            pa.table(
                {k: pa.array(v, pa.list_(pa.float32()) if k != "n" else pa.int64()) for k, v in o.items()}
            )
        )
        for o in others
    }
    assert len(digests | {table_digest(plain)}) == 5
    with pytest.raises(InvalidInputError, match="none of emboflow-canonical/1"):
        table_digest(pa.table({"a": pa.array([b"x"], pa.binary())}))


@pytest.fixture
def out(tmp_path):
    write(tmp_path / "package", [*many(30)])
    split(open_canonical(tmp_path / "package"), tmp_path / "version")
    return exported(tmp_path / "version", tmp_path / "out")


def codes(folder, **more):
    return [(p["code"], p["episode"]) for p in check_folder(folder, **more).problems]


def honest(folder, name):
    """Whoever changes a file may change the manifest with it: then only the tree tells."""
    from emboflow_dagster.formats.canonical.writer import file_sha256

    manifest = json.loads((folder / "manifest.json").read_text())
    row = next(f for f in manifest["files"] if f["path"] == name)
    row |= {"sha256": file_sha256(folder / name), "size": (folder / name).stat().st_size}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_changed_number_is_found_although_the_manifest_was_changed_with_it(out):
    frames = pq.read_table(out / "frames.parquet")
    values = np.array(frames.column("action").combine_chunks().flatten())
    row = next(i for i, n in enumerate(frames.column("episode_index").to_pylist()) if n == 7)
    values[2 * row] += 1e-3
    column = pa.ListArray.from_arrays(np.arange(0, len(values) + 1, 2, dtype=np.int32), pa.array(values))
    place = frames.column_names.index("action")
    pq.write_table(frames.set_column(place, frames.schema.field("action"), column), out / "frames.parquet")

    assert codes(out)
    honest(out, "frames.parquet")
    assert codes(out) == [("hash-mismatch", 7)]


def test_a_table_that_was_only_written_anew_is_the_same_data(out):
    pq.write_table(pq.read_table(out / "frames.parquet"), out / "frames.parquet", compression="none")
    honest(out, "frames.parquet")

    assert codes(out) == []


def test_a_changed_label_is_found(out):
    table = pq.read_table(out / "episodes.parquet")
    rows = table.to_pylist()
    rows[4]["success"] = True
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), out / "episodes.parquet")
    honest(out, "episodes.parquet")

    assert codes(out) == [("hash-mismatch", 4)]


def test_the_tree_of_another_version_is_found(out, tmp_path):
    """Positive control of ``expect``: everything is consistent, and still not that version."""
    true = check_folder(out).version_sha256
    write(tmp_path / "p2", many(29))
    split(open_canonical(tmp_path / "p2"), tmp_path / "v2")
    other = exported(tmp_path / "v2", tmp_path / "out2")

    assert codes(out, expect=f"sha256:{true}") == codes(other) == []
    assert codes(other, expect=true) == [("hash-mismatch", None)]
    with pytest.raises(InvalidInputError):
        check_folder(out, expect="abc")


@pytest.mark.parametrize("name", ["frames.parquet", "tasks.parquet", "version/manifest.json"])
def test_a_missing_file_is_found(out, name):
    (out / name).unlink()
    assert ("payload-missing", None) in codes(out)


def test_a_missing_page_is_found_although_the_manifest_does_not_name_it(out):
    page = next((out / pages.FOLDER).iterdir())
    page.unlink()
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["files"] = [f for f in manifest["files"] if not f["path"].endswith(page.name)]
    (out / "manifest.json").write_text(json.dumps(manifest))

    assert codes(out) == [("payload-missing", None)]


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [("frame_index", 3, "frame_index"), ("timestamp", 9.0, "timestamp"), ("episode_index", 5, "episode 0")],
)
def test_a_package_whose_tables_do_not_agree_is_no_version(tmp_path, column, value, text):
    write(tmp_path / "d", many(4))
    frames = pq.read_table(tmp_path / "d" / "frames.parquet")
    values = frames.column(column).to_pylist()
    values[1] = value
    place = frames.column_names.index(column)
    changed = frames.set_column(
        place, frames.schema.field(column), pa.array(values, frames.schema.field(column).type)
    )
    pq.write_table(changed, tmp_path / "d" / "frames.parquet")
    honest(tmp_path / "d", "frames.parquet")

    with pytest.raises(InvalidInputError, match=text):
        split(open_canonical(tmp_path / "d"), tmp_path / "v")


def test_an_episode_of_several_tasks_keeps_them_frame_by_frame(tmp_path):
    write(tmp_path / "d", many(4))
    for name, column, values in (
        ("frames.parquet", "task_index", lambda old: [1, *old[1:]]),
        ("episodes.parquet", "tasks", lambda old: [["lift", "place"], *old[1:]]),
    ):
        table = pq.read_table(tmp_path / "d" / name)
        place = table.column_names.index(column)
        new = pa.array(values(table.column(column).to_pylist()), table.schema.field(column).type)
        pq.write_table(table.set_column(place, table.schema.field(column), new), tmp_path / "d" / name)
        honest(tmp_path / "d", name)
    split(open_canonical(tmp_path / "d"), tmp_path / "v")
    back = open_canonical(exported(tmp_path / "v", tmp_path / "out"))

    tasks = back.tasks()
    named = [tasks[i] for i in back.frames(0, ["task_index"]).column("task_index").to_pylist()]
    assert named == ["place", "lift", "lift", "lift", "lift"]
    assert check_folder(tmp_path / "out").ok
