"""Hostile requests to a real MONAI Label server with our app: expressions, and names that lead elsewhere.

The server lives in a sandbox of its own. Nothing beside its app and its studies may be written, removed or sent back,
and no text of a request may run.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.torture import tiny
from benchmarks.torture.results import Outcome
from tests.label.server import LabelServer, multipart, quote
from tests.label.tiny import tiny_bundle

GOAL = 2000
PIECE = 200
ROOT = Path(__file__).parents[2]
MODEL = "hippocampus_ssl"
SECRET = "what nobody may read"
SERVED = ("app", "studies", "temporary", "home")  # what a server may write into

Call = tuple[str, str, bytes | None, str]
"""Method, address, body and its type of a request."""


def label_python() -> Path:
    """Interpreter of ``make label-env``, or of AIDE_LABEL_PYTHON."""
    return Path(os.environ.get("AIDE_LABEL_PYTHON", ROOT / ".venv-label" / "bin" / "python"))


def start_server(folder: Path, images: int) -> LabelServer:
    """A server with our app and a tiny bundle in ``folder``, which has so many images."""
    from aide_monai.label_app.create import create_app  # it loads networks, so not in a process that forks

    data = tiny.write_data(folder / "data")
    sources = sorted((data / "imagesTr").iterdir())
    (folder / "studies").mkdir()
    for number in range(images):
        shutil.copy(sources[number % len(sources)], folder / "studies" / f"image_{number:04d}.nii.gz")
    bundle = tiny_bundle(MODEL, folder / MODEL, slice_size=[16, 16])
    create_app(folder / "app", bundle)
    for name in ("temporary", "home"):
        (folder / name).mkdir()
    environment = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "temporary")}
    return LabelServer(label_python(), folder / "app", folder / "studies", {}, environment=environment)


def run(first: int, last: int, folder: Path) -> Outcome:
    """Send requests by their numbers to a server, and look after each at what lies around it."""
    outcome = Outcome()
    server = start_server(folder, images=4)
    label = next((folder / "data" / "labelsTr").iterdir())
    server.put_label("image_0000", label)
    (folder / "evil").mkdir()
    (folder / "secret.nii.gz").write_text(SECRET)
    before = _around(folder)
    try:
        for number in range(first, last):
            kind, call = hostile(number, folder, label)
            status, answer = _send(server, call)
            after = _around(folder)
            evaluated = len([name for name in after if name.startswith("evil/ran")])
            changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
            problem = f"changed {', '.join(changed)}" if changed else ""
            problem = "sent a file from elsewhere" if SECRET.encode() in answer else problem
            if status == 0:
                problem = problem or "no answer"
            outcome.add(
                kind,
                problem,
                number=number,
                refused=status >= 400,
                expressions_evaluated=evaluated,
                files_touched_elsewhere=len(changed) - evaluated,
            )
            if changed:
                shutil.rmtree(folder / "evil")
                (folder / "evil").mkdir()
                (folder / "secret.nii.gz").write_text(SECRET)
                before = _around(folder)
            if server.process.poll() is not None:
                outcome.add("the server itself", "has ended", number=number)
                break
    finally:
        server.stop()
    return outcome


def hostile(number: int, folder: Path, file: Path) -> tuple[str, Call]:
    """Kind and content of the request with a number.

    Args:
        number: everything follows from it.
        folder: the sandbox, which the texts of the request try to write into.
        file: a sound label.
    """
    rng = random.Random(number)
    kind = list(KINDS)[number % len(KINDS)]
    return kind, KINDS[kind](rng, Texts(rng, folder, number), file)


class Texts:
    """Hostile values: expressions of MONAI's configs, ways out of a folder, and values of wrong types."""

    def __init__(self, rng: random.Random, folder: Path, number: int) -> None:
        self.rng = rng
        ran, wrote = folder / "evil" / f"ran_{number}", folder / "evil" / f"wrote_{number}"
        touch = f"__import__('pathlib').Path('{ran}').touch()"
        self.expressions = [
            f"${touch}",
            f"$[{touch}, 1][1]",
            f"$({touch}) or 'cpu'",
            f"import os; {touch}",
            f"{{{{{touch}}}}}",
            "@bundle_root",
            "%train.json::epochs",
            f"$import pathlib; pathlib.Path('{ran}').touch()",
        ]
        self.names = [
            f"../{wrote.relative_to(folder)}",
            f"../../{wrote.relative_to(folder)}",
            f"../../../{wrote.relative_to(folder)}",
            f"x/../../{wrote.relative_to(folder)}",
            "../secret",
            "../../secret",
            str(folder / "secret"),
            str(wrote),
            "..",
            "~/x",
            "a\nb",
            "a\x00b",
            "-rf",
            ".hidden",
            "x" * 300,
            "a;touch b",
        ]
        self.types: list[Any] = [
            None,
            [],
            {},
            "abc",
            -1,
            1.5,
            float("nan"),
            [[["x"]]],
            {"a": {"b": 1}},
            True,
            "1e9",
            "",
        ]

    def text(self) -> str:
        """An expression or a name."""
        return self.rng.choice(self.expressions + self.names)

    def value(self) -> Any:
        """Anything."""
        return self.rng.choice([*self.expressions, *self.names, *self.types, {self.text(): self.text()}])

    def name(self) -> str:
        """A name that leads elsewhere, or now and then an expression."""
        return self.rng.choice(self.names) if self.rng.random() < 0.8 else self.rng.choice(self.expressions)


