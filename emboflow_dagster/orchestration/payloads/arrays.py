"""numpy arrays as ``.npy``, dicts of them as ``.npz``; object arrays are pickles, refused both ways."""

import zipfile
from collections.abc import Mapping
from typing import IO, Any, Final, cast, get_args, get_origin

from emboflow_dagster.errors import ErrorKind, IntegrityError, InvalidInputError, shown
from emboflow_dagster.orchestration.payloads.handler import Draft, Facts, Handler, Payload, Stored, is_named

NPY: Final = "application/x-npy"
NPZ: Final = "application/x-npz"
_MAX_SHOWN: Final = 200
_MAX_DTYPE: Final = 8_000  # numpy reads headers of at most 10,000


def _is_array(value: object) -> bool:
    return is_named(type(value), "numpy.ndarray")


def _names_array(annotation: Any) -> bool:
    kind = get_origin(annotation) or annotation  # NDArray[np.float64] is ndarray[...]
    return isinstance(kind, type) and is_named(kind, "numpy.ndarray")


def _checked(value: Any, name: str) -> Any:
    import numpy as np

    if value.dtype.hasobject:
        raise InvalidInputError(
            f"{name} has dtype {value.dtype}: an array of objects would be pickled",
            kind=ErrorKind.SERIALISED_UNSAFE,
            hint="give it a numeric or text dtype",
        )
    if len(str(value.dtype.descr)) > _MAX_DTYPE:
        raise InvalidInputError(
            f"{name} has a dtype of more than {_MAX_DTYPE} characters, which numpy would not read back",
            kind=ErrorKind.VALUE_TYPE,
        )
    # Equal arrays are equal bytes, whichever way they lie in memory.
    return np.asarray(value, order="C")


def _write(out: IO[bytes], value: Any) -> None:
    import numpy as np

    # Said, not guessed: numpy warns when it has to take the newer one.
    version = (1, 0) if str(value.dtype.descr).isascii() else (3, 0)
    np.lib.format.write_array(out, value, version=version, allow_pickle=False)


def _read_one(file: IO[bytes]) -> Any:
    import numpy as np

    try:
        return np.lib.format.read_array(file, allow_pickle=False)
    except ValueError as error:
        if "Object arrays" in str(error):
            raise InvalidInputError(
                "the payload is an array of objects, which is a pickle: it is not loaded",
                kind=ErrorKind.SERIALISED_UNSAFE,
            ) from None
        raise _corrupt(error) from None
    except (OSError, EOFError, SyntaxError) as error:
        raise _corrupt(error) from None


def _corrupt(error: object) -> IntegrityError:
    return IntegrityError(
        f"the payload holds no arrays that can be read: {error}", kind=ErrorKind.FILE_CORRUPT
    )


class ArrayHandler(Handler):
    """``numpy.ndarray``."""

    name = "npy"
    reads = frozenset({NPY})

    def stores(self, value: object) -> bool:
        """Whether it is an array; subclasses, such as masked ones, hold more than that."""
        return _is_array(value)

    def makes(self, annotation: Any) -> bool:
        """Whether an input wants one."""
        return _names_array(annotation)

    def dump(self, value: Any, draft: Draft) -> Payload:
        """The array as a ``.npy`` file."""
        array = _checked(value, "the array")
        facts = Facts(extra={"shape": str(array.shape), "dtype": str(array.dtype)})
        return Payload(draft.stream(lambda out: _write(out, array)), NPY, self.name, facts)

    def load(self, stored: Stored) -> Any:
        """The array."""
        with stored.file().open("rb") as file:
            return _read_one(file)


class ArraysHandler(Handler):
    """A dict of names to ``numpy.ndarray``."""

    name = "npz"
    reads = frozenset({NPZ})

    def stores(self, value: object) -> bool:
        """Whether it is a dict of arrays alone."""
        return type(value) is dict and bool(value) and all(map(_is_array, value.values()))

    def makes(self, annotation: Any) -> bool:
        """Whether an input wants one."""
        arguments = get_args(annotation)
        return get_origin(annotation) in (dict, Mapping) and _names_array(arguments[-1])

    def dump(self, value: Any, draft: Draft) -> Payload:
        """The arrays as one ``.npz`` file, by name, with no time in it."""
        for name in value:
            if type(name) is not str or not name or not name.isprintable() or len(name) > _MAX_SHOWN:
                raise InvalidInputError(
                    f"an array is named {shown(name)}; a name is printable, of 1-{_MAX_SHOWN} characters",
                    kind=ErrorKind.KEY_TYPE,
                )
        arrays = {name: _checked(array, f"array {name!r}") for name, array in sorted(value.items())}
        rows = [
            {"name": name, "dtype": str(array.dtype), "shape": str(array.shape), "bytes": array.nbytes}
            for name, array in arrays.items()
        ]

        def write(out: IO[bytes]) -> None:
            # Not `np.savez`: it takes names as keyword arguments, of which "file" is its own.
            with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
                for name, array in arrays.items():
                    entry = zipfile.ZipInfo(name + ".npy")  # of 1980, always
                    with archive.open(entry, "w", force_zip64=True) as member:
                        _write(cast("IO[bytes]", member), array)

        return Payload(draft.stream(write), NPZ, self.name, Facts(extra={"arrays": {"table": rows}}))

    def load(self, stored: Stored) -> Any:
        """The arrays by name."""
        try:
            with zipfile.ZipFile(stored.file()) as archive:
                result = {}
                for entry in archive.infolist():
                    with archive.open(entry) as member:
                        result[entry.filename.removesuffix(".npy")] = _read_one(member)
                return result
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise _corrupt(error) from None
