"""What a webserver answers, and what becomes of it; the real one is asked in the acceptance tests."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from emboflow_dagster.errors import EmboflowError, ExecutionError, UnavailableError
from emboflow_dagster.orchestration.sync import sync
from emboflow_dagster.orchestration.webserver import Webserver


@pytest.fixture
def answering():
    """Serves one answer (status, text) to everything; its URL."""
    servers = []

    def serve(status, text):
        class Answer(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                return

        server = HTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def reloaded(**answer):
    return json.dumps({"data": {"reloadRepositoryLocation": answer}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (reloaded(__typename="RepositoryLocationNotFound", message="no such location"), "no such location"),
        (
            reloaded(
                __typename="WorkspaceLocationEntry",
                loadStatus="LOADED",
                locationOrLoadError={"__typename": "PythonError", "message": "SyntaxError"},
            ),
            "does not load: SyntaxError",
        ),
        (json.dumps({"errors": [{"message": "bad query"}]}), "bad query"),
    ],
)
def test_a_reload_that_did_not_happen_says_why(answering, text, message):
    with pytest.raises(ExecutionError, match=message):
        Webserver(answering(200, text)).reload()


@pytest.mark.parametrize(("status", "text"), [(500, "oops"), (200, "<html>")])
def test_an_answer_that_is_none_is_an_error_of_ours(answering, status, text):
    with pytest.raises(EmboflowError):
        Webserver(answering(status, text)).reload()


def test_nobody_there_is_unavailable():
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        Webserver("http://127.0.0.1:1").reload()


def test_sync_never_fails_what_was_published(answering, tmp_path):
    good = answering(200, reloaded(__typename="WorkspaceLocationEntry", loadStatus="LOADED"))

    assert sync(tmp_path, url=good).reloaded == ("emboflow",)
    assert sync(tmp_path, url="http://127.0.0.1:1").reloaded == ()
    assert "error[unavailable]" in sync(tmp_path, url="http://127.0.0.1:1").message
    assert sync(tmp_path).message.startswith("no Dagster webserver is known")


def test_a_webserver_is_found_while_its_process_lives(tmp_path, monkeypatch):
    server = Webserver("http://127.0.0.1:3000")
    server.announce(tmp_path)
    found = Webserver.known(tmp_path)
    note = tmp_path / "emboflow-webserver.json"
    note.write_text(
        note.read_text().replace(f'"pid": {json.loads(note.read_text())["pid"]}', '"pid": 2147483646')
    )

    assert found == server
    assert Webserver.known(tmp_path) is None
    monkeypatch.setenv("EMBOFLOW_DAGSTER_URL", "https://dagster.example.org/")
    assert Webserver.known(tmp_path) == Webserver("https://dagster.example.org")
