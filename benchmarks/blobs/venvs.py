"""An environment a peer, made once under .bench-venvs; nothing of them comes into ours."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from peers import Peer

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".bench-venvs"
INSTALL_TIMEOUT_S = 1200


def python_of(peer: Peer) -> Path:
    """The interpreter that has the peer, installed when it is not there yet.

    Raises:
        RuntimeError: It cannot be installed; the message is one line.
    """
    if not peer.pins:
        return Path(sys.executable)
    digest = hashlib.sha256("\n".join(peer.pins).encode()).hexdigest()[:8]
    folder = FOLDER / f"{peer.side.removesuffix('_side')}-{digest}"
    python = folder / "bin" / "python"
    if (folder / ".ready").exists():
        return python
    print(f"installing {', '.join(peer.pins)} into {folder.relative_to(ROOT)}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    uv = shutil.which("uv")
    try:
        if uv:
            _run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)])
            _run([uv, "pip", "install", "--quiet", "--python", str(python), *peer.pins])
        else:
            _run([sys.executable, "-m", "venv", str(folder)])
            _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.pins])
    except (OSError, subprocess.SubprocessError) as error:
        output = getattr(error, "stderr", None) or str(error)
        raise RuntimeError(f"cannot be installed: {str(output).strip().splitlines()[-1][:200]}") from None
    (folder / ".ready").touch()
    return python


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
