"""No text of a request is code, no name leads elsewhere, no page of another server may ask: the app, and a server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from aide_monai.data.sources.phantom import write_phantoms
from aide_monai.label_app.create import create_app
from tests.label.hostile_requests import texts
from tests.label.server import LabelServer, multipart
from tests.label.tiny import tiny_bundle

pytestmark = pytest.mark.label

MODEL = "hippocampus_ssl"
TOKEN = "let-me-in"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with an app and studies, a file that a config could read, and nothing else."""
    folder = tmp_path_factory.mktemp("place")
    data = write_phantoms(tmp_path_factory.mktemp("data"), cases=2, shape=(32, 32, 4), spacing_mm=(6, 6, 20))
    shutil.copytree(data / "imagesTr", folder / "studies")
    create_app(folder / "app", tiny_bundle(MODEL, tmp_path_factory.mktemp("bundle") / MODEL))
    (folder / "trap.json").write_text('{"a": "from a file"}')
    (folder / "token").write_text(f"{TOKEN}\n")
    return folder


def unchanged(place: Path) -> bool:
    return sorted(path.name for path in place.iterdir()) == ["app", "studies", "token", "trap.json"]


def test_no_text_of_a_request_is_code(label_python, place, tmp_path):
    studies = shutil.copytree(place / "studies", tmp_path / "studies")
    shutil.copy(place / "trap.json", studies.parent)
    command = [str(label_python), "-m", "tests.label.hostile_requests", str(place / "app"), str(studies)]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    answer = json.loads(result.stdout.splitlines()[-1])
    assert sorted(path.name for path in studies.parent.iterdir()) == ["studies", "trap.json"]
    assert answer["tags"]["draft"] == 3  # the one request in good order: masks of all images, one of them new
    # An info may hold any text: it is kept, and never read by a config.
    assert {line.split(" = ")[0] for line in answer["passed"]} <= {"image: info", "label: info", "info: info"}
    assert len(answer["refused"]) > 300
    assert all("; expected " in line and "\n" not in line for line in answer["refused"])


@pytest.fixture(scope="module")
def server(label_python, place):
    server = LabelServer(
        label_python, place / "app", place / "studies", {"token_file": str(place / "token")}, token=TOKEN
    )
    yield server
    server.stop()


def test_wrong_values_are_refused_in_one_sentence_by_the_server(server, place):
    write, *_ = texts(place / "marker")
    for path, values, message in (
        (f"/train/{MODEL}", {"max_epochs": "abc"}, "max_epochs is 'abc'; expected a whole number in 1..100000"),
        (f"/train/{MODEL}", {"device": write}, "; expected cpu, cuda or cuda:N"),
        (f"/train/{MODEL}?run_sync=true", {"profile": write}, "; expected one of improved, paper, original"),
        ("/scoring/suspicion", {"device": write}, "; expected cpu, cuda or cuda:N"),
        (f"/batch/infer/{MODEL}", {"label_tag": write}, "; expected a plain name"),
        ("/activelearning/suspicious", {"review": write}, "; expected true or false"),
        ("/activelearning/nothing", {}, "There is no such strategy 'nothing' available"),
    ):
        status, answer = server.answer("POST", path, json.dumps(values).encode())
        assert (status, message in answer["detail"]) == (400, True), answer
    for params, message in (
        ({"device": write}, "; expected cpu, cuda or cuda:N"),
        ({"image": str(place / "trap.json")}, "; expected the name of an image of the datastore"),
        ({"result_extension": "/../x.nii"}, "; expected one of .nii.gz"),
    ):
        body, content = multipart({"params": json.dumps(params)})
        status, answer = server.answer("POST", f"/infer/{MODEL}?image=phantom_000&output=image", body, content)
        assert (status, message in answer["detail"]) == (400, True), answer
    body, content = multipart({"params": "{"})
    assert server.answer("POST", f"/infer/{MODEL}?image=phantom_000", body, content)[0] == 400
    assert "Traceback" not in server.log.read_text()
    assert unchanged(place)


def test_names_lead_nowhere_else(server, place, tmp_path):
    scan = place / "studies" / "phantom_000.nii.gz"
    before = {path for path in (place / "studies").rglob("*") if path.is_file()}
    other = tmp_path / "settings.conf"
    other.write_text("x = 1")
    for path, files in (
        ("/datastore/image?image=..%2Fescaped", {"file": scan}),
        ("/datastore/image?image=$x", {"file": scan}),
        ("/datastore/image?image=settings", {"file": other}),
        ("/datastore/label?image=phantom_000&tag=..%2F..%2Fescaped", {"label": scan}),
        ("/datastore/label?image=phantom_000&tag=final", {"label": other}),
    ):
        body, content = multipart({"params": "{}"}, **files)
        status, answer = server.answer("PUT", path, body, content)
        assert status == 400, answer
    assert {path for path in (place / "studies").rglob("*") if path.is_file()} - before <= {
        place / "studies" / name for name in ("datastore_v2.json", ".lock")
    }
    assert unchanged(place)


def test_strangers_are_refused(server):
    for headers, status in (
        ({}, 200),
        ({"Authorization": "Bearer other"}, 401),
        ({"Origin": "http://elsewhere.org"}, 403),
        ({"Origin": f"http://127.0.0.1:{server.port}"}, 200),
        ({"Host": f"elsewhere.org:{server.port}"}, 403),
    ):
        assert server.answer("GET", "/info/", headers=headers)[0] == status, headers
    assert server.answer("POST", f"/train/{MODEL}", b"{}", headers={"Origin": "http://elsewhere.org"})[0] == 403


def test_a_client_with_the_token_works_as_before(server, place, tmp_path):
    mask = tmp_path / "mask.nii.gz"
    mask.write_bytes(server.infer(MODEL, "phantom_000"))
    server.infer_file(MODEL, place / "studies" / "phantom_001.nii.gz")
    server.put_label("phantom_000", mask)
    task = server.train(MODEL, max_epochs=1)
    assert task["status"] == "DONE", task
    assert server.finished("scoring")["status"] == "DONE"  # asked for by the training, which brings the token too
    assert "suspicion" in server.image_info("phantom_001")["aide"]
    assert unchanged(place)
