"""polars DataFrames and LazyFrames, where polars is installed; it is never imported otherwise."""

from importlib import import_module
from typing import Any

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.orchestration.payloads import tables
from emboflow_dagster.orchestration.payloads.handler import Draft, Handler, Payload, Stored, is_named


class PolarsHandler(Handler):
    """``polars.DataFrame``; a ``LazyFrame`` is collected, and comes back lazy where that is annotated."""

    name = "polars"

    def stores(self, value: object) -> bool:
        """Whether it is one of polars' frames."""
        return is_named(type(value), "polars.DataFrame", "polars.LazyFrame")

    def makes(self, annotation: Any) -> bool:
        """Whether an input wants one."""
        return isinstance(annotation, type) and is_named(annotation, "polars.DataFrame", "polars.LazyFrame")

    def dump(self, value: Any, draft: Draft) -> Payload:
        """The frame in the format of the manager.

        Raises:
            InvalidInputError: A column has a type that would not come back.
        """
        frame = value if type(value).__name__ == "DataFrame" else value.collect()
        with tables.arrow_errors("the polars frame cannot be written as a table"):
            table = frame.to_arrow()
        tables.check_schema(table, draft, self.name)
        facts = tables.facts_of(table, draft)
        for column, dtype in zip(facts.columns or [], frame.dtypes, strict=True):
            column.type = str(dtype)
        back = import_module("polars").from_arrow(table.slice(0, 0))
        if back.schema != frame.schema:
            changed = [name for name, dtype in frame.schema.items() if back.schema.get(name) != dtype]
            raise InvalidInputError(
                f"the polars frame cannot be stored unchanged: {', '.join(changed)} would change type",
                kind=ErrorKind.VALUE_TYPE,
                hint="cast those columns first",
            )
        return tables.payload(table, draft, self.name, facts)

    def load(self, stored: Stored) -> Any:
        """The frame."""
        frame = import_module("polars").from_arrow(tables.read(stored))
        return frame.lazy() if getattr(stored.annotation, "__name__", "") == "LazyFrame" else frame
