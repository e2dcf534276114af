"""What configs are checked by without loading PyTorch says the same as what it stands for."""

from __future__ import annotations

import inspect

from aide_monai import engines, inferers, options
from aide_monai.stream import volume_transforms
from aide_monai.workflows.comparison import config, methods


def test_rivals() -> None:
    assert tuple(engines.RIVALS) == methods.RIVALS
    assert set(methods.STEP_COST) == set(methods.ENGINES)


def test_preprocessing() -> None:
    known = [*config.DATA_KEYS, "keys", "resample_labels", "fit_labels"]
    assert [*config._PREPROCESSING] == [
        key for key in inspect.signature(volume_transforms).parameters if key not in known
    ]


def test_precisions() -> None:
    assert tuple(inferers.AMP_DTYPES) == options.AMP
