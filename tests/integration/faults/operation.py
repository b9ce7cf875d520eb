"""What an operation that is interrupted says of itself."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from emboflow_dagster.project.handle import EmboFlow

Ack = Callable[[str], None]
Counts = Mapping[str, int]


class Operation:
    """One way of writing."""

    name: ClassVar[str]
    #: Documents that it adds, by collection; all others stay as they were.
    adds: ClassVar[Counts] = {}
    #: Audit rows that it adds, by action.
    audit: ClassVar[Counts] = {}
    #: Whether opening the handle is the operation.
    opening: ClassVar[bool] = False
    #: Whether several threads write files: their order is another one each time.
    threads: ClassVar[bool] = False

    def prepare(self, ef: EmboFlow, folder: Path) -> None:
        """What must be there before."""

    def act(self, ef: EmboFlow, folder: Path, ack: Ack) -> None:
        """The operation; ``ack`` names what was acknowledged to the caller."""
        raise NotImplementedError

    def lost(self, ef: EmboFlow, acked: list[str]) -> list[str]:
        """What was acknowledged before the interruption and is not there."""
        return []

    def repeat(self, ef: EmboFlow, folder: Path) -> None:
        """The same again, by someone who does not know how far it came."""
        self.act(ef, folder, lambda _: None)

    def wrong(self, ef: EmboFlow) -> list[str]:
        """What else is not as if it had been done once."""
        return []

    def documents(self) -> Mapping[str, int]:
        """All documents it adds, audit rows among them."""
        return {**self.adds, **({"audit_logs": sum(self.audit.values())} if self.audit else {})}
