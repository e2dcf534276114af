"""Trainings that end with their server, and what the next server tells of them."""

from __future__ import annotations

import os
import re
import shutil
import signal

import psutil
import pytest

from aide_monai.data.sources.phantom import write_phantoms
from aide_monai.errors import InputError
from aide_monai.label_app.create import create_app
from aide_monai.utils.locks import LOCK
from aide_monai.workflows.bundle import run_bundle
from tests.label.server import LabelServer
from tests.label.tiny import tiny_bundle
from tests.waiting import wait_for

pytestmark = pytest.mark.label

MODEL = "hippocampus_ssl"
TOKEN = "a-token-of-this-test"
SECRET = {"comment": "Doe^Jane", "client_id": "Doe^John"}


def last_training(server: LabelServer) -> dict:
    return server.get("/info/")["train_stats"][MODEL]["last_training"]


def test_a_training_ends_with_its_server_and_the_next_one_tells(label_python, tmp_path):
    data = write_phantoms(tmp_path / "data", cases=3, shape=(32, 32, 6), spacing_mm=(6, 6, 20))
    app, studies = tmp_path / "app", tmp_path / "studies"
    create_app(app, tiny_bundle(MODEL, tmp_path / MODEL, cache="disk"))
    shutil.copytree(data / "imagesTr", studies)
    for name in (b"no text \xff.nii.gz", b"two\nlines.nii.gz"):  # neither stops the server nor a training
        shutil.copy(studies / "phantom_001.nii.gz", studies / os.fsdecode(name))
    served = app / "model" / MODEL
    weights = (served / "models" / "model.pt").read_bytes()
    (tmp_path / "token").write_text(TOKEN)

    def start():
        return LabelServer(label_python, app, studies, {"token_file": str(tmp_path / "token")}, token=TOKEN)

    server = start()
    try:
        assert server.get("/info/")["train_stats"][MODEL] == {}
        assert sorted(server.get("/datastore/?output=all")["objects"]) == [f"phantom_00{number}" for number in range(3)]
        assert re.search(r"2 files are not used: .*no text \\udcff.*cannot be asked for", server.log.read_text())
        server.put_label("phantom_000", data / "labelsTr" / "phantom_000.nii.gz")
        for number, end in (("001", signal.SIGTERM), ("002", signal.SIGKILL)):
            run = served / "runs" / number
            server.post(f"/train/{MODEL}", {"multi_gpu": False, "device": "cpu", "max_epochs": 100_000, **SECRET})
            # Its first long phase is the pretraining: the bundle is in use, though nothing there shows it
            wait_for((run / "pretrained" / "epochs.csv").exists, what="a training")
            assert last_training(server)["state"] == "running"
            with pytest.raises(InputError, match=rf"/{MODEL}: another run is at work in this folder"):
                run_bundle(served, ["train"], {"dataset_dir": str(data), "labeled": 1, "unlabeled": 1})
            assert list((run / "cache").iterdir())

            children = psutil.Process(server.process.pid).children(recursive=True)
            commands = [" ".join(child.cmdline()) for child in children]
            assert any('"max_epochs":100000' in command for command in commands)  # all users can read it, and no more
            assert not any(secret in command for command in commands for secret in (TOKEN, *SECRET.values()))
            server.process.send_signal(end)
            server.process.wait()
            wait_for(lambda children=children: not psutil.wait_procs(children, timeout=0)[1], what="the training's end")
            assert not list((run / "cache").iterdir())
            assert (served / "models" / "model.pt").read_bytes() == weights
            left = run / "cache" / "aide-left"  # as a training has that the system ends
            left.mkdir()
            (left / LOCK).touch()

            server = start()
            assert not left.exists()
            found = last_training(server)
            assert (found["run"], found["state"], found["epochs"]) == (number, "ended early", 0)
            assert f"(runs/{number}) has ended early, after epoch 0, with the server" in server.log.read_text()
        assert server.train(MODEL, max_epochs=1)["status"] == "DONE"
        assert (last_training(server)["run"], last_training(server)["state"]) == ("003", "finished")
        assert last_training(server)["epochs"] == 1
        assert (served / "models" / "model.pt").read_bytes() != weights
    finally:
        server.stop()
