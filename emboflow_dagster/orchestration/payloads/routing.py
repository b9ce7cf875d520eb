"""Who stores a value and who loads a payload: the one place where that is decided."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

from emboflow_dagster.errors import ConfigurationError, ErrorKind, InvalidInputError, shown
from emboflow_dagster.orchestration.payloads.arrays import ArrayHandler, ArraysHandler
from emboflow_dagster.orchestration.payloads.arrow_tables import ArrowHandler
from emboflow_dagster.orchestration.payloads.frames import PandasHandler
from emboflow_dagster.orchestration.payloads.handler import Draft, Handler, Payload, Stored
from emboflow_dagster.orchestration.payloads.pickles import PickleHandler
from emboflow_dagster.orchestration.payloads.plain import (
    BytesHandler,
    ListingHandler,
    PathHandler,
    StreamHandler,
    TextHandler,
)
from emboflow_dagster.orchestration.payloads.polars_frames import PolarsHandler
from emboflow_dagster.orchestration.payloads.values import JsonHandler, ModelHandler, plain_of

_BYTES: Final = BytesHandler()
#: Asked in this order, after a user's own and after what ``allow_pickle`` names.
BUILT_IN: Final[tuple[Handler, ...]] = (
    PandasHandler(),
    ArrowHandler(),
    PolarsHandler(),
    ArrayHandler(),
    ArraysHandler(),
    ModelHandler(),
    PathHandler(),
    TextHandler(),
    _BYTES,
    JsonHandler(),
    StreamHandler(),
    ListingHandler(),
)


class Handlers:
    """The handlers of one IO manager, in the order in which they are asked."""

    def __init__(self, own: Sequence[Handler] = (), *, allow_pickle: Sequence[str] = ()) -> None:
        self.all: Final = (*own, PickleHandler(allow_pickle), *BUILT_IN)

    @classmethod
    def configured(cls, names: Sequence[str], allow_pickle: Sequence[str] = ()) -> "Handlers":
        """From the configuration: ``module:name`` of handlers, handler classes, or sequences of them.

        Names rather than objects, because steps run in other processes, which make their own.

        Raises:
            ConfigurationError: There is no such module or name, or it is no handler.
        """
        own = [handler for name in names for handler in _imported(name)]
        return cls(own, allow_pickle=allow_pickle)

    def dump(self, value: object, draft: Draft) -> Payload:
        """A value as bytes.

        Raises:
            InvalidInputError: No handler stores this type, or the value cannot be written.
        """
        for handler in self.all:
            if handler.stores(value):
                payload = handler.dump(value, draft)
                payload.serializer = payload.serializer or handler.name
                return payload
        kind = type(value)
        raise InvalidInputError(
            f"an output of type {kind.__name__} cannot be stored: {shown(value)}",
            kind=ErrorKind.SERIALISED_UNKNOWN,
            hint=(
                "return a DataFrame, table, array, dict, list, number, text, bytes, Path or model; "
                "for another type register a handler, or write a file and return its Path"
            ),
        )

    def load(self, stored: Stored) -> Any:
        """The value of a payload.

        Raises:
            InvalidInputError: The payload is not what is annotated, or would run code.
            IntegrityError: Its bytes are not the stored ones, or nothing that can be read.
        """
        return self.loader(stored.content_type, stored.serializer, stored.annotation).load(stored)

    def loader(self, content_type: str, serializer: str | None, annotation: Any) -> Handler:
        """The handler of the annotation, else of who stored it, else of the content type, else bytes."""
        plain = content_type.partition(";")[0].strip()
        kind = plain_of(annotation)
        pickle = next(handler for handler in self.all if isinstance(handler, PickleHandler))
        pickled = plain in pickle.reads or (serializer is not None and pickle.recognises(serializer))
        for handler in self.all:
            if kind is not None and handler.makes(kind):
                # Of a pickle only the bytes or the file are had without unpickling it.
                raw = isinstance(handler, BytesHandler | PathHandler | StreamHandler)
                return handler if raw or not pickled else pickle
        if pickled:
            return pickle
        for handler in self.all:
            if serializer is not None and handler.recognises(serializer):
                return handler
        return next((handler for handler in self.all if plain in handler.reads), _BYTES)


def _imported(name: str) -> list[Handler]:
    module, _, attribute = name.partition(":")
    try:
        found: Any = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"handlers: {shown(name)} cannot be imported: {error}",
            hint="write module:name, of a module that the code location can import",
        ) from None
    result = []
    for one in found if isinstance(found, list | tuple) else [found]:
        handler = one() if isinstance(one, type) and issubclass(one, Handler) else one
        if not isinstance(handler, Handler):
            raise ConfigurationError(f"handlers: {shown(name)} is no Handler but {type(one).__name__}")
        result.append(handler)
    return result
