"""What is chosen for a data set, from sizes worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from pydoc import locate

import nibabel
import numpy as np
import pytest
import torch

from aide_monai.cli.main import app, run
from aide_monai.data.case import Case
from aide_monai.data.datalist import Datalist
from aide_monai.errors import InputError
from aide_monai.workflows import network_plan, plan_network
from aide_monai.workflows.network_plan import NetworkPlan


def data(folder: Path, *images: tuple, modality: str = "MR", channels: int = 1) -> Datalist:
    """A case for each (shape, spacing)."""
    cases = []
    for number, (shape, spacing) in enumerate(images):
        file = folder / f"c{number}.nii.gz"
        voxels = np.zeros((*shape, channels) if channels > 1 else shape, dtype=np.uint8)
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([*spacing, 1.0])), file)
        cases.append(Case(name=f"c{number}", image=str(file)))
    return Datalist("livers", {0: "background", 1: "liver"}, dict.fromkeys(range(channels), modality), cases)


def forward(plan: NetworkPlan) -> tuple[int, ...]:
    """Shape of what the planned network makes of an image of the planned size."""
    network = locate(plan.parameters["network_class"])(**plan.parameters["network_args"]).eval()
    with torch.no_grad():
        channels = plan.parameters["network_args"]["in_channels"]
        return tuple(network(torch.zeros(1, channels, *plan.parameters["size"])).shape)


def test_slices_hold_the_largest_case(tmp_path: Path) -> None:
    plan = plan_network(data(tmp_path, ((30, 20, 4), (1, 1, 5)), ((33, 20, 6), (1, 1, 5))))
    assert (plan.parameters["size"], plan.parameters["slice_axis"], plan.parameters["spacing"]) == ([48, 32], 2, None)
    assert plan.parameters["network_class"].endswith("BasicUNet")
    assert (plan.parameters["intensity"], plan.parameters["fit"]) == ("slice", "pad")
    assert plan.parameters["rotation_planes"] == [[0, 1]]
    assert "rounded up to multiples of 16 x 16" in plan.reasons["slice size"][1]
    assert forward(plan) == (1, 2, 48, 32)


def test_slices_of_unlike_spacing_come_to_the_median(tmp_path: Path) -> None:
    cases = ((32, 32, 4), (1, 1, 5)), ((32, 32, 4), (1, 1, 5)), ((32, 32, 4), (1, 2, 5))  # the last: 64 mm along y
    plan = plan_network(data(tmp_path, *cases))
    assert (plan.parameters["spacing"], plan.parameters["size"]) == ([1, 1], [32, 64])


def test_cubes_are_turned_in_all_planes_and_cut_into_patches_of_the_median_size(tmp_path: Path) -> None:
    cases = ((20, 20, 20), (1, 1, 1)), ((30, 20, 16), (1, 1, 1)), ((64, 20, 16), (1, 1, 1))
    plan = plan_network(data(tmp_path, *cases), spatial_dims=3)
    assert plan.parameters["size"] == [32, 32, 16]  # median 30 x 20 x 16
    assert plan.parameters["rotation_planes"] == [[0, 1], [0, 2], [1, 2]]
    assert (plan.parameters["overlap"], plan.parameters["intensity"]) == (0.25, "volume_percentile")
    assert forward(plan) == (1, 2, 32, 32, 16)


def test_thick_slices_have_no_stride_across_until_voxels_are_cubes(tmp_path: Path) -> None:
    plan = plan_network(data(tmp_path, ((60, 60, 9), (1, 1, 5))), spatial_dims=3)
    assert plan.parameters["network_class"].endswith("SegResNetDS")
    assert plan.parameters["network_args"]["resolution"] == [1, 1, 5]
    # 5 mm is two doublings of 1 mm, so two strides of 2 x 2 x 1; then one of 2 x 2 x 2: multiples of 8 x 8 x 2
    assert plan.reasons["kernels and strides"][0] == "strides 2 x 2 x 1, 2 x 2 x 1, 2 x 2 x 2"
    assert plan.parameters["size"] == [64, 64, 10]
    assert plan.parameters["rotation_planes"] == [[0, 1]]
    assert forward(plan) == (1, 2, 64, 64, 10)


@pytest.mark.parametrize(("across", "network"), [(3.0, "BasicUNet"), (3.1, "SegResNetDS")])
def test_three_times_as_thick_is_the_border(tmp_path: Path, across: float, network: str) -> None:
    plan = plan_network(data(tmp_path, ((16, 16, 16), (1, 1, across))), spatial_dims=3)
    assert plan.parameters["network_class"].endswith(network)


def test_the_through_plane_axis_may_be_the_first(tmp_path: Path) -> None:
    plan = plan_network(data(tmp_path, ((9, 60, 60), (5, 1, 1))), spatial_dims=3)
    assert (plan.parameters["slice_axis"], plan.parameters["size"]) == (0, [10, 64, 64])
    assert plan.parameters["rotation_planes"] == [[1, 2]]


@pytest.mark.parametrize("dims", [2, 3])
def test_channels_have_a_stream_each(tmp_path: Path, dims: int) -> None:
    plan = plan_network(data(tmp_path, ((16, 16, 16), (1, 1, 1)), channels=2), spatial_dims=dims)
    assert plan.parameters["network_class"] == "aide_monai.networks.MultiStreamUNet"
    assert forward(plan) == (1, 2, *[16] * dims)


def test_ct_has_a_window(tmp_path: Path) -> None:
    plan = plan_network(data(tmp_path, ((16, 16, 16), (1, 1, 1)), modality="CT"), spatial_dims=3)
    assert (plan.parameters["intensity"], plan.parameters["window"]) == ("window", [-1000, 1000])


def test_a_size_is_cut_where_it_is_largest_for_its_extent() -> None:
    def voxels(size: Sequence[int]) -> int:  # a GB for each voxel
        return int(np.prod(size)) * 10**9

    # 8 x 4 = 32 GB of 40 / 2; both sides are whole, the longer goes first: 6 x 4 = 24; then 4 of 4 before 6 of 8: 6 x 2
    size, (text, reason) = network_plan._size(np.array([7, 4]), [2, 2], voxels, 40, asked=False, largest=False)
    assert (size, text) == ([6, 2], "6 x 2")
    assert reason == (
        "median extent 7 x 4, rounded up to multiples of 2 x 2 for the network's strides, then made smaller to fit; "
        "activations take about 12 of 40 GB"
    )
    with pytest.raises(InputError, match="memory is 4 GB; expected more: the smallest size, 2 x 2, needs 8 GB"):
        network_plan._size(np.array([7, 4]), [2, 2], voxels, 4, asked=False, largest=False)


def test_activations_are_what_pytorch_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(network_plan.NETWORKS, "two", f"{__name__}.TwoConvolutions")
    # kept of 3 images of 8 x 8: the input (1 channel) and what the second convolution gets (4 channels), float32, twice
    assert network_plan._activation_bytes("two", {"in_channels": 1}, 3, (8, 8)) == 2 * 4 * 3 * 64 * (1 + 4)


class TwoConvolutions(torch.nn.Sequential):
    def __init__(self, in_channels: int) -> None:
        super().__init__(torch.nn.Conv2d(in_channels, 4, 3, padding=1), torch.nn.Conv2d(4, 2, 1))


def test_less_memory_gives_smaller_patches(tmp_path: Path) -> None:
    cases = data(tmp_path, ((64, 64, 64), (1, 1, 1)))
    large, small = (plan_network(cases, spatial_dims=3, memory_gb=gb).parameters["size"] for gb in (64, 1))
    assert large == [64, 64, 64]
    assert np.prod(small) < np.prod(large)
    slices = plan_network(data(tmp_path, ((512, 512, 2), (1, 1, 5))), memory_gb=1)
    assert slices.parameters["fit"] == "crop"


def test_a_patch_that_does_not_fit_the_strides_is_corrected_and_told(tmp_path: Path) -> None:
    plan = plan_network(data(tmp_path, ((40, 40, 40), (1, 1, 1))), spatial_dims=3, size=(20, 32, 10))
    assert plan.parameters["size"] == [32, 32, 16]
    assert plan.reasons["patch size"][1].startswith("asked for 20 x 32 x 10, rounded up to multiples of 16 x 16 x 16")


def test_images_of_one_slice_are_named_in_3d(tmp_path: Path) -> None:
    cases = data(tmp_path, ((16, 16, 1), (1, 1, 5)), ((16, 16, 4), (1, 1, 5)))
    with pytest.raises(InputError, match="images of one slice in a 3D data set") as refused:
        plan_network(cases, spatial_dims=3)
    assert "c0: found shape 16 x 16 x 1; expected at least 2 voxels" in str(refused.value)
    assert "c1" not in str(refused.value)
    assert plan_network(cases).parameters["size"] == [16, 16]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial_dims": 4}, r"spatial_dims is 4; expected 2 \(slices\) or 3 \(volumes\)"),
        ({"network": "UNETR"}, "network is 'UNETR'; expected one of BasicUNet, MultiStreamUNet, SegResNet"),
        ({"size": (16, 16, 16)}, r"size is \[16, 16, 16\]; expected 2 numbers"),
        ({"memory_gb": 0}, "memory is 0 GB"),
    ],
)
def test_options_out_of_range(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_network(data(tmp_path, ((16, 16, 4), (1, 1, 5))), **options)


def aide(*arguments: object) -> int:
    return run(lambda: app([str(a) for a in arguments], prog_name="aide", standalone_mode=False))


def test_the_command_prints_and_stores_one_table(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data(tmp_path, ((60, 60, 9), (1, 1, 5))).save(tmp_path / "datalist.json")
    out = tmp_path / "plan.json"
    assert aide("plan", tmp_path, "--spatial-dims", 3, "--out", out) == 0
    told = capsys.readouterr().out
    assert "SegResNet" in told
    assert "64 x 64 x 10" in told
    stored = json.loads(out.read_text())
    assert stored["parameters"]["size"] == [64, 64, 10]
    assert {"choice": "axes", "value": "3D", "reason": "patches of volumes"} in stored["table"]
    assert aide("plan", tmp_path / "datalist.json", "--spatial-dims", 3, "--size", "60,60,9", "--json") == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == stored["parameters"]  # 60 and 9 are rounded up likewise
    assert aide("plan", tmp_path, "--spatial-dims", 4) == 2
    assert "spatial_dims is 4" in capsys.readouterr().err
