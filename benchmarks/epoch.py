"""Where the time of an epoch goes: optimiser steps, and the prediction of the training set that corrects labels.

Both are timed alternately in one process, one step per ``batch`` slices and one prediction of as many slices by both
networks in batches of ``--prediction-batch``, so that the share holds for a training set of any size.

    python benchmarks/epoch.py --repeats 7
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from aide_step import batch, trainer

from aide_monai.handlers import Disagreement, GlobalLabelCorrection
from aide_monai.inferers import hardware_amp
from aide_monai.labels import LabelStore
from aide_monai.options import AIDEOptions
from aide_monai.stream import SliceDataset


def main() -> None:
    """Print the share of the correction."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--streams", type=int, default=2)
    parser.add_argument("--base", type=int, default=32)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--slices", type=int, default=16, help="of the case that is predicted and corrected")
    parser.add_argument("--prediction-batch", type=int, default=8)
    parser.add_argument("--amp", default=hardware_amp(), choices=["off", "bf16", "fp16"])
    parser.add_argument("--device", default="cpu")
    parser.set_defaults(compile=False)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    engine, data = trainer(args), batch(args)
    torch.manual_seed(0)
    shape = (args.size, args.size, args.slices)
    volumes = [
        {"case": "one", "image": torch.randn(args.streams, *shape), "label": torch.randint(0, 2, (1, *shape)).byte()}
    ]
    dataset = SliceDataset(volumes, store=LabelStore.from_volumes(volumes))
    correct = GlobalLabelCorrection(dataset, options=AIDEOptions(update_ratio=1.0), batch_size=args.prediction_batch)
    disagreement = Disagreement()
    engine.state.epoch = 1

    def steps() -> None:
        for _ in range(-(-args.slices // args.batch)):
            engine.state.output = engine._iteration(engine, data)
            disagreement._add(engine)

    def correction() -> None:
        engine.state.metrics.clear()
        correct(engine)

    shares: dict[str, list[float]] = {"wall": [], "processor": []}
    for repeat in range(args.repeats + 1):
        times = []
        for function in (steps, correction):
            start, start_cpu = time.perf_counter(), time.process_time()
            function()
            times.append((time.perf_counter() - start, time.process_time() - start_cpu))
        if repeat:
            for name, (step, prediction) in zip(shares, zip(*times, strict=True), strict=True):
                shares[name].append(prediction / (step + prediction))
    for name, values in shares.items():
        print(f"correction's share of the {name} time of an epoch: median {statistics.median(values):.3f}")


if __name__ == "__main__":
    main()
