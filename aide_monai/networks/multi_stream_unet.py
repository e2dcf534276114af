"""The segmentation network of the paper: a U-Net with an encoder stream for every modality."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from monai.networks.layers.factories import Conv, Pool
from monai.networks.nets.basic_unet import TwoConv
from torch import Tensor, nn

from aide_monai.networks.fast_layers import DoubleSize

FUSIONS = ("symmetric", "asymmetric")
UPSAMPLING = {2: "bilinear", 3: "trilinear"}  # by number of spatial axes


class MultiStreamUNet(nn.Module):
    """U-Net whose encoder has one stream per modality (Methods, "Segmentation network architecture").

    The modalities are the channels of one tensor, which the network takes apart itself: stream 1 gets the first
    ``in_channels / streams`` channels, stream 2 the next ones, and so on. A stream has one block of two 3x3
    convolutions, each with ``norm`` and ``act``, for every level, and max poolings between them: with the default
    ``features`` five blocks and four poolings, as in the paper.

    At every level the features of all streams are concatenated, stream 1 first. These fused features are the level's
    skip connection; those of the deepest level enter the decoder. The two fusions differ in what goes on, through a
    max pooling, to the blocks of the next level:

    - "symmetric": every stream receives its own features and so never sees another modality.
    - "asymmetric": stream 1, the leading modality, receives the fused features; the others receive their own. The
      authors' released code does this.

    A decoder block doubles the size by linear interpolation, concatenates the skip connection and applies two
    convolutions to its level's number of ``features``; a 1x1 convolution makes the logits. This width does not grow
    with the streams; that of the released code does, and it has one more convolution after each upsampling.

    With one stream both fusions are the same plain U-Net. Every spatial size works: pooling rounds an odd size up and
    the decoder cuts the surplus off after upsampling, so no pixel is left out and the levels stay aligned.

    Trainable parameters for one channel per stream, two classes and the default ``features``:

    - 2D: 7,849,058, and for every further stream 6,676,640 (symmetric) or 8,243,360 (asymmetric) more.
    - 3D: 23,535,266, and for every further stream 20,021,984 (symmetric) or 24,722,144 (asymmetric) more.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels M of the image.
        out_channels: classes C, background included.
        streams: number of encoder streams, a divisor of ``in_channels``; one per channel by default.
        fusion: "symmetric" or "asymmetric".
        features: channels of each stream at every level, from full size down; also those of the decoder.
        norm: normalisation as in MONAI, a name or (name, arguments). The 3x3 convolutions have no bias, so it should
            be one that shifts: "batch", or ("instance", {"affine": True}).
        act: activation as in MONAI, a name or (name, arguments).

    Raises:
        ValueError: if a parameter is out of range.

    Examples:
        >>> import torch
        >>> from aide_monai import MultiStreamUNet
        >>> network = MultiStreamUNet(2, in_channels=2, out_channels=3, features=(4, 8, 8))  # two modalities
        >>> network(torch.zeros(1, 2, 32, 32)).shape
        torch.Size([1, 3, 32, 32])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        streams: int | None = None,
        fusion: str = "symmetric",
        features: Sequence[int] = (32, 64, 128, 256, 512),
        norm: str | tuple = "batch",
        act: str | tuple = "relu",
    ) -> None:
        super().__init__()
        streams = in_channels if streams is None else streams
        _check_parameters(spatial_dims, in_channels, out_channels, streams, fusion, features)
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.stream_channels = in_channels // streams
        self.asymmetric = fusion == "asymmetric"

        def block(channels: int, out: int) -> TwoConv:
            return TwoConv(spatial_dims, channels, out, act, norm, bias=False)

        self.encoder = nn.ModuleList()
        for level, width in enumerate(features):
            incoming = [features[level - 1] if level else self.stream_channels] * streams
            if level and self.asymmetric:
                incoming[0] *= streams
            self.encoder.append(_Blocks(block(channels, width) for channels in incoming))
        self.pool = Pool[Pool.MAX, spatial_dims](kernel_size=2, ceil_mode=True)
        self.upsample = DoubleSize(UPSAMPLING[spatial_dims])
        self.skip = nn.Identity()  # shows ``FeatureDropout`` what the decoder gets
        self.decoder = nn.ModuleList()
        below = streams * features[-1]
        for width in reversed(features[:-1]):
            self.decoder.append(block(below + streams * width, width))
            below = width
        self.head = Conv[Conv.CONV, spatial_dims](below, out_channels, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, C, spatial...) of an image.

        Args:
            image: (B, M, spatial...) float, at least one pixel along every axis. Batch normalisation in training mode
                needs more than one pixel per channel in the whole batch at the deepest level too.

        Returns:
            Logits of the same spatial size, in the dtype that the convolutions compute in.

        Raises:
            ValueError: if the image has other axes or channels than the network was built for.
        """
        if image.dim() != self.spatial_dims + 2:
            raise ValueError(
                f"image has shape {list(image.shape)}; expected (B, M, spatial...) with {self.spatial_dims} spatial "
                "axes: add the missing axis or change spatial_dims"
            )
        if image.shape[1] != self.in_channels:
            raise ValueError(
                f"image has {image.shape[1]} channels; expected {self.in_channels}: stack all modalities along axis 1 "
                "or change in_channels"
            )
        streams = list(image.split(self.stream_channels, dim=1))
        skips: list[list[Tensor]] = []
        for level, blocks in enumerate(self.encoder):
            if level > 0:
                # Pooling before the concatenation gives the same values and copies fewer of them.
                streams = [self.pool(stream) for stream in streams]
                if self.asymmetric:
                    streams[0] = torch.cat(streams, dim=1)
            streams = blocks(streams)
            skips.append(streams)
        features = torch.cat(skips.pop(), dim=1)
        for block in self.decoder:
            parts = [self.skip(part) for part in skips.pop()]
            features = self.upsample(features)
            for axis in range(2, features.dim()):
                # An exported network must fit any size; in training, a cut that cuts nothing costs its gradient.
                if not self.training or features.shape[axis] > parts[0].shape[axis]:
                    features = features.narrow(axis, 0, parts[0].shape[axis])
            parts.append(features)
            features = block(torch.cat(parts, dim=1))
        return self.head(features)


class _Blocks(nn.Module):
    """The blocks of one level of the encoder, one for each stream."""

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, streams: list[Tensor]) -> list[Tensor]:
        outputs: list[Tensor] = []
        for index, block in enumerate(self.blocks):  # TorchScript has no zip of modules and tensors
            outputs.append(block(streams[index]))
        return outputs


def _check_parameters(
    spatial_dims: int, in_channels: int, out_channels: int, streams: int, fusion: str, features: Sequence[int]
) -> None:
    if spatial_dims not in UPSAMPLING:
        raise ValueError(f"spatial_dims is {spatial_dims!r}; expected 2 (slices) or 3 (volumes)")
    if in_channels < 1:
        raise ValueError(f"in_channels is {in_channels}; expected the number of image channels, at least 1")
    if out_channels < 1:
        raise ValueError(f"out_channels is {out_channels}; expected the number of classes, background included")
    if streams < 1 or in_channels % streams:
        divisors = ", ".join(str(n) for n in range(1, in_channels + 1) if in_channels % n == 0)
        raise ValueError(
            f"streams is {streams}; expected a divisor of in_channels = {in_channels}, so that every stream gets "
            f"equally many channels: one of {divisors}"
        )
    if fusion not in FUSIONS:
        raise ValueError(f"fusion is {fusion!r}; expected one of {', '.join(FUSIONS)}")
    if len(features) < 2 or min(features) < 1:
        raise ValueError(
            f"features is {tuple(features)}; expected at least two channel numbers above 0, one for each level from "
            "full size down"
        )
