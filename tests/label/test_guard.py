"""What stands before the label server, by itself."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from aide_monai.label_app.guard import Guard

HERE = {"host": "127.0.0.1:8000"}


def ask(
    path: str,
    *,
    method: str = "POST",
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    query: str = "",
    **options: Any,
) -> tuple[int, Any]:
    """Status and content of the answer; of a request that passes 200 and what the server gets as its body."""

    async def server(scope, receive, send) -> None:
        parts = []
        while (message := await receive())["type"] == "http.request":
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                break
        length = [value for name, value in scope["headers"] if name == b"content-length"]
        assert length in ([], [str(len(b"".join(parts))).encode()])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(b"".join(parts).decode()).encode()})

    async def run() -> list[dict[str, Any]]:
        pieces = [body[i : i + 400_000] for i in range(0, len(body), 400_000)] or [b""]
        messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        messages[-1]["more_body"] = False
        sent: list[dict[str, Any]] = []

        async def receive():
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        known = [(name.encode(), value.encode()) for name, value in (HERE if headers is None else headers).items()]
        scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": known}
        await Guard(server, **options)(scope, receive, send)
        return sent

    start, content = asyncio.run(run())
    return start["status"], json.loads(content["body"])


def test_of_a_request_the_known_values_reach_the_server():
    body = json.dumps({"max_epochs": 3, "bundle_path": "/x", "run_id": "y", "device": ["cpu"]}).encode()
    status, passed = ask("/train/liver", body=body)
    assert (status, json.loads(passed)) == (200, {"max_epochs": 3, "device": "cpu"})
    assert ask("/train/liver") == (200, "")
    assert ask("/train/", body=b"{}") == (200, "{}")
    assert ask("/datastore/label", method="PUT", body=b"\xc3\xa4", query="image=scan%231%20$x&tag=final") == (200, "ä")


@pytest.mark.parametrize(
    ("path", "body", "query", "message"),
    [
        ("/train/liver", b'{"max_epochs": "abc"}', "", "max_epochs is 'abc'; expected a whole number in 1..100000"),
        ("/scoring/suspicion", b'{"device": "$1"}', "", "device is '$1'; expected cpu, cuda or cuda:N"),
        ("/batch/infer/liver", b'{"images": ["a"]}', "", "images is ['a']; expected one of all, labeled, unlabeled"),
        ("/activelearning/random", b'{"strategy": {}}', "", "strategy is {}; expected a plain name"),
        ("/train/", b'{"liver": {"max_epochs": 1}}', "", "found values for all at once; expected POST /train/NAME"),
        ("/train/liver", b"{", "", "the request is no JSON"),
        ("/train/liver", b"[1]", "", "found [1]; expected an object"),
        ("/train/liver", b"1" * 1_000_001, "", "the request has more than 1000000 bytes"),
        ("/session/..", b"", "", "the address has .. in it"),
        ("/infer/liver", b"", "image=..%2Fx", "image is '../x'; expected a plain name, without slashes"),
        ("/infer/liver", b"", "image=a&session_id=%2Fx", "session_id is '/x'; expected a plain name"),
        ("/datastore/label", b"", "image=a&tag=a%2Fb", "tag is 'a/b'; expected a plain name"),
    ],
)
def test_other_values_are_refused_in_one_sentence(path, body, query, message):
    status, answer = ask(path, body=body, query=query)
    assert status == 400
    assert answer["detail"].startswith(message)


@pytest.mark.parametrize(
    ("headers", "options", "status"),
    [
        ({"host": "127.0.0.1:8000"}, {}, 200),
        ({"host": "[::1]:8000"}, {}, 200),
        ({"host": "localhost:8000", "origin": "http://localhost:8000"}, {}, 200),
        ({"host": "elsewhere.org:8000"}, {}, 403),
        ({"host": "elsewhere.org:8000", "origin": "http://elsewhere.org:8000"}, {}, 403),
        ({"host": "gpu.hospital.org"}, {"hosts": ["GPU.hospital.org"]}, 200),
        ({**HERE, "origin": "http://elsewhere.org"}, {}, 403),
        ({**HERE, "origin": "null"}, {}, 403),
        ({**HERE, "origin": "http://127.0.0.1:9000"}, {}, 403),
        ({**HERE, "origin": "http://viewer.org"}, {"origins": ["http://viewer.org/"]}, 200),
        ({}, {}, 403),
        ({"host": "[::1"}, {}, 403),
        ({**HERE, "origin": "http://["}, {}, 403),
    ],
)
def test_pages_of_other_servers_and_foreign_names_are_refused(headers, options, status):
    found, answer = ask("/train/liver", body=b"{}", headers=headers, **options)
    assert found == status
    assert status == 200 or "--conf" in answer["detail"]


def test_with_a_token_every_request_has_to_bring_it():
    token = {"token": "secret"}
    bearer = {**HERE, "authorization": "Bearer secret"}
    for headers in (HERE, {**HERE, "authorization": "Bearer sECRET"}, {**HERE, "authorization": "Basic secret"}):
        assert ask("/info/", method="GET", headers=headers, **token)[0] == 401
    assert ask("/info/", method="GET", headers=bearer, **token)[0] == 200
    assert ask("/train/liver", method="OPTIONS", **token)[0] == 200  # a browser asks what it may send

    # as MONAI Label's client logs in
    assert ask("/auth/", method="GET", **token) == (200, {"enabled": True, "client_id": "", "realm": ""})
    assert ask("/auth/token", body=b"username=me&password=wrong&grant_type=password", **token)[0] == 401
    granted = ask("/auth/token", body=b"username=me&password=secret&grant_type=password", **token)
    assert granted == (200, {"access_token": "secret", "token_type": "Bearer"})
    assert ask("/auth/token/valid", method="GET", **token)[0] == 401
    assert ask("/auth/token/valid", method="GET", headers=bearer, **token)[0] == 200
