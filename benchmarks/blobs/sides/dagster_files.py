"""Dagster's FilesystemIOManager: a pickle a key, no hash, no fsync."""

from pathlib import Path
from typing import Any


class Side:
    """The IO manager called as a step calls it."""

    takes = "bytes"

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        import dagster as dg
        from dagster._core.storage.fs_io_manager import PickledObjectFilesystemIOManager

        del options
        self.dg = dg
        self.folder = folder
        self._known: dict[str, tuple[Any, Any]] = {}
        self.manager: Any = PickledObjectFilesystemIOManager(base_dir=str(folder))

    def versions(self) -> str:
        return f"dagster {self.dg.__version__}"

    def _contexts(self, name: str) -> tuple[Any, Any]:
        """What a step hands to its IO manager; making them is no part of storing."""
        if name not in self._known:
            output = self.dg.build_output_context(asset_key=[name], run_id="run", step_key=name)
            self._known[name] = (
                output,
                self.dg.build_input_context(asset_key=[name], upstream_output=output),
            )
        return self._known[name]

    def before_put(self, source: Any, name: str) -> None:
        del source
        self._contexts(name)

    def before_get(self, handle: str) -> None:
        self._contexts(handle)

    def put(self, source: Any, name: str) -> str:
        context = self._contexts(name)[0]
        self.manager.handle_output(context, source)
        context._user_generated_metadata = {}  # noqa: SLF001 - a step has a context of its own; making one is slow
        return name

    def get(self, handle: str) -> Any:
        return self.manager.load_input(self._contexts(handle)[1])

    put_frame = put
    get_frame = get

    def clean(self, names: list[str]) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)
