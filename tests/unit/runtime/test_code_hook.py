import gc
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from emboflow_dagster.runtime.code_hook import check_code_hook

BODY = "\n".join(f"    x = {{'k': [c for c in range({i})]}}" for i in range(60))
HOOK = {"language": "python", "entrypoint": "f", "source": f"def f(ctx, inputs):\n{BODY}\n    return x\n"}


class _Dies:
    """Its finalizer runs Python code where the collector is called: a chance to switch threads in there."""

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        for _ in range(50):
            pass


@pytest.fixture
def eager_switches() -> Iterator[None]:
    threshold, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(5)
    sys.setswitchinterval(1e-6)
    yield
    gc.set_threshold(*threshold)
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("eager_switches")
def test_eight_threads_check_hooks_at_once() -> None:
    def check(_: int) -> list[object]:
        _Dies()
        return [*check_code_hook(HOOK, "codeHook")]

    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        found = [problem for problems in pool.map(check, range(160)) for problem in problems]

    assert found == []
    assert list(warnings.filters) == before