def _json(method: str, path: str, content: Any) -> Call:
    return method, path, json.dumps(content).encode(), "application/json"


def _form(method: str, path: str, params: Any, name: str, **files: Path) -> Call:
    body, content = multipart({"params": json.dumps(params), "info": json.dumps(params)}, **files)
    for file in files.values():
        new = name.replace("\r", "").replace("\n", "").replace('"', "")
        body = body.replace(f'filename="{file.name}"'.encode(), f'filename="{new}.nii.gz"'.encode())
    return method, path, body, content


def _train(rng: random.Random, texts: Texts, file: Path) -> Call:
    keys = ("model", "device", "max_epochs", "val_split", "config", "multi_gpu", "name", "pretrained", "bundle_path")
    more = ("run_dir", "dataset_dir", "imports", "train#trainer#max_epochs", "local_rank", "run_id", "client_id")
    content = {"max_epochs": 1, "device": "cpu", "multi_gpu": False}
    for key in rng.sample(keys + more, rng.randint(1, 3)):
        content[key] = texts.value()
    if rng.random() < 0.2:
        content[texts.text()] = texts.value()
    model = texts.name() if rng.random() < 0.1 else MODEL
    return _json("POST", f"/train/{quote(model)}?run_sync=true", content)


def _next(rng: random.Random, texts: Texts, file: Path) -> Call:
    strategy = rng.choice(("suspicious", "random", "first", texts.name()))
    content = {key: texts.value() for key in rng.sample(("review", "strategy", "client_id", "label_tag"), 2)}
    return _json("POST", f"/activelearning/{quote(strategy)}", content)


def _infer(rng: random.Random, texts: Texts, file: Path) -> Call:
    keys = ("device", "result_extension", "result_dtype", "result_write_to_file", "model", "image", "label", "logging")
    params = {key: texts.value() for key in rng.sample(keys, 2)}
    image = rng.choice(("image_0001", texts.name()))
    address = f"/infer/{MODEL}?image={quote(image)}&output={rng.choice(('image', 'json', 'all'))}"
    return _form("POST", address, params, texts.name())


def _upload(rng: random.Random, texts: Texts, file: Path) -> Call:
    if rng.random() < 0.5:
        return _form("PUT", f"/datastore/image?image={quote(texts.name())}", {}, texts.name(), file=file)
    image = rng.choice(("image_0002", texts.name()))
    tag = rng.choice(("final", texts.name()))
    address = f"/datastore/label?image={quote(image)}&tag={quote(tag)}"
    return _form("PUT", address, {texts.text(): texts.value()}, texts.name(), label=file)


def _fetch(rng: random.Random, texts: Texts, file: Path) -> Call:
    name, tag = quote(texts.name()), quote(rng.choice(("final", "original", texts.name())))
    places = (f"image?image={name}", f"label?label={name}&tag={tag}", f"image/info?image={name}")
    method = rng.choice(("GET", "HEAD"))
    address = f"/datastore/{rng.choice(places)}"
    return "GET" if "info" in address else method, address, None, ""


def _remove(rng: random.Random, texts: Texts, file: Path) -> Call:
    name, tag = quote(texts.name()), quote(rng.choice(("final", texts.name())))
    return "DELETE", f"/datastore/{rng.choice((f'image?id={name}', f'label?id={name}&tag={tag}'))}", None, ""


def _inform(rng: random.Random, texts: Texts, file: Path) -> Call:
    image = quote(rng.choice(("image_0003", texts.name())))
    return _form("PUT", f"/datastore/image/info?image={image}", {"aide": texts.value(), "x": texts.value()}, "x")


def _score(rng: random.Random, texts: Texts, file: Path) -> Call:
    content = {key: texts.value() for key in rng.sample(("device", "method", "model"), 1)}
    return _json("POST", f"/scoring/{rng.choice(('suspicion', quote(texts.name())))}?run_sync=true", content)


KINDS: dict[str, Callable[[random.Random, Texts, Path], Call]] = {
    "train": _train,
    "next image": _next,
    "infer": _infer,
    "upload": _upload,
    "fetch": _fetch,
    "remove": _remove,
    "info of an image": _inform,
    "score": _score,
}


def _send(server: LabelServer, call: Call) -> tuple[int, bytes]:
    """Status and body of the answer; 0 where there is none."""
    try:
        return 200, server.call(*call)
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except (OSError, ValueError) as error:
        return (400 if isinstance(error, ValueError) else 0), b""


def _around(folder: Path) -> dict[str, str]:
    """Files beside what is served, hashed."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] not in SERVED
    }
