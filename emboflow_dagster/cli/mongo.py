"""`emboflow mongo`: the embedded database, or which server is used instead."""

from pathlib import Path

from emboflow_dagster.cli import output, progress
from emboflow_dagster.cli.deployment import settings
from emboflow_dagster.cli.failures import redacted
from emboflow_dagster.cli.state import noun, verb
from emboflow_dagster.errors import ConfigurationError

app = noun("The embedded database of EMBOFLOW_HOME, or the server that EMBOFLOW_MONGO_URI names.")


@verb(app, "uri", example='mongosh "$(emboflow mongo uri)"')
def uri() -> None:
    """The URI of the database; the embedded one is started. A password is never shown."""
    from emboflow_dagster.mongo import embedded

    found = settings()
    if found.mongo_uri is not None:
        text = redacted(found.mongo_uri)
    else:
        with progress.waiting("starting the embedded database"):
            text = embedded.ensure(found.home).uri
    output.emit({"uri": text, "database": found.database}, lambda: output.lines([text]))


@verb(app, "status", example="emboflow mongo status")
def status() -> None:
    """Which server it is and whether it runs; nothing is started."""
    from emboflow_dagster.mongo import embedded

    found = settings()
    if found.mongo_uri is not None:
        value = {"mode": "external", "uri": redacted(found.mongo_uri), "database": found.database}
        output.emit(value, lambda: output.pairs(value.items()))
        return
    server = embedded.find(found.home)
    data = server.data_dir if server else found.home / "mongo" / "data"
    value = {
        "mode": "embedded",
        "running": server is not None,
        "uri": server.uri if server else None,
        "pid": server.pid if server else None,
        "port": server.port if server else None,
        "database": found.database,
        "dataDir": str(data),
        "dataBytes": _bytes_below(data),
        "log": str(server.log_path) if server else None,
    }
    output.emit(value, lambda: _page(value))


@verb(app, "stop", example="emboflow mongo stop")
def stop() -> None:
    """End the embedded database cleanly; whoever needs it next starts it again on the same data."""
    from emboflow_dagster.mongo import embedded

    found = settings()
    if found.mongo_uri is not None:
        raise ConfigurationError(
            "EMBOFLOW_MONGO_URI names a server of your own: it is not ours to stop",
            hint="unset EMBOFLOW_MONGO_URI to stop the embedded one",
        )
    with progress.waiting("stopping the embedded database"):
        stopped = embedded.stop(found.home)
    output.emit({"stopped": stopped}, lambda: output.lines(["stopped" if stopped else "it was not running"]))


def _page(value: dict[str, object]) -> None:
    from emboflow_dagster.cli import figures

    shown = {**value, "dataBytes": figures.size(int(str(value["dataBytes"])))}
    names = {"dataDir": "data", "dataBytes": "size"}
    output.pairs((names.get(key, key), item) for key, item in shown.items())


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size
        except OSError:  # the server renames files as it works
            continue
    return total
