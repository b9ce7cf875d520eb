"""The database that needs no set-up: a real `mongod`, private to one `EMBOFLOW_HOME`.

:func:`ensure` starts it or finds the one that runs, :func:`find` only looks, :func:`stop` ends it. It listens
on 127.0.0.1 alone, outlives its starter, and comes back on the same data after a kill -9. Linux only: a
process is recognised by what `/proc` says about it, never by a number in a file.

Source: DESIGN.md "Embedded default"; docs/decisions/0004-embedded-mongod.md.
"""

from emboflow_dagster.mongo.embedded.binary import MongodInfo, check_mongod, locate_mongod
from emboflow_dagster.mongo.embedded.server import EmbeddedServer, ensure, find, stop

__all__ = ["EmbeddedServer", "MongodInfo", "check_mongod", "ensure", "find", "locate_mongod", "stop"]
