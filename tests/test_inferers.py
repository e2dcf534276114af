"""Precision and memory layout of a network's call."""

from __future__ import annotations

import pytest
import torch
from monai.inferers import SlidingWindowInferer
from torch import Tensor, nn

from aide_monai import inferers
from aide_monai.errors import InputError
from aide_monai.inferers import AutocastInferer, hardware_amp, place


@pytest.mark.parametrize(("dims", "layout"), [(2, torch.channels_last), (3, torch.channels_last_3d)], ids=["2D", "3D"])
def test_channels_last_changes_the_layout_and_not_the_numbers(dims: int, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    convolution = (nn.Conv2d if dims == 2 else nn.Conv3d)(2, 3, kernel_size=3)
    image = torch.rand(2, 2, *[6] * dims)
    expected = convolution(image)
    network = place(convolution, "cpu", channels_last=True)
    assert network.weight.is_contiguous(memory_format=layout)
    seen: list[Tensor] = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    torch.testing.assert_close(AutocastInferer(channels_last=True)(image, network), expected)
    assert seen[0].is_contiguous(memory_format=layout)


def test_low_precision_gives_float32_logits() -> None:
    seen: list[torch.dtype] = []

    def network(inputs: Tensor) -> Tensor:
        product = inputs.flatten(1) @ inputs.flatten(1).T
        seen.append(product.dtype)
        return product

    logits = AutocastInferer("bf16")(torch.ones(2, 1, 2, 2), network)
    assert seen == [torch.bfloat16]
    assert logits.dtype == torch.float32
    assert logits.tolist() == [[4.0, 4.0], [4.0, 4.0]]


def test_another_inferer_calls_the_network_in_the_precision() -> None:
    seen: list[torch.dtype] = []

    def network(inputs: Tensor) -> Tensor:
        seen.append((inputs.flatten(1) @ inputs.flatten(1).T).dtype)
        return inputs.bfloat16()

    windows = SlidingWindowInferer(roi_size=(2, 2), sw_batch_size=1, overlap=0)
    logits = AutocastInferer("bf16", inferer=windows)(torch.ones(1, 1, 4, 2), network)
    assert seen == [torch.bfloat16, torch.bfloat16]
    assert (logits.dtype, logits.shape) == (torch.float32, (1, 1, 4, 2))


@pytest.mark.parametrize(
    ("machine", "hardware", "amp", "warnings"),
    [
        ("x86_64", "off", "bf16", 1),
        ("x86_64", "bf16", "bf16", 0),
        ("aarch64", "off", "bf16", 0),
        ("x86_64", "off", "off", 0),
    ],
)
def test_bfloat16_without_instructions_for_it_warns_once(
    machine: str,
    hardware: str,
    amp: str,
    warnings: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(inferers, "hardware_amp", lambda: hardware)
    inferers._warn_of_slow_bf16.cache_clear()
    for _ in range(2):
        AutocastInferer(amp)(torch.ones(1, 1, 2, 2), torch.nn.Identity())
    assert sum("no bfloat16 instructions" in record.message for record in caplog.records) == warnings
    inferers._warn_of_slow_bf16.cache_clear()


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "device is 'gpu'; expected cpu, cuda, cuda:1"),
        ("cuda", 'device is "cuda"; found 0 GPUs that PyTorch can use; expected one of cpu$'),
        ("cuda:1", 'device is "cuda:1"; found 0 GPUs'),
        ("meta", 'device is "meta", which cannot be used here'),
    ],
)
def test_a_device_that_is_not_there_is_named(device: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError, match=message):
        place(nn.Conv2d(1, 1, 1), device)


def test_an_unknown_precision_is_refused_by_name() -> None:
    assert hardware_amp() in ("off", "bf16")
    with pytest.raises(ValueError, match="amp is 'fp8'; expected one of off, bf16, fp16"):
        AutocastInferer("fp8")
