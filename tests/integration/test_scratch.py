"""Scratch folders: gone behind the block, and gone with the next one where a process was killed."""

import os
import subprocess
import sys
from pathlib import Path

from emboflow_dagster.runtime.scratch import scratch_folder

HOLDS = """\
import sys, time
from pathlib import Path
from emboflow_dagster.runtime.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "big").write_bytes(bytes(1000))
    print(folder, flush=True)
    time.sleep(60)
"""


def aged(folder: Path) -> None:
    os.utime(folder, (0, 0))


def test_what_a_killed_process_left_goes_with_the_next_and_what_is_held_stays(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    theirs = Path(process.stdout.readline().strip())
    stranger = tmp_path / "asset-without-a-lock"
    stranger.mkdir()
    aged(theirs)
    aged(stranger)
    with scratch_folder(tmp_path) as ours:
        assert theirs.is_dir()

    process.kill()
    process.communicate()
    aged(theirs)
    with scratch_folder(tmp_path) as ours:
        assert not theirs.exists()
        assert ours.is_dir()

    assert list(tmp_path.iterdir()) == [stranger]
