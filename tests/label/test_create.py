"""The folder that a MONAI Label server is started with."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from aide_monai.cli.main import app, run
from aide_monai.errors import InputError
from aide_monai.handlers.settings import save_settings
from aide_monai.label_app.create import create_app
from tests.label.tiny import tiny_bundle


@pytest.fixture
def bundle(tmp_path):
    return tiny_bundle("hippocampus_ssl", tmp_path / "tiny")


def test_the_app_has_a_copy_of_the_bundle_with_the_given_weights(bundle, tmp_path):
    weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
    changed = {name: torch.zeros_like(value) for name, value in weights.items()}
    torch.save(changed, tmp_path / "weights.pt")
    (bundle / "runs" / "001").mkdir(parents=True)
    assert create_app(tmp_path / "app", bundle, weights=tmp_path / "weights.pt")
    served = tmp_path / "app" / "model" / "tiny"
    assert not (served / "runs").exists()
    assert json.loads((served / "configs" / "train.json").read_text())["slice_size"] == [32, 32]
    assert all(not value.any() for value in torch.load(served / "models" / "model.pt", weights_only=True).values())
    assert "AIDELabelApp" in (tmp_path / "app" / "main.py").read_text()


def test_without_weights_the_networks_are_untrained(bundle, tmp_path, capsys):
    (bundle / "models" / "model.pt").unlink()
    arguments = ["label-app", str(tmp_path / "app"), "--bundle", str(bundle), "--studies", "SCANS"]
    assert run(lambda: app(arguments, standalone_mode=False)) == 0
    printed = capsys.readouterr().out
    assert "untrained" in printed
    assert (
        f"python -m monailabel.main start_server --app {tmp_path / 'app'} --studies SCANS --host 127.0.0.1" in printed
    )
    assert (tmp_path / "app" / "model" / "tiny" / "models" / "model.pt").exists()


def test_weights_come_with_the_settings_of_their_training(bundle, tmp_path):
    weights = bundle / "models" / "model.pt"
    save_settings(weights, {"slice_size": [32, 32], "volume_options": {"fit": "pad"}})
    create_app(tmp_path / "app", bundle)
    served = tmp_path / "app" / "model" / "tiny" / "models"
    assert (served / "model.json").read_text() == (bundle / "models" / "model.json").read_text()
    other = tmp_path / "run" / "models" / "model.pt"
    other.parent.mkdir(parents=True)
    shutil.copy(weights, other)
    create_app(tmp_path / "foreign", bundle, weights=other)
    assert not (tmp_path / "foreign" / "model" / "tiny" / "models" / "model.json").exists()
    save_settings(other, {"volume_options": {"fit": "resize"}})
    with pytest.raises(InputError, match=r'fit "pad"; expected "resize", .* into the bundle.s configs'):
        create_app(tmp_path / "refused", bundle, weights=other)
    assert not (tmp_path / "refused").exists()


def test_a_second_bundle_can_be_added_but_none_replaced(bundle, tmp_path):
    create_app(tmp_path / "app", bundle)
    other = tiny_bundle("hippocampus_ssl", tmp_path / "other")
    create_app(tmp_path / "app", other)
    assert sorted(path.name for path in (tmp_path / "app" / "model").iterdir()) == ["other", "tiny"]
    with pytest.raises(InputError, match="exists already"):
        create_app(tmp_path / "app", other)


def test_mistakes_are_named_and_leave_nothing_behind(bundle, tmp_path):
    target = tmp_path / "app"
    with pytest.raises(InputError, match=r"no such bundle; expected a folder with configs/train\.json"):
        create_app(target, tmp_path / "nothing")
    with pytest.raises(InputError, match="expected a name without deepedit"):
        create_app(target, tiny_bundle("hippocampus_ssl", tmp_path / "lesion_detection"))
    torch.save({}, tmp_path / "wrong.pt")
    with pytest.raises(InputError, match=r"wrong\.pt: not the weights of this network"):
        create_app(target, bundle, weights=tmp_path / "wrong.pt")
    assert not target.exists()
    target.mkdir()
    (target / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty; expected a new folder"):
        create_app(target, bundle)
