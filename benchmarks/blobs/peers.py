"""Who is measured: in which environment, pinned to which version, what it says of itself."""

from dataclasses import dataclass, field
from typing import Any, Final

MIB: Final = 1 << 20
GIB: Final = 1 << 30


@dataclass(frozen=True, eq=False)
class Peer:
    """One side of the benchmark.

    Attributes:
        name: In the table and for ``--peers``.
        side: The module in `sides/`.
        pins: Packages of its own environment; none: ours.
        options: For its module.
        hashes: What it hashes, in its own words or ours.
        syncs: Who makes it durable before it returns, where that is not seen with strace.
        max_bytes: The largest payload that it takes.
        frames: Whether it is measured with a DataFrame.
        threads: Whether its API may be called from several threads.
        beside: Which of ours keeps the bytes at the same kind of place.
    """

    name: str
    side: str
    pins: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    hashes: str = "no"
    syncs: str | None = None
    max_bytes: int = GIB
    frames: bool = False
    threads: bool = True
    beside: str = "emboflow"

    @property
    def ours(self) -> bool:
        """Whether it is this library, or the bare minimum it is held against."""
        return self.side in ("emboflow", "raw")


MONGO: Final = "mongod, w: majority"
PEERS: Final = (
    Peer("raw file", "raw", hashes="sha256", frames=True),
    Peer("emboflow", "emboflow", hashes="sha256", frames=True),
    Peer(
        "emboflow in-object",
        "emboflow",
        options={"home": "in_object"},
        hashes="sha256",
        syncs=MONGO,
        max_bytes=256 << 10,
    ),
    Peer(
        "emboflow arrow", "emboflow", options={"frames": "arrow"}, hashes="sha256", max_bytes=0, frames=True
    ),
    Peer(
        "flowcept gridfs",
        "flowcept_side",
        pins=("flowcept[mongo]==1.0.3", "pandas==2.3.3"),
        options={"inside": False},
        hashes="sha256",
        syncs=MONGO,
    ),
    Peer(
        "flowcept in-document",
        "flowcept_side",
        pins=("flowcept[mongo]==1.0.3", "pandas==2.3.3"),
        options={"inside": True},
        hashes="sha256",
        syncs=MONGO,
        beside="emboflow in-object",
        max_bytes=MIB,
    ),
    Peer("mlflow", "mlflow_side", pins=("mlflow-skinny==3.17.2",)),
    Peer("dvc", "dvc_side", pins=("dvc==3.67.1",), hashes="md5", threads=False),
    Peer(
        "zenml",
        "zenml_side",
        pins=("zenml[local]==0.98.0", "pandas==2.3.3", "pyarrow==21.0.0"),
        frames=True,
        threads=False,
    ),
    Peer(
        "metaflow", "metaflow_side", pins=("metaflow==2.19.39", "pandas==2.3.3"), hashes="sha1", frames=True
    ),
    Peer("arcticdb", "arcticdb_side", pins=("arcticdb==6.28.2",), hashes="xxhash of its keys", frames=True),
    Peer(
        "kedro",
        "kedro_side",
        pins=("kedro==1.7.0", "kedro-datasets[pandas-parquetdataset,pickle-pickledataset]==9.6.0"),
        frames=True,
        threads=False,
    ),
    Peer("dagster files", "dagster_files", frames=True),
    Peer("dagster s3", "dagster_s3", hashes="crc32 in transit", syncs="moto: memory only", frames=True),
)
