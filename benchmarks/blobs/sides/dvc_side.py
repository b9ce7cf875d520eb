"""DVC: add and push to a remote that is a folder; fetch and checkout from there."""

import shutil
from pathlib import Path
from typing import Any


class Side:
    """The Python API of a repository without git. What git would do is not counted."""

    takes = "file"

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        import dvc
        from dvc.repo import Repo

        self.module: Any = dvc
        self.work, self.remote = folder / "work", folder / "remote"
        if not options.get("joins"):
            self._init(Repo)
        self.repo = Repo(str(self.work))

    def _init(self, kind: Any) -> None:
        self.work.mkdir()
        self.remote.mkdir()
        with kind.init(str(self.work), no_scm=True).config.edit() as config:
            config["core"] |= {"remote": "bench", "analytics": False}
            config["remote"]["bench"] = {"url": str(self.remote)}

    def versions(self) -> str:
        return f"dvc {self.module.__version__}"

    def before_put(self, source: Path, name: str) -> None:
        """DVC takes what lies in its work tree: brought there before the clock starts."""
        shutil.copyfile(source, self.work / name)

    def put(self, source: Path, name: str) -> list[str]:
        del source
        path = self.work / name
        self.repo.add([str(path)])
        self.repo.push([str(path) + ".dvc"])
        return [name, (self.work / f"{name}.dvc").read_text()]

    def before_get(self, handle: list[str]) -> None:
        """As on another machine: only the `.dvc` file is there."""
        name, text = handle
        (self.work / name).unlink(missing_ok=True)
        (self.work / f"{name}.dvc").write_text(text)
        empty(self.work / ".dvc" / "cache")
        self.repo._reset()  # noqa: SLF001 - it remembers what it had read

    def get(self, handle: list[str]) -> Path:
        self.repo.pull([str(self.work / f"{handle[0]}.dvc")], force=True)
        return self.work / handle[0]

    def clean(self, names: list[str]) -> None:
        for name in names:
            (self.work / name).unlink(missing_ok=True)
            (self.work / f"{name}.dvc").unlink(missing_ok=True)
        empty(self.remote)
        empty(self.work / ".dvc" / "cache")
        self.repo._reset()  # noqa: SLF001


def empty(folder: Path) -> None:
    """Remove the files of a folder; DVC remembers which folders it has made."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()
