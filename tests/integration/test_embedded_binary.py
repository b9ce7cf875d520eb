"""Which `mongod` is taken, and what is said when it cannot run. The broken ones are programs that fail."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from emboflow_dagster.errors import ConfigurationError, ErrorKind
from emboflow_dagster.mongo import embedded
from emboflow_dagster.mongo.embedded import processes

FIND_AND_LIST = """
import sys
from emboflow_dagster.mongo.embedded import locate_mongod
locate_mongod()
print(sorted(name for name in sys.modules if name.startswith("fiftyone")))
"""


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_the_variable_comes_first_then_path_then_the_extra(tmp_path, monkeypatch):
    named = program(tmp_path / "named", "exit 0")
    (tmp_path / "bin").mkdir()
    on_path = program(tmp_path / "bin" / "mongod", "exit 0")

    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("EMBOFLOW_MONGOD", str(named))
    assert embedded.locate_mongod() == named
    monkeypatch.delenv("EMBOFLOW_MONGOD")
    assert embedded.locate_mongod() == on_path
    monkeypatch.setenv("PATH", str(tmp_path))
    assert embedded.locate_mongod().parts[-4:] == ("fiftyone", "db", "bin", "mongod")


def test_the_extra_is_found_without_importing_it():
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            FIND_AND_LIST,
        ],
        env={**os.environ, "PATH": "/nonexistent"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "[]"


def test_no_mongod_at_all_names_the_extra_and_the_setting(tmp_path, monkeypatch):
    monkeypatch.delenv("EMBOFLOW_MONGOD", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [])
    sys.path_importer_cache.clear()
    monkeypatch.setattr(
        sys, "meta_path", [finder for finder in sys.meta_path if "editable" not in str(finder)]
    )

    with pytest.raises(ConfigurationError) as caught:
        embedded.locate_mongod()

    assert caught.value.kind == ErrorKind.MONGOD_MISSING
    assert "embedded" in (caught.value.hint or "")
    assert "EMBOFLOW_MONGO_URI" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["not-there", "folder"])
def test_a_variable_that_names_no_program_is_refused(tmp_path, monkeypatch, name):
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv("EMBOFLOW_MONGOD", str(tmp_path / name))

    with pytest.raises(ConfigurationError, match=name) as caught:
        embedded.locate_mongod()

    assert caught.value.kind == ErrorKind.MONGOD_MISSING


def test_the_real_one_is_usable():
    info = embedded.check_mongod(embedded.locate_mongod())

    assert info.usable
    assert info.missing_libraries == ()
    assert info.version is not None
    assert int(info.version.split(".")[0]) >= 5


@pytest.mark.parametrize(
    ("library", "package"),
    [("libcurl.so.4", "libcurl4"), ("libcrypto.so.3", "libssl3"), ("liblzma.so.5", "liblzma5")],
)
def test_a_missing_library_is_named_with_its_package(tmp_path, monkeypatch, library, package):
    loader = (
        f"echo 'mongod: error while loading shared libraries: {library}: cannot open shared object file: "
        "No such file or directory' >&2; exit 127"
    )
    monkeypatch.setenv("EMBOFLOW_MONGOD", str(program(tmp_path / "mongod", loader)))

    with pytest.raises(ConfigurationError) as caught:
        embedded.ensure(tmp_path / "home")

    assert caught.value.kind == ErrorKind.MONGOD_LIBRARY
    assert library in caught.value.message
    assert f"apt-get install {package}" in (caught.value.hint or "")


@pytest.mark.skipif(sys.platform != "linux", reason="the loader's own message is Linux's")
def test_a_library_that_is_really_missing_is_found(tmp_path):
    """A copy of the real binary that asks for a library no machine has: the loader's own words."""
    binary = tmp_path / "mongod"
    content = embedded.locate_mongod().read_bytes()
    assert b"libcurl.so.4\0" in content
    binary.write_bytes(content.replace(b"libcurl.so.4\0", b"libnope.so.4\0"))
    binary.chmod(0o755)

    info = embedded.check_mongod(binary)

    assert info.missing_libraries == ("libnope.so.4",)
    assert "libnope.so.4" in (info.problem or "")
    assert "libnope.so.4" in (info.hint or "")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("kill -ILL $$", "AVX"),
        (
            'echo "/lib/libc.so.6: version `GLIBC_2.34\' not found (required by mongod)" >&2; exit 1',
            "GLIBC_2.34",
        ),
        ("echo 'db version v4.4.6'", "4.4.6"),
        ("echo 'something else'; exit 3", "something else"),
        ("exit 0", "no output"),
    ],
)
def test_what_cannot_run_is_said_in_one_line(tmp_path, script, words):
    info = embedded.check_mongod(program(tmp_path / "mongod", script.replace("`", "\\`")))

    assert not info.usable
    assert words in (info.problem or "")
    assert "\n" not in (info.problem or "")
    with pytest.raises(ConfigurationError):
        info.require_usable()


def test_a_text_file_is_not_a_program(tmp_path):
    binary = tmp_path / "mongod"
    binary.write_bytes(b"\x7fELF not really")
    binary.chmod(0o755)

    assert "cannot be run" in (embedded.check_mongod(binary).problem or "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_is_named(tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "small", str(disk)], check=False)
    if mounted.returncode != 0:
        pytest.skip("this container may not mount")
    try:
        server = embedded.ensure(disk / "home")
        target = processes.process(server.pid)
        assert target is not None
        with processes.Handle(target) as running:
            running.send(signal.SIGKILL)
            assert running.wait(10)
        (server.log_path).write_text("")
        with (disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while filler.write(b"x" * 4096):
                pass
        with pytest.raises(ConfigurationError, match="No space left") as caught:
            embedded.ensure(disk / "home")
        assert caught.value.kind == ErrorKind.DISK_FULL
    finally:
        embedded.stop(disk / "home")
        subprocess.run(["umount", "-l", str(disk)], check=True)
