"""What stands before the label server: who may ask, and what a request may hold."""

from __future__ import annotations

import hmac
import ipaddress
import json
import re
import socket
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from aide_monai.errors import InputError
from aide_monai.label_app.requests import checked, require_name, require_part

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_TASK = re.compile(r"/(train|scoring|activelearning|batch/infer)(/[^/]*)?/?$")
_NAMES: dict[str, Callable[[str, str], None]] = {
    **dict.fromkeys(("image", "id", "label"), require_part),
    **dict.fromkeys(("tag", "session_id"), require_name),
}
_BODY_BYTES = 1_000_000


class Guard:
    """Refuses requests in one sentence before the server sees them (ASGI middleware).

    - A browser says which page a request comes from and by which name it found the server. Pages of other servers are
      refused, and so are names that are not this machine's, for a page can give a name of its own any address.
    - With a token, every request has to bring it: ``Authorization: Bearer TOKEN``. Clients of MONAI Label ask for a
      user and a password; the token is the password.
    - Images, labels, tags and sessions have plain names.
    - Of the values of a task's request only those that the task knows are passed on, each of the right type.

    Args:
        app: the server.
        token: what every request has to bring; None lets all in.
        hosts: further names of this machine.
        origins: pages of other servers that may ask, such as ``http://viewer.hospital.org``.
        devices: names of devices that clients were told.
    """

    def __init__(
        self,
        app: App,
        *,
        token: str | None = None,
        hosts: Collection[str] = (),
        origins: Collection[str] = (),
        devices: Collection[str] = (),
    ) -> None:
        self.app = app
        self.token = token
        self.hosts = {"localhost", socket.gethostname().lower(), *(host.lower() for host in hosts)}
        self.origins = {origin.rstrip("/").lower() for origin in origins}
        self.devices = devices

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        status, answer = self._stranger(headers)
        try:
            if not status and self.token is not None and scope["method"] != "OPTIONS":
                status, answer = await self._without_token(scope, headers, receive)
            if not status:
                receive = await self._plain(scope, receive)
        except InputError as error:
            status, answer = 400, {"detail": str(error)}
        if not status:
            await self.app(scope, receive, send)
            return
        body = json.dumps(answer).encode()
        kind = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": kind})
        await send({"type": "http.response.body", "body": body})

    def _stranger(self, headers: MutableMapping[str, str]) -> tuple[int, Any]:
        """Refusal of a page of another server, or of a name that is not this machine's."""
        host, origin = headers.get("host", ""), headers.get("origin")
        name, _ = _place(f"//{host}")
        if name not in self.hosts and not _is_address(name):
            return 403, {
                "detail": f"host {host!r} is no name of this server; name it by --conf hosts, or use an address"
            }
        known = origin is None or origin.lower() in self.origins or _place(origin)[1] == host.lower()
        if not known:
            return 403, {"detail": f"a page of {origin!r} may not ask this server; name it by --conf origins if it may"}
        return 0, None

    async def _without_token(
        self, scope: Message, headers: MutableMapping[str, str], receive: Receive
    ) -> tuple[int, Any]:
        """Refusal without the token, and the answers by which a client gets it from its user."""
        path = scope["path"].rstrip("/")
        if path.endswith("/auth"):
            return 200, {"enabled": True, "client_id": "", "realm": ""}
        if path.endswith("/auth/token") and scope["method"] == "POST":
            form = dict(parse_qsl((await _body(receive)).decode("utf-8", "replace")))
            if self._is_token(form.get("password", "")):
                return 200, {"access_token": self.token, "token_type": "Bearer"}
            return 401, {"detail": "the password is not the token of this server"}
        kind, _, brought = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._is_token(brought.strip()):
            return (200, {"username": "token"}) if path.endswith("/auth/token/valid") else (0, None)
        return 401, {"detail": "this server wants a token: Authorization: Bearer TOKEN"}

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode("utf-8", "replace"), str(self.token).encode())

    async def _plain(self, scope: Message, receive: Receive) -> Receive:
        """Checks names and values; gives the body with the values that are passed on."""
        path = scope["path"]
        if any(part in (".", "..") for part in re.split(r"[/\\]", path)):
            raise InputError("the address has .. in it; expected the plain address of the server's interface")
        for key, value in parse_qsl(scope.get("query_string", b"").decode("latin-1")):
            if key in _NAMES:
                _NAMES[key](key, value)
        task = _TASK.search(path)
        if task is None or scope["method"] != "POST":
            return receive
        sent = await _body(receive)
        try:
            values = json.loads(sent) if sent else None
        except (ValueError, RecursionError) as error:
            raise InputError(f"the request is no JSON ({error}); expected an object") from None
        if values is not None:
            if values and not (task[2] or "").strip("/"):
                raise InputError(f"found values for all at once; expected POST /{task[1]}/NAME for one of them")
            sent = json.dumps(checked(task[1], values, devices=self.devices)).encode()
        length = (b"content-length", str(len(sent)).encode())
        scope["headers"] = [header for header in scope["headers"] if header[0].lower() != b"content-length"] + [length]
        return _once(sent, receive)


def _place(address: str) -> tuple[str, str]:
    """Name, and name with port, of an address; empty where it is none."""
    try:
        parts = urlsplit(address)
        return (parts.hostname or "").lower(), parts.netloc.lower()
    except ValueError:
        return "", ""


def _is_address(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


async def _body(receive: Receive) -> bytes:
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > _BODY_BYTES:
            raise InputError(f"the request has more than {_BODY_BYTES} bytes; expected a few values")
        more = message.get("more_body", False)
    return b"".join(parts)


def _once(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read already, then what comes after it."""
    rest = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return rest.pop() if rest else await receive()

    return replay
