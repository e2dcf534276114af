"""Time and memory of one AIDE step.

Three things are timed alternately in one process: a step of ``AIDETrainer``; the passes that no implementation of the
algorithm avoids (two networks forward, backward and their optimisers on the batch, two networks forward without
gradient on K views of the suspicious samples, with the same kernels); and a step of the plain loop of
``naive_step.py``. The ratios are medians over the rounds. The peak memory of both steps is that of processes of their
own.

    python benchmarks/aide_step.py --repeats 7
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from naive_step import NaiveStep

from aide_monai.engines import AIDEOptions, AIDETrainer
from aide_monai.inferers import AutocastInferer, hardware_amp, predictors_of
from aide_monai.losses import PerSampleDiceCELoss
from aide_monai.networks import MultiStreamUNet, seeded

STEP, PASSES, NAIVE = "AIDE step", "unavoidable passes", "plain float32 loop"


def main() -> None:
    """Print times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="pixels per side of a slice")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--streams", type=int, default=2)
    parser.add_argument("--base", type=int, default=32, help="channels of the first level")
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--amp", default=hardware_amp(), choices=["off", "bf16", "fp16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="torch.compile for the AIDE step")
    parser.add_argument("--without-plain-loop", action="store_true")
    parser.add_argument("--peak-memory-of", choices=["aide", "plain"], help="run one of them and print its peak")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak_memory_of:
        _print_peak(args)
        return

    functions = {STEP: aide_step(args), PASSES: unavoidable(args), NAIVE: plain_step(args)}
    if args.without_plain_loop:
        del functions[NAIVE]
    wall: dict[str, list[float]] = {name: [] for name in functions}
    cpu: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(args.repeats + 1):
        for name, function in functions.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            function()
            if args.device.startswith("cuda"):
                torch.cuda.synchronize()
            if repeat:
                wall[name].append(time.perf_counter() - start)
                cpu[name].append(time.process_time() - start_cpu)
    for name in functions:
        print(
            f"{name:20} median {statistics.median(wall[name]):7.3f} s, least {min(wall[name]):7.3f} s; "
            f"processor time {statistics.median(cpu[name]):7.3f} s"
        )
    for name, other in ((STEP, PASSES), (NAIVE, STEP)):
        if name in functions:
            ratios = [statistics.median(a / b for a, b in zip(t[name], t[other], strict=True)) for t in (wall, cpu)]
            print(f"{name} / {other}: {ratios[0]:.3f} (processor time {ratios[1]:.3f})")
    if not args.without_plain_loop and args.device == "cpu":
        peaks = [_measure_peak(which) for which in ("aide", "plain")]
        print(f"peak memory: {peaks[0]:.0f} MB against {peaks[1]:.0f} MB of the plain loop, {peaks[0] / peaks[1]:.2f}")


def networks_and_optimizers(args: argparse.Namespace, **options: Any) -> tuple[list[Any], list[Any]]:
    """Two networks from two seeds, with Adam."""
    features = [args.base * 2**level for level in range(5)]
    networks = [
        seeded(lambda: MultiStreamUNet(2, args.streams, 2, features=features), seed).to(args.device) for seed in (1, 2)
    ]
    return networks, [torch.optim.Adam(n.parameters(), lr=1e-4, amsgrad=True, **options) for n in networks]


def batch(args: argparse.Namespace) -> dict[str, torch.Tensor]:
    """Noise and a square."""
    torch.manual_seed(0)
    image = torch.randn(args.batch, args.streams, args.size, args.size, device=args.device)
    label = torch.zeros(args.batch, 1, args.size, args.size, device=args.device, dtype=torch.uint8)
    label[..., args.size // 4 : args.size // 2, args.size // 4 : args.size // 2] = 1
    return {"image": image, "label": label}


def trainer(args: argparse.Namespace) -> AIDETrainer:
    """The engine with all that makes it fast."""
    networks, optimizers = networks_and_optimizers(args, fused=True)
    engine = AIDETrainer(
        args.device,
        1,
        [],
        networks[0],
        optimizers[0],
        networks[1],
        optimizers[1],
        options=AIDEOptions(views=args.views, warmup_epochs=0, consistency_weight=10, pseudo_label_source="other"),
        amp=args.amp,
        channels_last=True,
        compile=args.compile,
    )
    engine.state.consistency = 1.0
    return engine


def aide_step(args: argparse.Namespace) -> Callable[[], Any]:
    """A step of ``AIDETrainer``."""
    engine, data = trainer(args), batch(args)
    return lambda: engine._iteration(engine, data)


def unavoidable(args: argparse.Namespace) -> Callable[[], None]:
    """The passes that are needed whatever else is done, with the kernels of the AIDE step."""
    engine, data = trainer(args), batch(args)
    image, label = data["image"], data["label"]
    suspicious = args.batch - args.batch // 2
    views = image[:suspicious].repeat(args.views, 1, 1, 1)
    infer, loss = AutocastInferer(args.amp, channels_last=True), PerSampleDiceCELoss()
    predictors = predictors_of(engine)
    optimizers = (engine.state.optimizer_1, engine.state.optimizer_2)

    def passes() -> None:
        # both graphs at once, as the exchange of the selections asks for
        losses = [loss(infer(image, network.train()), label).mean() for network in engine.networks]
        for predict in predictors:
            for part in views.split(args.batch):
                predict(part)
        for value, optimizer in zip(losses, optimizers, strict=True):
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()

    return passes


def plain_step(args: argparse.Namespace) -> Callable[[], None]:
    """A step of the plain loop."""
    networks, optimizers = networks_and_optimizers(args)
    data = batch(args)
    step = NaiveStep((networks[0], networks[1]), (optimizers[0], optimizers[1]), views=args.views)
    return lambda: step(data["image"], data["label"])


def _print_peak(args: argparse.Namespace) -> None:
    """Peak resident memory of a few steps, in MB, without what the interpreter and its libraries need."""
    make = aide_step if args.peak_memory_of == "aide" else plain_step
    torch.randn(8, 8).matmul(torch.randn(8, 8))
    before = _peak_mb()
    step = make(args)
    for _ in range(3):
        step()
    print(_peak_mb() - before)


def _peak_mb() -> float:
    """Of this process; ``getrusage`` would begin with the peak of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1000


def _measure_peak(which: str) -> float:
    command = [sys.executable, __file__, *sys.argv[1:], "--peak-memory-of", which]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


if __name__ == "__main__":
    main()
