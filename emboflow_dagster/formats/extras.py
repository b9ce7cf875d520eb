"""Parsers that not every installation has: a missing one is said with the command that brings it."""

from collections.abc import Iterator
from contextlib import contextmanager

from emboflow_dagster.errors import ConfigurationError, ErrorKind


@contextmanager
def needs_extra(name: str) -> Iterator[None]:
    """Import an optional library inside this block.

    Args:
        name: The extra of this package that brings it: ``rosbag``, ``hdf5``, ``video`` and so on.

    Raises:
        ConfigurationError: The library is not installed (code ``extra-missing``).
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"this needs the Python package {(error.name or 'of an extra').partition('.')[0]}",
            hint=f"pip install 'emboflow-dagster[{name}]'",
            kind=ErrorKind.EXTRA_MISSING,
        ) from error
