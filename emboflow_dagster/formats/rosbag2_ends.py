"""What the first and last pages of a rosbag2 database declare: its topics, and the first and last message.

Messages are numbered as they are appended, so the last number says how many there are; none of them is read.
"""

from typing import Any, BinaryIO, Final

from emboflow_dagster.formats.sqlite_pages import Pages

MAX_TOPICS: Final = 1_000
#: id, topic, stamp: what stands before the bytes of a message.
_BEFORE_DATA: Final = 3


def summary(file: BinaryIO, size: int) -> dict[str, Any]:
    """The tables of a database that may be a bag's.

    Args:
        file: The database, which can be sought.
        size: Its bytes.

    Returns:
        ``format``; of a bag also ``messageCount``, ``durationNs`` (between its first and last row) and
        ``topics`` {name: {type}}; counts and times are ``None`` where the pages are not there.

    Raises:
        ValueError: It is no database.
    """
    pages = Pages(file, size)
    tables = pages.tables()
    if not {"topics", "messages"} <= set(tables):
        return {"format": "sqlite3", "tables": sorted(tables)[:100]}
    topics: dict[str, dict[str, str]] = {}
    for _, row in pages.tree(tables["topics"]):
        if len(row) > _BEFORE_DATA and len(topics) < MAX_TOPICS:
            topics[str(row[1])] = {"type": str(row[2])}
    first, last = (pages.end(tables["messages"], last=which, columns=_BEFORE_DATA) for which in (False, True))
    whole = size % pages.page_size == 0
    found: dict[str, Any] = {"format": "rosbag2_sqlite3", "topics": topics}
    if first is None or last is None:
        return found | {
            "messageCount": None if size > pages.page_size and not whole else 0,
            "durationNs": None,
        }
    stamps = [row[1][2] for row in (first, last)]
    timed = all(isinstance(stamp, int) for stamp in stamps)
    return found | {
        "messageCount": last[0] - first[0] + 1,
        "durationNs": stamps[1] - stamps[0] if timed else None,
    }
