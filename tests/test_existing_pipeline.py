"""A MONAI training script becomes an AIDE training by the lines that docs/python.md shows, and by no others."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.networks.nets import UNet

from aide_monai.data.sources.phantom import write_phantoms
from aide_monai.engines import AIDESupervisedTrainer
from aide_monai.options import PROFILES
from aide_monai.workflows import labels

ROOT = Path(__file__).parents[1]
SCRIPT = (ROOT / "tests" / "existing_pipeline.py").read_text()


def switched() -> str:
    """The script after the diff of the page: each removed line is there once, and becomes the line added for it."""
    (diff,) = re.findall(r"```diff\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    imports, *changes = diff.strip().split("\n\n")
    assert all(line.startswith("+from aide_monai.") for line in imports.splitlines())
    assert len(changes) == 2
    lines = SCRIPT.splitlines()
    for change in changes:
        removed, added = change.splitlines()
        assert (removed[0], added[0]) == ("-", "+")
        assert lines.count(removed[1:]) == 1, removed
        lines[lines.index(removed[1:])] = added[1:]
    first = next(number for number, line in enumerate(lines) if line.startswith("import "))
    lines[first:first] = [line[1:] for line in imports.splitlines()]
    return "\n".join(lines)


def run(script: str, folder: Path) -> SimpleNamespace:
    """Run a script in a folder with phantoms, and note the Dice of every validation."""
    write_phantoms(folder / "data", cases=8, shape=(32, 32, 12), spacing_mm=(6, 6, 9))
    validated = "evaluator.add_event_handler('COMPLETED', lambda e: dice.append(e.state.metrics['val_mean_dice']))\n"
    names: dict[str, Any] = {"dice": []}
    before = os.getcwd()
    os.chdir(folder)
    try:
        exec(
            compile(script.replace("trainer.run()", validated + "trainer.run()"), "existing_pipeline.py", "exec"), names
        )
    finally:
        os.chdir(before)
    return SimpleNamespace(**names)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[SimpleNamespace, Path]:
    folder = tmp_path_factory.mktemp("plain")
    return run(SCRIPT, folder), folder


@pytest.fixture(scope="module")
def aide(tmp_path_factory: pytest.TempPathFactory) -> tuple[SimpleNamespace, Path]:
    folder = tmp_path_factory.mktemp("aide")
    with pytest.MonkeyPatch.context() as patch:
        # after so few steps the networks find next to nothing, and would not be let correct any label
        patch.setitem(PROFILES["improved"], "correction_foreground", 0.0)
        return run(switched(), folder), folder


def test_the_trainer_is_another_one(plain, aide) -> None:
    assert type(plain[0].trainer) is SupervisedTrainer
    assert type(aide[0].trainer) is AIDESupervisedTrainer


def test_labels_are_corrected_and_every_version_is_kept(aide) -> None:
    script, folder = aide
    store = script.train_data.store
    # from the second of four epochs on, a quarter of six cases for each network
    assert [(record.epoch, record.network) for record in store.records] == [
        (epoch, network) for epoch in (2, 3, 4) for network in (2, 1)
    ]
    assert script.train_data.cases == [f"phantom_{number:03d}" for number in range(6)]
    changed = {(record.network, record.case) for record in store.records if record.voxels_changed}
    assert changed
    for network, case in changed:
        assert not torch.equal(store.label(network, case), store.initial(case))
    generations = labels.list_generations(folder / "run")
    assert [row["epoch"] for row in generations] == [0, 2, 3, 4]
    assert labels.diff(folder / "run", 0, 3)


def test_the_two_networks_differ_and_follow_one_schedule(aide) -> None:
    trainer = aide[0].trainer
    pairs = zip(trainer.network.parameters(), trainer.network_2.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)
    assert [group["lr"] for group in trainer.state.optimizer_1.param_groups] == [2e-3]
    assert [group["lr"] for group in trainer.state.optimizer_2.param_groups] == [2e-3]
    assert {group["weight_decay"] for group in trainer.state.optimizer_2.param_groups} == {1e-5}
    assert 0 < trainer.state.metrics["disagreement"] < 1


def test_the_handlers_of_the_script_find_what_they_found_before(plain, aide) -> None:
    for script, folder in (plain, aide):
        assert len(script.dice) == script.max_epochs  # validated after every epoch
        assert script.evaluator.state.best_metric == max(script.dice) > 0.05  # and learning something
        assert 0 < script.trainer.state.metrics["train_mean_dice"] < 1
        assert list((folder / "run").glob("events.*"))
        final = torch.load(folder / "run" / "checkpoint_final_iteration=12.pt", weights_only=True)
        assert sorted(final) == ["network", "optimizer"]
        (best,) = (folder / "run").glob("*_key_metric=*.pt")
        network = UNet(3, 1, 2, channels=(8, 16, 32), strides=(2, 2), num_res_units=1, norm="batch")
        network.load_state_dict(torch.load(best, weights_only=True))


def test_a_corrected_label_is_trained_on(aide) -> None:
    script, _ = aide
    data = script.train_data
    case = next(name for name in data.cases if data.store.label(1, name).any())
    data.store.replace(2, case, torch.zeros_like(data.store.label(2, case)), epoch=5, dice_before=0.0)
    parts = [part for _ in range(10) for part in data[data.cases.index(case)]]
    assert all(part["label_1"].shape == part["label_2"].shape == (1, *script.patch_size) for part in parts)
    assert any(part["label_1"].any() for part in parts)
    assert not any(part["label_2"].any() for part in parts)
