"""A real MONAI Label server in its own environment, and a client that speaks its REST interface."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.waiting import LIMIT_SECONDS, wait_for

CONF = {"zoo_source": "local", "sam2": "false"}  # settings of the stock app, which else asks the internet


class LabelServer:
    """Starts ``python -m monailabel.main start_server`` and talks to it.

    Args:
        python: interpreter of the environment that ``make label-env`` makes.
        app: folder of the app.
        studies: folder of the images.
        conf: the app's settings, ``--conf`` for each.
        environment: further environment variables.
        token: what every request brings, if the app wants one.
    """

    def __init__(
        self,
        python: Path,
        app: Path,
        studies: Path,
        conf: dict[str, str],
        *,
        environment: Mapping[str, str] | None = None,
        token: str | None = None,
    ) -> None:
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = app / "server.log"
        self.app = app
        self.studies = studies
        arguments = [str(python), "-m", "monailabel.main", "start_server", "--app", str(app), "--studies", str(studies)]
        arguments += ["--host", "127.0.0.1", "--port", str(self.port)]
        for key, value in conf.items():
            arguments += ["--conf", key, value]
        variables = {key: value for key, value in os.environ.items() if not key.startswith("COV_")}
        variables |= {"OMP_NUM_THREADS": "1", "MONAI_LABEL_SESSIONS": "false", **(environment or {})}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(arguments, stdout=log, stderr=subprocess.STDOUT, env=variables, cwd=app)
        self._wait()

    def _wait(self) -> None:
        def answers() -> bool:
            try:
                return bool(self.get("/info/"))
            except OSError:
                return False

        try:
            wait_for(answers, alive=lambda: self.process.poll() is None, what="a server that answers")
        except AssertionError as error:
            self.stop()
            raise AssertionError(f"the server did not start:\n{self.log.read_text()[-4000:]}") from error

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def call(self, method: str, path: str, body: bytes | None = None, content: str = "application/json") -> bytes:
        """Body of the answer; ``urllib.error.HTTPError`` for anything but success."""
        with urllib.request.urlopen(self._request(method, path, body, content), timeout=LIMIT_SECONDS) as answer:
            return answer.read()

    def _request(
        self, method: str, path: str, body: bytes | None, content: str, headers: dict[str, str] | None = None
    ) -> urllib.request.Request:
        known = {**self.headers, **(headers or {}), **({} if body is None else {"Content-Type": content})}
        return urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=body, method=method, headers=known)

    def answer(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        content: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Status code and JSON of the answer, whatever it is; ``headers`` beside, or in place of, the client's."""
        try:
            with urllib.request.urlopen(
                self._request(method, path, body, content, headers), timeout=LIMIT_SECONDS
            ) as found:
                return found.status, json.loads(found.read())
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            return error.code, json.loads(text) if text.startswith("{") else {"detail": text}

    def get(self, path: str) -> Any:
        return json.loads(self.call("GET", path))

    def post(self, path: str, body: Any = None) -> Any:
        return json.loads(self.call("POST", path, json.dumps({} if body is None else body).encode()))

    def status(self, method: str, path: str, body: bytes | None = None) -> int:
        """Status code of the answer, whatever it is."""
        try:
            self.call(method, path, body)
            return 200
        except urllib.error.HTTPError as error:
            return error.code

    def infer(self, model: str, image: str) -> bytes:
        """The mask of an image, as the NIfTI file that the server sends."""
        fields, content = multipart({"params": "{}"})
        return self.call("POST", f"/infer/{model}?image={quote(image)}&output=image", fields, content)

    def infer_file(self, model: str, image: Path) -> bytes:
        """The mask of an image that is not in the datastore."""
        fields, content = multipart({"params": "{}"}, file=image)
        return self.call("POST", f"/infer/{model}?output=image", fields, content)

    def put_label(self, image: str, file: Path, *, tag: str = "final") -> Any:
        fields, content = multipart({"params": "{}"}, label=file)
        return json.loads(self.call("PUT", f"/datastore/label?image={quote(image)}&tag={tag}", fields, content))

    def remove_label(self, image: str, *, tag: str = "final") -> None:
        self.call("DELETE", f"/datastore/label?id={quote(image)}&tag={tag}")

    def checksum(self, model: str) -> str:
        """Checksum of the served weights."""
        return self.get(f"/model/info/{model}")["checksum"]

    def image_info(self, image: str) -> dict[str, Any]:
        return self.get(f"/datastore/image/info?image={quote(image)}")

    def train(self, model: str, **parameters: Any) -> dict[str, Any]:
        """Train and wait for the end; the finished task."""
        self.post(f"/train/{model}", {"multi_gpu": False, "device": "cpu", **parameters})
        return self.finished("train")

    def finished(self, method: str) -> dict[str, Any]:
        """Wait for a background task (train, scoring, batch/infer) and return its state."""
        return wait_for(lambda: self._ended(method), what=f"the end of {method}")

    def running(self, method: str) -> bool:
        """Whether the last background task has not ended yet."""
        return self._ended(method) is None

    def _ended(self, method: str) -> dict[str, Any] | None:
        task = self.get(f"/{method}/")
        return None if task["status"] in ("SUBMITTED", "RUNNING") else task


def quote(text: str) -> str:
    return urllib.parse.quote(text, safe="")


def multipart(fields: dict[str, str], **files: Path) -> tuple[bytes, str]:
    """Body and content type of a form with files."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    for name, path in files.items():
        header = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{path.name}"\r\n\r\n'
        parts.append(header.encode() + path.read_bytes() + b"\r\n")
    return b"".join([*parts, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"
