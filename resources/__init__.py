"""Where this deployment's data is: the one place to change it.

Left empty, every field means the ``EMBOFLOW_*`` environment, and without that the embedded database and a
local folder. For servers of your own::

    mongo = MongoResource(uri=dg.EnvVar("TEAM_MONGO_URI"))
    s3 = S3Resource(
        endpoint_url="https://minio.example.org", aws_secret_access_key=dg.EnvVar("TEAM_S3_SECRET")
    )
    object_store = ObjectStoreResource(url="s3://recordings/emboflow", s3=s3)
"""

from typing import Any

from emboflow_dagster import BlobIOManager, MongoResource, ObjectStoreResource
from emboflow_dagster.orchestration import EmboFlowResource

mongo = MongoResource()
object_store = ObjectStoreResource()
emboflow = EmboFlowResource(mongo=mongo, object_store=object_store)
blobs = BlobIOManager(mongo=mongo, object_store=object_store)


def deployment_resources() -> dict[str, Any]:
    """Everything that assets, sensors and schedules of this deployment may ask for, by its key."""
    return {
        "mongo": mongo,
        "object_store": object_store,
        "emboflow": emboflow,
        "emboflow_io_manager": blobs,
        "io_manager": blobs,
    }
