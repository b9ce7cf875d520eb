"""Where Dagster keeps what its steps print: this machine, or a bucket through dagster-aws.

`EMBOFLOW_COMPUTE_LOGS` says it: ``local``, or ``s3://bucket/prefix``. Unset, they go beside the payloads
where `EMBOFLOW_OBJECT_STORE` is a bucket. It is written into ``dagster.yaml`` when a home is made, and yours
from then on.
"""

import json
import os
from pathlib import Path
from typing import Final

from emboflow_dagster.errors import ConfigurationError
from emboflow_dagster.object_storage.s3 import S3ObjectStore

VARIABLE: Final = "EMBOFLOW_COMPUTE_LOGS"
LOCAL: Final = "local"
FOLDER: Final = "compute-logs"
#: Seconds after which somebody on another machine sees what a step has printed so far.
UPLOAD_SECONDS: Final = 30
_HINT: Final = f"{VARIABLE}=local keeps them on the machine, s3://bucket/prefix in a bucket"


def destination() -> str:
    """The URL that the environment names for them, or ``local``."""
    said = os.environ.get(VARIABLE, "").strip()
    if said:
        return said
    store = os.environ.get("EMBOFLOW_OBJECT_STORE", "").strip().rstrip("/")
    return f"{store}/{FOLDER}" if store.lower().startswith("s3://") else LOCAL


def block(home: Path) -> str:
    """The part of ``dagster.yaml`` for them; empty for Dagster's own way, files in its home.

    Raises:
        ConfigurationError: The variable is neither ``local`` nor the URL of a bucket.
    """
    url = destination()
    if url == LOCAL:
        return ""
    if not url.lower().startswith("s3://"):
        raise ConfigurationError(f"{VARIABLE}: found {url!r}", hint=_HINT)
    try:
        bucket = S3ObjectStore.from_url(url)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{VARIABLE}: found {url!r}, which is no bucket with a prefix", hint=_HINT
        ) from error
    return f"""
# What steps print, for every machine; credentials and endpoint come from the standard AWS_* variables.
compute_logs:
  module: dagster_aws.s3.compute_log_manager
  class: S3ComputeLogManager
  config:
    bucket: {json.dumps(bucket.bucket)}
    prefix: {json.dumps(bucket.prefix or FOLDER)}
    local_dir: {json.dumps(str(home / FOLDER))}
    upload_interval: {UPLOAD_SECONDS}
    skip_empty_files: true
"""
