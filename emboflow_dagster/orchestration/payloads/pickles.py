"""Pickles of the types that the deployment names, and of no others.

A pickle is a program. It is loaded only when ``allow_pickle`` names every global that it asks for, one by
one; opcodes that reach a class by another way are refused before anything is executed.

Source: spec/reliability.md, "Security decisions"; corpus category "serialised payloads".
"""

import io
import pickle
import pickletools
from collections.abc import Sequence
from typing import Any, Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError, shown
from emboflow_dagster.orchestration.payloads.handler import Draft, Facts, Handler, Payload, Stored

PICKLE: Final = "application/x-python-pickle"
PICKLES: Final = frozenset(
    {PICKLE, "application/x-pickle", "application/python-pickle", "application/pickle"}
)
MAX_PICKLE_BYTES: Final = 8 << 20
_PROTOCOL: Final = 5
# Classes by number or by text instead of by GLOBAL, and buffers from outside of the payload.
_REFUSED: Final = frozenset({"INST", "OBJ", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"})
_PERSISTENT: Final = frozenset({"PERSID", "BINPERSID"})


class PickleHandler(Handler):
    """Values of the types in ``allow_pickle``."""

    name = "pickle"
    reads = PICKLES

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self.allowed: Final = frozenset(allowed)

    def stores(self, value: object) -> bool:
        """Whether the value's own type is named."""
        kind = type(value)
        return f"{kind.__module__}.{kind.__qualname__}" in self.allowed

    def makes(self, annotation: Any) -> bool:
        """Whether an input wants a type that is named."""
        name = f"{getattr(annotation, '__module__', '')}.{getattr(annotation, '__qualname__', '')}"
        return name in self.allowed

    def dump(self, value: Any, draft: Draft) -> Payload:
        """The value pickled, after making sure that it can be loaded by the same rule.

        Raises:
            InvalidInputError: It needs a global that is not named.
        """
        del draft
        try:
            content = pickle.dumps(value, protocol=_PROTOCOL)
        except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidInputError(
                f"the value cannot be pickled: {error}", kind=ErrorKind.VALUE_TYPE
            ) from None
        loads(content, self.allowed)
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        return Payload(content, PICKLE, f"{self.name}:{name}", Facts(extra={"type": name}))

    def load(self, stored: Stored) -> Any:
        """The value.

        Raises:
            InvalidInputError: No global is named in this deployment, or not one that the pickle asks for.
        """
        if not self.allowed:
            raise InvalidInputError(
                "the payload is a pickle, which runs code when it is loaded; none is allowed here",
                kind=ErrorKind.SERIALISED_UNSAFE,
                hint='name what it may hold: BlobIOManager(allow_pickle=["package.Type"])',
            )
        return loads(stored.read(), self.allowed)


def loads(content: bytes, allowed: frozenset[str] = frozenset()) -> Any:
    """The value of a pickle that asks for no other global than the allowed ones.

    Args:
        content: At most 8 MiB.
        allowed: ``module.name`` of each global, exactly.

    Raises:
        InvalidInputError: ``pickle-size``, ``pickle-opcode``, ``pickle-persistent``, ``pickle-global`` or
            ``pickle-corrupt``. Nothing that is not allowed was imported or called.
    """
    if len(content) > MAX_PICKLE_BYTES:
        raise InvalidInputError(
            f"the pickle has {len(content)} bytes; at most {MAX_PICKLE_BYTES >> 20} MiB are loaded",
            kind=ErrorKind.PICKLE_SIZE,
            hint="write large values to a file of a format of their own",
        )
    _check_opcodes(content)
    stream = io.BytesIO(content)
    try:
        value = _Restricted(stream, allowed).load()
    except InvalidInputError:
        raise
    except MemoryError:
        raise _corrupt("it asks for more memory than there is") from None
    except Exception as error:  # noqa: BLE001 - a damaged pickle fails in any way
        raise _corrupt(f"{type(error).__name__}: {error}") from None
    if stream.read(1):
        raise _corrupt("something follows its end")
    return value


class _Restricted(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, allowed: frozenset[str]) -> None:
        super().__init__(stream)
        self._allowed = allowed

    def find_class(self, module: str, name: str, /) -> Any:
        if f"{module}.{name}" not in self._allowed:
            raise InvalidInputError(
                f"the pickle asks for {shown(f'{module}.{name}')}, which is not allowed",
                kind=ErrorKind.PICKLE_GLOBAL,
                hint="add it to allow_pickle only when you know what it does when it is called",
            )
        return super().find_class(module, name)

    def persistent_load(self, pid: Any, /) -> Any:
        raise InvalidInputError(
            f"the pickle refers to {shown(pid)} outside of itself", kind=ErrorKind.PICKLE_PERSISTENT
        )


def _check_opcodes(content: bytes) -> None:
    try:
        for opcode, _, position in pickletools.genops(content):
            if opcode.name in _REFUSED:
                raise InvalidInputError(
                    f"the pickle uses the opcode {opcode.name} at byte {position}, which is not allowed",
                    kind=ErrorKind.PICKLE_OPCODE,
                )
            if opcode.name in _PERSISTENT:
                raise InvalidInputError(
                    f"the pickle refers to something outside of itself at byte {position}",
                    kind=ErrorKind.PICKLE_PERSISTENT,
                )
    except InvalidInputError:
        raise
    except Exception as error:  # noqa: BLE001 - damaged in any way
        raise _corrupt(str(error)) from None


def _corrupt(why: str) -> InvalidInputError:
    return InvalidInputError(f"the payload is no whole pickle: {why}", kind=ErrorKind.PICKLE_CORRUPT)
