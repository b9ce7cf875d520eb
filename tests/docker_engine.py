"""A Docker daemon of the tests' own, and images made of this machine's files, nobody else's."""

import io
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

BASE = "emboflow-tests/base:1"
TOOLS = ("sh", "cat", "cp", "dd", "echo", "id", "ln", "ls", "mkdir", "sleep", "touch", "env")
#: What the scripts of these tests import of the standard library, beside its plain modules.
PACKAGES = {"collections", "encodings", "importlib", "json", "re", "urllib", "xml"}
EXTENSIONS = ("_json", "_struct", "math", "pyexpat", "_random", "_bisect")

URDF_CHECK = """
import json, sys, xml.etree.ElementTree as tree
from pathlib import Path

# What a node before it left, else the assets.
place = Path(sys.argv[2])
place = place / "artifacts" if (place / "artifacts").is_dir() else place
names = sorted(place.rglob("*.urdf"))
files, problems = {p.name for p in place.rglob("*") if p.is_file()}, []
report = {"urdfs": []}
for path in names:
    root = tree.parse(path).getroot()
    links = [link.get("name") for link in root.iter("link")]
    joints = root.findall("joint")  # those of a transmission have other contents
    for joint in joints:
        for end in ("parent", "child"):
            link = joint.find(end)
            if link is None or link.get("link") not in links:
                problems.append(f"{path.name}: joint {joint.get('name')}: {end} is no link")
    for mesh in root.iter("mesh"):
        if mesh.get("filename", "").rsplit("/", 1)[-1] not in files:
            problems.append(f"{path.name}: mesh {mesh.get('filename')} is missing")
    report["urdfs"].append({"name": path.name, "links": len(links), "joints": len(joints)})
report["problems"] = problems
Path("/out/report.json").write_text(json.dumps(report))
print(f"{len(names)} URDF files, {len(problems)} problems", *problems[:3], sep="; ")
sys.exit(bool(problems) or not names)
"""

LEROBOT_VERIFY = """
import json, sys
from pathlib import Path

# The layout of a LeRobot v3 dataset, read with the standard library; lerobot itself reads it elsewhere.
place = Path(sys.argv[2])
place = place / "artifacts" if (place / "artifacts").is_dir() else place
found = [p.parent.parent for p in place.rglob("meta/info.json")]
reports = []
for root in found:
    info = json.loads((root / "meta/info.json").read_text())
    problems = []
    if info.get("codebase_version") != "v3.0":
        problems.append(f"codebase_version is {info.get('codebase_version')}")
    for folder in ("data", "meta/episodes"):
        if not list((root / folder).rglob("*.parquet")):
            problems.append(f"{folder} has no parquet file")
    for key, feature in info.get("features", {}).items():
        if feature.get("dtype") == "video" and not list((root / "videos" / key).rglob("*.mp4")):
            problems.append(f"videos/{key} has no mp4")
    counts = {"episodes": info.get("total_episodes"), "frames": info.get("total_frames")}
    reports.append({**counts, "problems": problems})
Path("/out/report.json").write_text(json.dumps({"datasets": reports}))
print(reports)
sys.exit(not reports or any(r["problems"] for r in reports))
"""


def why_not() -> str | None:
    """Why no daemon can be started here, or ``None``."""
    if shutil.which("dockerd") is None:
        return "there is no dockerd on this machine"
    if os.getuid() != 0:
        return "dockerd is started as root"
    return None


@contextmanager
def daemon(folder: Path) -> Iterator[str]:
    """The address of a daemon without network, ended and cleared away; skips where none can run."""
    if (why := why_not()) is not None:
        pytest.skip(why)
    short = Path(tempfile.mkdtemp(prefix="dockerd-"))  # the path of a socket has few characters
    socket = short / "d.sock"
    with (folder / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "dockerd",
                *("--host", f"unix://{socket}"),
                *("--data-root", str(folder / "data")),
                *("--exec-root", str(short / "exec")),
                *("--pidfile", str(folder / "dockerd.pid")),
                *("--iptables=false", "--ip6tables=false", "--bridge=none"),
            ],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _await(process, socket, folder / "dockerd.log")
        yield f"unix://{socket}"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(short, ignore_errors=True)


def _await(process: "subprocess.Popen[bytes]", socket: Path, log: Path) -> None:
    import docker
    from docker.errors import DockerException

    for _ in range(300):
        if process.poll() is not None:
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            pytest.skip(f"dockerd cannot run here: {' '.join(last)[-300:]}")
        if socket.exists():
            try:
                with closing(docker.DockerClient(base_url=f"unix://{socket}", timeout=5)) as client:
                    client.ping()
                    return
            except (DockerException, OSError):
                pass
        time.sleep(0.05)
    pytest.skip("dockerd did not answer within 15 s")


def make_images(client: Any) -> None:
    """The base image, and the users' own images that the sample workflows name."""
    home = ["ENV PYTHONHOME=/", "ENV PATH=/bin", "ENV PYTHONDONTWRITEBYTECODE=1"]
    client.api.import_image_from_data(_root_file_system(), BASE.partition(":")[0], "1", changes=home)
    image(client, "emboflow/urdf-check:1", 'ENTRYPOINT ["python3", "/check.py"]', {"check.py": URDF_CHECK})
    image(
        client,
        "emboflow/lerobot-verify:0.4.4",
        'ENTRYPOINT ["python3", "/check.py"]',
        {"check.py": LEROBOT_VERIFY},
    )


def image(client: Any, tag: str, instructions: str, files: dict[str, str] | None = None) -> str:
    """Build an image from the base; returns its id."""
    context = io.BytesIO()
    copies = "".join(f"COPY {name} /{name}\n" for name in files or {})
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, text in {"Dockerfile": f"FROM {BASE}\n{copies}{instructions}\n", **(files or {})}.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text.encode()), 0o644
            tar.addfile(member, io.BytesIO(text.encode()))
    context.seek(0)
    made, _ = client.images.build(fileobj=context, custom_context=True, tag=tag, rm=True, forcerm=True)
    return str(made.id)


def _root_file_system() -> bytes:
    """This machine's shell, a few tools and its Python, with the libraries that they link."""
    python = Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))
    stdlib = Path(sysconfig.get_path("stdlib"))
    programs = {tool: Path(os.path.realpath(found)) for tool in TOOLS if (found := shutil.which(tool))}
    extensions = [p for name in EXTENSIONS for p in (stdlib / "lib-dynload").glob(f"{name}.*.so")]
    linked = _linked([python, *programs.values(), *extensions])
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", dereference=True) as tar:
        for folder in ("in", "out", "tmp", "proc", "sys", "dev", "etc"):
            member = tarfile.TarInfo(folder)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)
        for name, path in programs.items():
            tar.add(path, f"bin/{name}")
        tar.add(python, "bin/python3")
        for library in linked:
            tar.add(library, library.lstrip("/"))
        for path in extensions:
            tar.add(path, f"lib/{stdlib.name}/lib-dynload/{path.name}")
        for path in stdlib.rglob("*.py"):
            inner = path.relative_to(stdlib)
            if len(inner.parts) == 1 or inner.parts[0] in PACKAGES:
                tar.add(path, f"lib/{stdlib.name}/{inner.as_posix()}")
    return out.getvalue()


def _linked(programs: list[Path]) -> list[str]:
    found: set[str] = set()
    said = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    for line in said.splitlines():
        for word in line.split():
            if word.startswith("/") and not word.endswith(":"):
                found.add(word)
    return sorted(found)
