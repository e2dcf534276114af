"""The main job in one call: few labels in, a model trained with AIDE and the proof of what it is worth out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aide_monai
from aide_monai.data.sources.phantom import write_phantoms
from aide_monai.errors import InputError
from aide_monai.options import AIDEOptions
from aide_monai.utils.files import write_text
from aide_monai.workflows.comparison.budget import TrainingSettings
from aide_monai.workflows.comparison.methods import STANDARD_METHODS, STEP_COST, Method
from aide_monai.workflows.prepare import prepare_datalist

if TYPE_CHECKING:
    from aide_monai.reports.tables import Row
    from aide_monai.workflows.comparison.job import Job

METHODS = (LABELLED, NOISY, AIDE, CLEAN) = ("labelled only", "noisy labels", "AIDE", "clean labels")

OnProgress = Callable[[str, float, float], None]


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """What the demo trains on and how.

    Attributes:
        labeled: training cases that keep their label.
        unlabeled: training cases whose label is hidden; None takes all that are left over.
        test: held-out cases; None takes all that are left over.
        keep_classes: keep the label's classes apart instead of merging them into one foreground.
        training: budget, recipe and seed of every network; the run itself settles its device and precision.
        options: options of AIDE.
    """

    labeled: int
    unlabeled: int | None
    test: int | None
    training: TrainingSettings
    options: AIDEOptions
    keep_classes: bool = False


@dataclass(frozen=True)
class DemoResult:
    """Where the results are, and what they say.

    Attributes:
        folder: the run folder.
        rows: per-case scores of every method.
        summary: one row per method and network, see ``reports.tables.summarize``.
        seconds: duration.
    """

    folder: Path
    rows: list[Row]
    summary: list[Row]
    seconds: float


def demo_settings(
    *,
    phantoms: bool = True,
    labeled: int = 1,
    unlabeled: int | None = None,
    test: int | None = None,
    keep_classes: bool = False,
    profile: str = "improved",
    epochs: int = 12,
    steps_per_epoch: int = 40,
    seed: int = 0,
    device: str = "auto",
) -> DemoSettings:
    """The demo's recipe: a short schedule that trains well on two CPU cores.

    Args:
        phantoms: the data are the demo's own phantoms; then 15 cases are unlabelled by default.
        labeled: as in ``DemoSettings``, like the arguments that follow.
        unlabeled: see above.
        test: see above.
        keep_classes: see above.
        profile: AIDE's options, see ``AIDEOptions.for_epochs``; "improved" replaces all labels at once, as all of them
            come from one network, the others take the weight of the consistency and the source of pseudo-labels from
            the paper's published runs.
        epochs: epochs of every network.
        steps_per_epoch: optimiser steps per epoch.
        seed: seed of everything random.
        device: where the networks run; "auto" is the first GPU, or the processor where there is none.

    Raises:
        InputError: if a number is out of range.
    """
    least = {"labeled": (labeled, 1), "unlabeled": (unlabeled or 0, 0), "test": (test or 0, 0)}
    least |= {"epochs": (epochs, 1), "steps": (steps_per_epoch, 1)}
    for name, (value, smallest) in least.items():
        if value < smallest:
            raise InputError(f"--{name} is {value}; expected at least {smallest}")
    training = TrainingSettings(
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        learning_rate=2e-3,
        device=device,
        seed=seed,
    )
    published = {"consistency_weight": 10.0, "pseudo_label_source": "other"}
    changes: dict[str, Any] = {"update_ratio": 1.0} if profile == "improved" else published
    options = AIDEOptions.for_epochs(epochs, profile, **changes)
    return DemoSettings(
        labeled=labeled,
        unlabeled=15 if phantoms and unlabeled is None else unlabeled,
        test=test,
        training=training,
        options=options,
        keep_classes=keep_classes,
    )


def run_demo(
    run_dir: str | Path,
    settings: DemoSettings,
    *,
    data: str | Path | None = None,
    on_progress: OnProgress | None = None,
) -> DemoResult:
    """Train on few labelled cases, standardise, train on the noisy labels plainly and with AIDE, and compare.

    Every network gets the same number of optimiser steps and is scored on held-out cases. The clean labels of the
    "unlabelled" cases serve the upper bound and the figures only.

    Args:
        run_dir: new folder for all results.
        settings: what to train on and how.
        data: a Decathlon or images/labels folder; None writes phantoms into ``run_dir/data``.
        on_progress: called as ``(stage, done, total)`` in units of plain optimiser steps.

    Returns:
        The result; ``run_dir`` holds ``per_case.csv``, ``summary.md``, ``figures/``, ``settings.json``, the
        standardised data set, and a folder for every trained model.

    Raises:
        InputError: if ``run_dir`` is used, the data cannot be used, or there is no such device.

    Examples:
        >>> from aide_monai import run_demo
        >>> from aide_monai.workflows import demo_settings
        >>> result = run_demo("RUN", demo_settings())  # three minutes on two cores  # doctest: +SKIP
    """
    start = time.monotonic()
    run_dir = Path(run_dir).absolute()
    if run_dir.exists() and any(run_dir.iterdir()):
        raise InputError(f"{run_dir} is not empty; choose a new run folder with --run-dir")
    training = settings.training
    cost = sum(STEP_COST[STANDARD_METHODS[name]] for name in METHODS)
    progress = _Progress(on_progress, "reading the data", total=training.epochs * training.steps_per_epoch * cost)

    datalist = prepare_datalist(
        write_phantoms(run_dir / "data", seed=training.seed) if data is None else data,
        labeled=settings.labeled,
        unlabeled=settings.unlabeled,
        test=settings.test,
        seed=training.seed,
    )
    # what needs PyTorch comes last: a mistake in the rest is told before it is loaded
    from aide_monai.inferers import choose_device, hardware_amp
    from aide_monai.reports.tables import summarize
    from aide_monai.workflows.comparison.job import Job
    from aide_monai.workflows.comparison.pictures import draw_figures
    from aide_monai.workflows.comparison.run import run_in_turn
    from aide_monai.workflows.comparison.tasks import Task

    device = choose_device(training.device)
    training = replace(training, device=device, amp=hardware_amp() if device == "cpu" else "off")
    datalist.save(run_dir / "datalist.json")
    task = Task.of(datalist, merge=not settings.keep_classes)
    options = {AIDE: asdict(settings.options)}
    methods = [Method(name=name, engine=STANDARD_METHODS[name], options=options.get(name, {})) for name in METHODS]
    jobs = [Job(method=method, task=task, run_dir=run_dir, budget=training) for method in methods]
    run_in_turn(jobs, progress.step)

    progress.stage = "drawing"
    rows = [row for job in jobs for row in job.rows() if not row["pp"]]
    summary = summarize(rows, noisy=NOISY, clean=CLEAN)
    draw_figures(run_dir / "figures", jobs)
    result = DemoResult(run_dir, rows, summary, time.monotonic() - start)
    _write_tables(result, replace(settings, training=training), data=data)
    progress.finish()
    return result


class _Progress:
    """Counts plain optimiser steps and tells whoever listens."""

    def __init__(self, listener: OnProgress | None, stage: str, *, total: float) -> None:
        self.listener = listener
        self.total = total
        self.done = 0.0
        self.stage = stage

    def step(self, job: Job) -> None:
        self.stage = f"training: {job.method.name}"
        self._tell(STEP_COST[job.method.engine])

    def finish(self) -> None:
        self._tell(self.total - self.done)

    def _tell(self, cost: float) -> None:
        self.done += cost
        if self.listener is not None:
            self.listener(self.stage, self.done, self.total)


def _write_tables(result: DemoResult, settings: DemoSettings, *, data: str | Path | None) -> None:
    from aide_monai.reports import tables

    tables.write_csv(result.folder / "per_case.csv", result.rows)
    write_text(result.folder / "summary.md", tables.markdown_table(result.summary) + "\n")
    content = {
        "version": aide_monai.__version__,
        "data": "phantoms" if data is None else str(data),
        "seconds": round(result.seconds, 1),
        **asdict(settings),
    }
    write_text(result.folder / "settings.json", json.dumps(content, indent=2) + "\n")
