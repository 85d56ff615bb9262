"""Which servers answer on this machine, and what they list."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from chatmagic.errors import EndpointError, RequestError
from chatmagic.events import Request
from chatmagic.provider.client import OpenAIClient
from chatmagic.provider.local import answering

MODELS = {"object": "list", "data": [{"id": "one"}, {"id": "two\x1b[31m"}, {"no": "id"}, "odd"]}


@contextmanager
def listing(answer: bytes) -> Iterator[str]:
    """A server that gives *answer* to every GET; yields its base URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def test_only_servers_that_list_models_count() -> None:
    """A server that answers with something else, or not at all, or is elsewhere, is none to talk to."""
    with listing(json.dumps(MODELS).encode()) as good, listing(b"<html>hello</html>") as other:
        endpoints = {
            "good": {"url": good},
            "other": {"url": other},
            "dead": {"url": "http://127.0.0.1:1/v1"},
            "far": {"url": "https://api.example.org/v1"},
        }

        assert answering(endpoints) == ["good"]


def test_error_without_a_key_names_a_server_that_answers() -> None:
    """Who has no key but a running server is told how to use it."""
    with listing(json.dumps(MODELS).encode()) as url:
        client = OpenAIClient({"mine": {"url": url}}, environ={})
        with pytest.raises(EndpointError, match=r"OPENAI_API_KEY .*mine answers here, -m mine:MODEL"):
            list(client.stream(Request("gpt-6-luna", [])))


def test_models_are_what_the_server_lists() -> None:
    """The ids come in the server's order, and are kept for completion."""
    with listing(json.dumps(MODELS).encode()) as url:
        client = OpenAIClient({"mine": {"url": url}}, environ={})

        assert client.models("mine") == ["one", "two\x1b[31m"]
        assert client.listed == {"mine": ["one", "two\x1b[31m"]}


def test_models_of_the_demo() -> None:
    """The demo lists its one model."""
    assert OpenAIClient(environ={}).models("demo") == ["demo"]


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"data": 5}', b""], ids=["html", "list", "no list", "empty"])
def test_no_list_of_models(answer: bytes) -> None:
    """A server that lists no models is an error in one line."""
    with listing(answer) as url, pytest.raises(RequestError, match="lists no models"):
        OpenAIClient({"mine": {"url": url}}, environ={}).models("mine")


def test_models_of_an_unknown_endpoint() -> None:
    """An endpoint that nobody knows is an error that names those that are known."""
    with pytest.raises(EndpointError, match=r"no endpoint 'nowhere' \(known: openai, .*demo"):
        OpenAIClient(environ={}).models("nowhere")


def test_models_without_a_server() -> None:
    """A server that is not there is an error with its address."""
    with pytest.raises(RequestError, match=r"http://127\.0\.0\.1:1/v1"):
        OpenAIClient({"mine": {"url": "http://127.0.0.1:1/v1"}}, environ={}).models("mine")
