"""The multi-stream U-Net against a plain functional one, its streams, its parameters and its exports."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from monai.inferers import SliceInferer
from torch import Tensor, nn

from aide_monai.inferers import AutocastInferer, place
from aide_monai.networks import MultiStreamUNet, seeded

FUSIONS = ("symmetric", "asymmetric")
FEATURES = (2, 3, 4, 5, 6)


def small(
    streams: int = 2, fusion: str = "symmetric", *, spatial_dims: int = 2, seed: int = 0, **options: Any
) -> MultiStreamUNet:
    """A network with few features and with batch statistics that are no identity, in eval mode."""
    options = {"in_channels": streams, "out_channels": 3, "features": FEATURES, **options}

    def build() -> nn.Module:
        network = MultiStreamUNet(spatial_dims, streams=streams, fusion=fusion, **options)
        for name, statistics in network.named_buffers():
            if name.endswith("running_mean"):
                statistics.normal_(std=0.1)
            elif name.endswith("running_var"):
                statistics.uniform_(0.5, 1.5)
        return network.eval()

    network = seeded(build, seed)
    assert isinstance(network, MultiStreamUNet)
    return network


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def stream_features(network: MultiStreamUNet, image: Tensor) -> list[list[Tensor]]:
    """Output of every block of the encoder: [level][stream]."""
    found: list[list[Tensor]] = [[] for _ in network.encoder]
    handles = [
        block.register_forward_hook(lambda _module, _inputs, output, level=level: found[level].append(output.clone()))
        for level, blocks in enumerate(network.encoder)
        for block in blocks.blocks
    ]
    with torch.no_grad():
        network(image)
    for handle in handles:
        handle.remove()
    return found


class Reference:
    """The U-Net as the paper words it: concatenate, then pool; sizes divisible by 16, 2D, evaluation mode."""

    def __init__(self, network: MultiStreamUNet) -> None:
        self.state = network.state_dict()

    def block(self, prefix: str, features: Tensor) -> Tensor:
        for number in (0, 1):
            norm = [
                self.state[f"{prefix}.conv_{number}.adn.N.{name}"]
                for name in ("running_mean", "running_var", "weight", "bias")
            ]
            features = F.conv2d(features, self.state[f"{prefix}.conv_{number}.conv.weight"], padding=1)
            features = F.batch_norm(features, *norm).relu()
        return features

    def __call__(self, image: Tensor, streams: int, fusion: str) -> Tensor:
        inputs = list(image.chunk(streams, dim=1))
        fused = []
        for level in range(5):
            own = [self.block(f"encoder.{level}.blocks.{stream}", inputs[stream]) for stream in range(streams)]
            fused.append(torch.cat(own, dim=1))
            inputs = [F.max_pool2d(features, 2) for features in own]
            if fusion == "asymmetric":
                inputs[0] = F.max_pool2d(fused[level], 2)
        features = fused[4]
        for number, skip in enumerate(reversed(fused[:4])):
            doubled = F.interpolate(features, size=skip.shape[2:], mode="bilinear", align_corners=False)
            features = self.block(f"decoder.{number}", torch.cat([skip, doubled], dim=1))
        return F.conv2d(features, self.state["head.weight"], self.state["head.bias"])


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("streams", [1, 2, 3])
def test_equals_a_u_net_assembled_by_hand(streams: int, fusion: str) -> None:
    network = small(streams, fusion)
    image = noise(2, streams, 32, 48)
    torch.testing.assert_close(network(image), Reference(network)(image, streams, fusion))


def test_with_one_stream_both_fusions_are_the_same_network() -> None:
    image = noise(1, 1, 16, 16)
    assert torch.equal(small(1, "symmetric")(image), small(1, "asymmetric")(image))


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("streams", range(1, 9))
def test_the_output_has_the_image_size(streams: int, fusion: str) -> None:
    network = small(streams, fusion)
    for size in [(16, 32), (33, 17), (5, 1)]:
        assert network(noise(2, streams, *size)).shape == (2, 3, *size)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_volumes_of_any_size(fusion: str) -> None:
    network = small(2, fusion, spatial_dims=3)
    for size in [(16, 16, 16), (7, 18, 3), (1, 1, 1)]:
        assert network(noise(1, 2, *size)).shape == (1, 3, *size)


def test_an_odd_size_is_pooled_up_and_cut_by_hand() -> None:
    network = MultiStreamUNet(2, 1, 2, features=(1, 1))
    for blocks in network.encoder:
        blocks.blocks[0] = nn.Identity()
    seen: list[Tensor] = []
    network.decoder[0].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    row = torch.tensor([1.0, 2, 3, 4, 5])
    network(row.expand(1, 1, 5, 5))
    # The pairs (1 2) (3 4) (5) have the maxima 2 4 5; each new pixel lies a quarter of a step from its nearest one.
    expected = torch.stack([row, torch.tensor([2, 2.5, 3.5, 4.25, 4.75])])
    torch.testing.assert_close(seen[0], expected[None, :, None, :].expand(1, 2, 5, 5))


def changed(network: MultiStreamUNet, channel: int) -> list[list[bool]]:
    """Whether the features [level][stream] depend on a channel of the image."""
    image = noise(1, network.in_channels, 32, 32)
    other = image.clone()
    other[:, channel] += noise(1, 32, 32, seed=2)
    before, after = stream_features(network, image), stream_features(network, other)
    return [[not torch.equal(a, b) for a, b in zip(*level, strict=True)] for level in zip(before, after, strict=True)]


def wide(streams: int, fusion: str, **options: Any) -> MultiStreamUNet:
    """Enough features that no stream is dead behind its ReLUs."""
    return small(streams, fusion, features=(8, 8, 8, 8, 8), **options)


def test_symmetric_streams_see_their_own_modality_alone() -> None:
    network = wide(3, "symmetric")
    for modality in range(3):
        assert changed(network, modality) == [[stream == modality for stream in range(3)]] * 5


def test_asymmetric_stream_1_sees_all_modalities_below_the_first_level() -> None:
    network = wide(3, "asymmetric")
    assert changed(network, 0) == [[True, False, False]] * 5
    assert changed(network, 1) == [[False, True, False], *[[True, True, False]] * 4]
    assert changed(network, 2) == [[False, False, True], *[[True, False, True]] * 4]


def test_a_stream_takes_neighbouring_channels() -> None:
    network = wide(2, "symmetric", in_channels=6)
    assert [changed(network, channel)[0] for channel in range(6)] == [[True, False]] * 3 + [[False, True]] * 3


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("spatial_dims", "streams", "fusion", "expected"),
    [
        (2, 1, "symmetric", 7_849_058),
        (2, 1, "asymmetric", 7_849_058),
        (2, 2, "symmetric", 7_849_058 + 6_676_640),
        (2, 2, "asymmetric", 7_849_058 + 8_243_360),
        (2, 8, "symmetric", 7_849_058 + 7 * 6_676_640),
        (2, 8, "asymmetric", 7_849_058 + 7 * 8_243_360),
        (3, 1, "symmetric", 23_535_266),
        (3, 2, "symmetric", 23_535_266 + 20_021_984),
        (3, 2, "asymmetric", 23_535_266 + 24_722_144),
    ],
)
def test_parameters_of_the_default_network(spatial_dims: int, streams: int, fusion: str, expected: int) -> None:
    with torch.device("meta"):
        network = MultiStreamUNet(spatial_dims, streams, 2, fusion=fusion)
    assert parameters(network) == expected
    for number in ("7,849,058", "6,676,640", "8,243,360", "23,535,266", "20,021,984", "24,722,144"):
        assert number in str(MultiStreamUNet.__doc__)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("streams", range(1, 9))
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_parameters_by_formula(spatial_dims: int, streams: int, fusion: str) -> None:
    kernel = 3**spatial_dims
    a, b, c, d, e = FEATURES
    # Two convolutions without bias; two numbers per feature after each of them for the batch normalisation.
    second = sum(kernel * f * f + 4 * f for f in FEATURES)
    steps = kernel * (a * b + b * c + c * d + d * e)
    encoder = streams * (second + kernel * 2 * a + steps)
    if fusion == "asymmetric":
        encoder += (streams - 1) * steps
    decoder = (
        kernel * (d * (streams * (d + e) + d) + c * (d + streams * c + c))
        + kernel * (b * (c + streams * b + b) + a * (b + streams * a + a))
        + 4 * (a + b + c + d)
    )
    with torch.device("meta"):
        network = MultiStreamUNet(spatial_dims, 2 * streams, 3, streams=streams, fusion=fusion, features=FEATURES)
    assert parameters(network) == encoder + decoder + 3 * a + 3


@pytest.mark.parametrize("fusion", FUSIONS)
def test_gradients_reach_every_parameter(fusion: str) -> None:
    network = wide(3, fusion).train()
    network(noise(4, 3, 32, 32)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_a_training_step_repeats_exactly_with_the_seed() -> None:
    def step() -> dict[str, Tensor]:
        network = small(2, "asymmetric", seed=5).train()
        optimizer = torch.optim.Adam(network.parameters())
        network(noise(2, 2, 33, 32)).square().mean().backward()
        optimizer.step()
        return network.state_dict()

    first, second = step(), step()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_streams_start_from_different_weights() -> None:
    first, second = small(2).encoder[0].blocks
    assert not torch.equal(first.conv_0.conv.weight, second.conv_0.conv.weight)


def test_the_state_dict_holds_the_whole_network() -> None:
    file = io.BytesIO()
    first, second = small(2, "asymmetric", seed=1), small(2, "asymmetric", seed=2)
    torch.save(first.state_dict(), file)
    file.seek(0)
    image = noise(1, 2, 20, 20)
    assert not torch.equal(first(image), second(image))
    second.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(first(image), second(image))


@pytest.mark.parametrize(("streams", "fusion"), [(1, "symmetric"), (3, "symmetric"), (3, "asymmetric")])
def test_torchscript(tmp_path: Path, streams: int, fusion: str) -> None:
    network = small(streams, fusion, features=FEATURES[:3])
    torch.jit.script(network).save(tmp_path / "network.ts")
    scripted = torch.jit.load(tmp_path / "network.ts")
    for shape in [(1, streams, 32, 32), (3, streams, 19, 6)]:
        torch.testing.assert_close(scripted(noise(*shape)), network(noise(*shape)), rtol=0, atol=1e-5)
    with pytest.raises(torch.jit.Error, match="image has 5 channels"):
        scripted(noise(1, 5, 16, 16))


def test_torchscript_of_volumes() -> None:
    network = small(2, "asymmetric", spatial_dims=3, features=FEATURES[:3])
    scripted = torch.jit.script(network)
    for shape in [(1, 2, 16, 16, 16), (2, 2, 5, 9, 18)]:
        torch.testing.assert_close(scripted(noise(*shape)), network(noise(*shape)), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("spatial_dims", "fusion", "dynamo"), [(2, "asymmetric", True), (2, "symmetric", False), (3, "asymmetric", False)]
)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # the check of the channels is made once, as it should
def test_onnx_for_any_batch_and_image_size(tmp_path: Path, spatial_dims: int, fusion: str, dynamo: bool) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    # Torch's newer exporter takes seconds per level, and one pooling has every operation that four have.
    network = small(2, fusion, spatial_dims=spatial_dims, features=FEATURES[:2] if dynamo else FEATURES)
    free = (0, *range(2, spatial_dims + 2))
    options: dict[str, Any] = {"dynamic_axes": {"image": {axis: f"axis_{axis}" for axis in free}}}
    if dynamo:
        options = {"dynamic_shapes": [dict.fromkeys(free, torch.export.Dim.DYNAMIC)], "verbose": False}
    file = tmp_path / "network.onnx"
    example = noise(2, 2, *(11, 13, 6)[:spatial_dims])
    torch.onnx.export(network, (example,), file, input_names=["image"], dynamo=dynamo, **options)
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for batch, size in [(2, (11, 13, 6)), (1, (16, 8, 12)), (3, (5, 9, 7))]:
        image = noise(batch, 2, *size[:spatial_dims])
        (output,) = session.run(None, {"image": image.numpy()})
        torch.testing.assert_close(torch.from_numpy(output), network(image), rtol=0, atol=1e-5)


def test_slices_of_a_volume_through_monai() -> None:
    network = small(2, "asymmetric")
    volume = noise(1, 2, 24, 20, 3)
    whole = SliceInferer(roi_size=(24, 20), spatial_dim=2)(volume, network)
    expected = torch.stack([network(volume[..., z]) for z in range(3)], dim=-1)
    torch.testing.assert_close(whole, expected)
    windows = SliceInferer(roi_size=(16, 16), spatial_dim=2, overlap=0.5, mode="gaussian")(volume, network)
    assert windows.shape == (1, 3, 24, 20, 3)
    assert windows.isfinite().all()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_keeps_channels_last_and_bfloat16(fusion: str) -> None:
    network = place(wide(2, fusion), "cpu", channels_last=True)
    image = noise(2, 2, 33, 40)
    expected = network(image)
    copied = []

    def watch(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        for features in (*inputs, output):
            if features.dtype != torch.bfloat16 or not features.is_contiguous(memory_format=torch.channels_last):
                copied.append(features.shape)

    for blocks in network.encoder[1:]:
        for block in blocks.blocks:
            block.register_forward_hook(watch)
    for block in network.decoder:
        block.register_forward_hook(watch)
    output = AutocastInferer("bf16", channels_last=True)(image, network)
    assert not copied
    torch.testing.assert_close(output, expected, rtol=0.05, atol=0.05)


def test_another_norm_and_activation() -> None:
    network = small(2, norm=("instance", {"affine": True}), act="prelu")
    assert sum(isinstance(module, nn.InstanceNorm2d) for module in network.modules()) == 2 * (5 * 2 + 4)
    assert sum(isinstance(module, nn.PReLU) for module in network.modules()) == 2 * (5 * 2 + 4)
    assert network(noise(1, 2, 32, 32)).shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial_dims": 4}, r"spatial_dims is 4; expected 2 \(slices\) or 3 \(volumes\)"),
        ({"in_channels": 0}, "in_channels is 0; expected the number of image channels, at least 1"),
        ({"out_channels": 0}, "out_channels is 0; expected the number of classes"),
        ({"streams": 0}, "streams is 0; expected a divisor of in_channels = 6"),
        ({"streams": 4}, "streams is 4; expected a divisor of in_channels = 6, .* one of 1, 2, 3, 6"),
        ({"fusion": "late"}, "fusion is 'late'; expected one of symmetric, asymmetric"),
        ({"features": (32,)}, r"features is \(32,\); expected at least two channel numbers above 0"),
        ({"features": (4, 0, 8)}, r"features is \(4, 0, 8\); expected at least two channel numbers above 0"),
    ],
)
def test_refuses_what_makes_no_network(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiStreamUNet(**{"spatial_dims": 2, "in_channels": 6, "out_channels": 2, **options})


def test_refuses_another_image() -> None:
    network = small(2)
    with pytest.raises(ValueError, match=r"image has 1 channels; expected 2: stack all modalities along axis 1"):
        network(noise(1, 1, 16, 16))
    with pytest.raises(ValueError, match=r"image has shape \[2, 16, 16\]; expected .* with 2 spatial axes"):
        network(noise(2, 16, 16))
