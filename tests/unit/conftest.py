"""What holds for all unit tests."""


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a case by its argument when the value is bytes.

    Archives hold the time they were made at: with their bytes in the name, the processes of pytest-xdist
    would collect different tests.
    """
    return argname if isinstance(val, bytes) else None
