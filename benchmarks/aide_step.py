"""Cost of one AIDE step in units of the passes it cannot avoid.

The reference is two networks forward and backward on the batch, and two networks forward, without gradient, on K views
of the suspicious samples. Both are timed alternately in one process; the ratio is that of the medians.

    python benchmarks/aide_step.py --size 64 --batch 8 --repeats 30
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from monai.networks.nets import BasicUNet

from aide_monai.engines import AIDEOptions, AIDETrainer
from aide_monai.inferers import AutocastInferer, hardware_amp
from aide_monai.losses import PerSampleDiceCELoss


def main() -> None:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="pixels per side of a slice")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--base", type=int, default=16, help="channels of the first level")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--amp", default=hardware_amp(), choices=["off", "bf16", "fp16"])
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()

    options = AIDEOptions(warmup_epochs=0)
    networks = [_network(args.base, seed) for seed in (1, 2)]
    optimizers = [torch.optim.Adam(network.parameters(), lr=1e-4, amsgrad=True) for network in networks]
    trainer = AIDETrainer(
        args.device,
        1,
        [],
        networks[0],
        optimizers[0],
        networks[1],
        optimizers[1],
        options=options,
        amp=args.amp,
        channels_last=True,
    )
    trainer.state.consistency = 1.0
    torch.manual_seed(0)
    image = torch.randn(args.batch, 1, args.size, args.size, device=args.device)
    label = torch.randint(0, 2, (args.batch, 1, args.size, args.size), device=args.device, dtype=torch.uint8)
    batch = {"image": image, "label": label}
    views = image[: args.batch - args.batch // 2].repeat(options.views, 1, 1, 1)
    infer, loss = AutocastInferer(args.amp, channels_last=True), PerSampleDiceCELoss()

    def step() -> None:
        trainer._iteration(trainer, batch)

    def unavoidable() -> None:
        for network, optimizer in zip(networks, optimizers, strict=True):
            network.train()
            loss(infer(image, network), label).mean().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            network.eval()
            with torch.no_grad():
                infer(views, network)

    times: dict[str, list[float]] = {"AIDE step": [], "unavoidable passes": []}
    for repeat in range(args.repeats + 3):
        for name, function in (("AIDE step", step), ("unavoidable passes", unavoidable)):
            start = time.perf_counter()
            function()
            if args.device.startswith("cuda"):
                torch.cuda.synchronize()
            if repeat >= 3:
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{name:20} median {1000 * value:8.1f} ms  (min {1000 * min(times[name]):.1f})")
    print(f"ratio {medians['AIDE step'] / medians['unavoidable passes']:.3f}")


def _network(base: int, seed: int) -> BasicUNet:
    torch.manual_seed(seed)
    features = (base, base, 2 * base, 4 * base, 8 * base, base)
    return BasicUNet(spatial_dims=2, in_channels=1, out_channels=2, features=features, norm="batch")


if __name__ == "__main__":
    main()
