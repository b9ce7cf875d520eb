"""A put that is killed, or finds no room, leaves nothing under a final name that is not whole."""

import hashlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from emboflow_dagster.errors import ErrorKind, UnavailableError
from emboflow_dagster.object_storage import LocalObjectStore
from emboflow_dagster.object_storage.pump import BUFFER_BYTES

TYPE = "application/octet-stream"
PUT_FOR_EVER = """
import sys, random
from pathlib import Path
from emboflow_dagster.object_storage import LocalObjectStore
store, rng = LocalObjectStore(Path(sys.argv[1])), random.Random(int(sys.argv[2]))
print("ready", flush=True)
while True:
    size = rng.choice([10, 100_000, 5_000_000, 30_000_000])
    block = rng.randbytes(min(size, 1_000_000))
    store.put((block for _ in range(max(1, size // len(block)))), content_type="application/octet-stream")
"""
#: What a careless store does: the final name from the start.
PUT_CARELESSLY = """
import sys, random, hashlib
from pathlib import Path
rng, ready = random.Random(int(sys.argv[2])), "ready\\n"
while True:
    payload = rng.randbytes(1_000_000) * 30
    digest = hashlib.sha256(payload).hexdigest()
    # Said when it begins to write, in small pieces: in memory a large one is too quick for a kill to tear it.
    print(ready, end="", flush=True)
    ready = ""
    path = Path(sys.argv[1]) / "sha256" / digest[:2] / digest[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for start in range(0, len(payload), 1_000):
            file.write(payload[start:start + 1_000])
            file.flush()
"""


def damaged(root: Path) -> list[str]:
    """Keys whose payload is not what its name says."""
    store = LocalObjectStore(root)
    return [
        key
        for key in store.iter_keys()
        if f"sha256{hashlib.sha256(store.path_of(key).read_bytes()).hexdigest()}" != key.replace("/", "")
    ]


def kill_in_mid_put(program: str, root: Path, seed: int) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(root), str(seed)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(random.Random(seed).uniform(0.0, 0.25))
        assert child.poll() is None
    finally:
        child.kill()
        child.communicate()


def test_twenty_kills_in_mid_put_leave_only_whole_payloads(tmp_path, kills):
    store = LocalObjectStore(tmp_path)
    for seed in range(20):
        kill_in_mid_put(PUT_FOR_EVER, tmp_path, seed)
        kills.add()

    assert damaged(tmp_path) == []
    assert list(store.iter_keys()) != []  # they were killed at work, not before
    assert store.stale_uploads(older_than_s=-60) != []
    assert store.stale_uploads() == []
    kept = store.put(b"after all that", content_type=TYPE)
    assert store.read_all(kept.key, sha256=kept.sha256, size=kept.size) == b"after all that"


def test_the_same_kills_damage_a_careless_store(tmp_path, kills):
    """The positive control: this way of looking does find torn payloads where there are any."""
    for seed in range(20):
        kill_in_mid_put(PUT_CARELESSLY, tmp_path, seed)
        kills.add(control=True)
        if damaged(tmp_path):
            return
    pytest.fail("no kill tore a payload: the test above proves nothing")


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "small", str(disk)], check=False).returncode:
        pytest.skip("this container may not mount")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("size", [100, 10_000, 3 * BUFFER_BYTES, 32 * BUFFER_BYTES])
def test_a_full_disk_is_named_and_leaves_nothing_behind(small_disk, size):
    store = LocalObjectStore(small_disk / "objects")
    before = store.put(b"before", content_type=TYPE)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 4096):
            pass

    with pytest.raises(UnavailableError, match="No space left") as caught:
        store.put(iter([os.urandom(size)]), content_type=TYPE)

    assert caught.value.kind == ErrorKind.DISK_FULL
    assert list(store.iter_keys()) == [before.key]
    assert list((store.root / "tmp").iterdir()) == []
    filler.unlink()
    again = store.put(os.urandom(100), content_type=TYPE)
    assert store.exists(again.key)


def test_a_full_disk_at_the_target_of_a_copy_leaves_nothing_there(small_disk, tmp_path):
    store = LocalObjectStore(tmp_path / "objects")
    stored = store.put(iter([b"x" * BUFFER_BYTES] * 32), content_type=TYPE)

    with pytest.raises(UnavailableError) as caught:
        store.get_to(stored.key, small_disk / "copy", sha256=stored.sha256, size=stored.size)

    assert caught.value.kind == ErrorKind.DISK_FULL
    assert list(small_disk.iterdir()) == []
