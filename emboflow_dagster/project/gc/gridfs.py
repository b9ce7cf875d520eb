"""The same for payloads in GridFS: a file is its versions' alone, and only its age protects it besides.

The layout is MongoDB's own (`fs.files`, `fs.chunks`); the collections need not be there.
"""

from datetime import UTC, datetime
from typing import Any, Final

from emboflow_dagster.mongo import gridfs
from emboflow_dagster.mongo.client import Mongo, Raw, translated
from emboflow_dagster.project.gc.edges import EdgeKind
from emboflow_dagster.project.gc.shards import SHARDS, Shards, digest_of_file
from emboflow_dagster.project.gc.sweep import Sweep

PAGE: Final = 500
#: How the ids begin that this package gives (`blobs.gridfs`).
OURS: Final = "gfs_"


def collect_files(mongo: Mongo, shards: Shards, sweep: Sweep, before: datetime) -> None:
    """Collect the files that no version needs.

    Args:
        mongo: The open database.
        shards: What is kept and what may go.
        sweep: The pass this belongs to.
        before: Files uploaded later stay.
    """
    _look(mongo, shards)
    for shard in SHARDS:
        kept, gone = shards.kept(shard), shards.gone(shard)
        for file in shards.seen(shard):
            sweep.report.payloads += 1
            digest = digest_of_file(file["id"])
            if digest in kept:
                sweep.report.kept[kept[digest].value] += 1
            elif datetime.fromtimestamp(file["at"], UTC) >= before:
                sweep.report.kept[EdgeKind.YOUNG.value] += 1
            elif sweep.buried(file["id"], file["size"], gone.get(file["id"], [])):
                gridfs.delete(mongo, file["id"])
    for file_id in gridfs.orphan_chunks(mongo, before=before):
        if file_id.startswith(OURS):  # another program's uploads are not ours to judge
            sweep.report.aborted_uploads += 1
            if not sweep.report.dry_run:
                gridfs.delete(mongo, file_id)


def _look(mongo: Mongo, shards: Shards) -> None:
    after: Raw = {}
    fields = {"length": 1, "uploadDate": 1}
    with translated():
        while page := list(mongo[gridfs.FILES].find(after, fields).sort("_id", 1).limit(PAGE)):
            after = {"_id": {"$gt": page[-1]["_id"]}}
            for file in page:
                if isinstance(file["_id"], str):  # another program's files are not ours to judge
                    at = file["uploadDate"].timestamp()
                    row: dict[str, Any] = {"id": file["_id"], "size": int(file["length"]), "at": at}
                    shards.see(digest_of_file(file["_id"]), row)
    shards.flush()
