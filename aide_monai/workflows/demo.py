"""The main job in one call on phantoms, or on data whose labels are hidden: what would AIDE have gained?"""

from __future__ import annotations

from pathlib import Path

from aide_monai.data.sources.phantom import write_phantoms
from aide_monai.errors import InputError
from aide_monai.utils.files import require_place
from aide_monai.workflows.run import OnProgress, RunResult, RunSettings, run_folder

_PHANTOMS = 40


def demo_settings(
    *,
    phantoms: bool = True,
    labeled: int | None = None,
    unlabeled: int | None = None,
    test: int | None = None,
    keep_classes: bool = False,
    profile: str = "improved",
    epochs: int = 12,
    steps_per_epoch: int = 40,
    seed: int = 0,
    device: str = "auto",
) -> RunSettings:
    """The demo's recipe: a short schedule that trains well on two CPU cores.

    Args:
        phantoms: the data are the demo's own phantoms; then 12 judge by default.
        labeled: training cases that keep their label; None: 3 phantoms, or one case.
        unlabeled: training cases whose label is hidden; None: all that are left over.
        test: as in ``RunSettings``, like the arguments that follow.
        keep_classes: keep the label's classes apart instead of merging them into one foreground.
        profile: see there.
        epochs: see there.
        steps_per_epoch: see there.
        seed: see there.
        device: see there.

    Raises:
        InputError: if a number is out of range.
    """
    labeled = (3 if phantoms else 1) if labeled is None else labeled
    least = {"labeled": (labeled, 1), "unlabeled": (unlabeled or 0, 0), "test": (1 if test is None else test, 1)}
    for name, (value, smallest) in least.items():
        if value < smallest:
            raise InputError(f"--{name} is {value}; expected at least {smallest}")
    return RunSettings(
        labeled=labeled,
        unlabeled=unlabeled,
        test=12 if phantoms and test is None else test,
        merge=not keep_classes,
        profile=profile,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        seed=seed,
        device=device,
    )


def run_demo(
    run_dir: str | Path,
    settings: RunSettings | None = None,
    *,
    data: str | Path | None = None,
    on_progress: OnProgress | None = None,
) -> RunResult:
    """Hide the labels of most cases, and show what AIDE gains on them: ``run_folder`` with the demo's data.

    The clean labels of the "unlabelled" cases serve the upper bound and the figures only.

    Args:
        run_dir: folder for all results; that of an earlier call of the same settings is continued.
        settings: what to train on and how, ``demo_settings()`` by default.
        data: a folder of one's own with labels; None writes phantoms into ``run_dir/data``.
        on_progress: see ``run_folder``.

    Raises:
        InputError: as ``run_folder``.

    Examples:
        >>> from aide_monai import run_demo
        >>> result = run_demo("RUN")  # four minutes on two cores  # doctest: +SKIP
    """
    settings = settings or demo_settings()
    require_place(run_dir, folder=True)
    if data is None:
        data = Path(run_dir) / "data"
        if not data.exists():
            write_phantoms(data, cases=_PHANTOMS, seed=settings.seed)
    return run_folder(data, run_dir, settings, on_progress=on_progress)
