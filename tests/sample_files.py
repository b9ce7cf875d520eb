"""Where the real recordings are, and what a test says where they are not."""

import os
from pathlib import Path

import pytest

SAMPLES = Path(os.environ.get("EMBOFLOW_SAMPLES") or Path(__file__).parents[1].parent / "shared" / "samples")


def needed(there: object) -> None:
    """Fail in CI, where they must be, and skip elsewhere, unless what is wanted of them is ``there``."""
    if not there:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            f"no samples under {SAMPLES}; set EMBOFLOW_SAMPLES"
        )
