"""What every process does by itself, and what several threads' worth of ranks would; real processes are elsewhere."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from aide_monai.errors import InputError, MainProcessError
from aide_monai.networks import GlobalBatchNorm, synchronise_batch_norm
from aide_monai.stream import ShareBatchSampler, collate_share
from aide_monai.utils import distributed
from aide_monai.utils.share import Share, batch_mean


def pretend(monkeypatch: pytest.MonkeyPatch, rank: int, size: int) -> None:
    """Be one of several processes, as far as nothing is exchanged."""
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    monkeypatch.setattr(distributed, "world_size", lambda: size)


def test_one_process_exchanges_nothing() -> None:
    value = torch.tensor([1.0, 2.0])
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert distributed.gather("a") == ["a"]
    assert distributed.broadcast("a") == "a"
    assert distributed.total(value) is value
    assert distributed.on_main(lambda: 3) == 3
    assert float(batch_mean(value)) == 1.5
    share = Share.of(5)
    assert (share.total, share.part, share.sizes) == (5, slice(0, 5), (5,))
    network = nn.Linear(2, 2)
    assert distributed.data_parallel(network, torch.optim.SGD(network.parameters())) is network
    distributed.sum_gradients(network)()
    distributed.copy_from_main(network)
    distributed.average_buffers(network)
    distributed.require_same_weights(network)
    distributed.initialize()
    assert not torch.distributed.is_initialized()


def test_content_survives_the_way() -> None:
    content = {("a", 1): [torch.arange(3), None, 1.5, "text", (True, 2)]}
    found = distributed._unpack(distributed._pack(content))
    assert torch.equal(found["a", 1][0], torch.arange(3))
    assert found["a", 1][1:] == [None, 1.5, "text", (True, 2)]


def test_code_does_not() -> None:
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        distributed._unpack(distributed._pack({"harmless": nn.Linear(1, 1)}))


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize(("samples", "batch_size"), [(8, 4), (9, 4), (7, 5), (4, 4)])
def test_shares_are_the_batch(monkeypatch: pytest.MonkeyPatch, size: int, samples: int, batch_size: int) -> None:
    data = torch.arange(samples)
    whole = list(BatchSampler(SequentialSampler(data), batch_size, drop_last=False))
    shares = []
    for rank in range(size):
        pretend(monkeypatch, rank, size)
        sampler = ShareBatchSampler(BatchSampler(SequentialSampler(data), batch_size, drop_last=False))
        assert len(sampler) == len(whole)
        shares.append(list(sampler))
    for number, batch in enumerate(whole):
        parts = [share[number] for share in shares]
        assert [index for part in parts for index in part] == batch
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_an_empty_share_is_an_empty_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 0, 2)
    data = [{"image": torch.full((1, 2), float(n))} for n in range(5)]
    batches = BatchSampler(SequentialSampler(data), 4, drop_last=False)
    loaded = list(DataLoader(data, batch_sampler=ShareBatchSampler(batches), collate_fn=collate_share))
    assert loaded[0]["image"].flatten().tolist() == [0, 0, 1, 1]
    assert loaded[1] == {}


def test_a_batch_must_have_a_sample_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 0, 3)
    with pytest.raises(InputError, match="batch_size is 2; expected at least one sample for each of the 3 processes"):
        ShareBatchSampler(BatchSampler(SequentialSampler(range(6)), 2, drop_last=False))


def test_gathered_values_are_in_the_order_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Padded to the largest share, and the padding taken away."""
    parts = [torch.tensor([1.0, 2.0]), torch.tensor([]), torch.tensor([3.0])]
    padded = [torch.cat([part, torch.zeros(2 - len(part))]) for part in parts]
    for rank, part in enumerate(parts):
        sent = []
        monkeypatch.setattr(distributed, "all_gather", lambda values, sent=sent: sent.append(values) or padded)
        share = Share((2, 0, 1), rank)
        assert share.gather(part).tolist() == [1, 2, 3]
        assert torch.equal(sent[0], padded[rank])
        assert share.part == [slice(0, 2), slice(2, 2), slice(2, 3)][rank]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[/x/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:1: Connection reset by peer. This is"),
        torch.distributed.DistBackendError("NCCL communicator was aborted on rank 1."),
        torch.distributed.DistNetworkError("Socket closed"),
    ],
)
def test_a_lost_process_is_a_sentence(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    try:
        raise KeyError("config") from error
    except KeyError as wrapped:
        lost = distributed.lost_process(wrapped)
    assert str(lost).startswith("process 1 has lost another process of this run, which has ended or does not answer (")
    assert "/x/" not in str(lost)
    assert "This is" not in str(lost)


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), ValueError("gloo"), KeyError("x")])
def test_other_errors_are_not(error: Exception) -> None:
    assert distributed.lost_process(error) is None
    with pytest.raises(type(error)), distributed._exchange():
        raise error


def test_an_error_of_the_main_process_is_one_of_input() -> None:
    assert issubclass(MainProcessError, InputError)
    assert issubclass(distributed.LostProcessError, InputError)


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(InputError, match="1 GPUs and at least 2 processes; expected one GPU for each"):
        distributed.local_device()


# Batch normalisation over the global batch


def test_one_process_keeps_its_layers() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    assert synchronise_batch_norm(network, "cpu") is network
    assert type(network[1]) is nn.BatchNorm2d


@pytest.mark.parametrize("momentum", [0.1, 0.3, None])
@pytest.mark.parametrize("dims", [2, 3])
def test_the_formulas_are_those_of_torch(monkeypatch: pytest.MonkeyPatch, momentum: float | None, dims: int) -> None:
    """Where the sum over the processes is what this one has, the layer is the plain one: values and gradients."""
    torch.manual_seed(0)
    plain = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dims](3, momentum=momentum)
    nn.init.normal_(plain.weight)
    nn.init.normal_(plain.bias)
    wrapped = nn.ModuleDict({"inner": nn.Sequential(plain)})
    pretend(monkeypatch, 0, 2)
    monkeypatch.setattr(distributed, "total", lambda values: values)
    synchronise_batch_norm(wrapped, "cpu")
    layer = wrapped["inner"][0]
    assert isinstance(layer, GlobalBatchNorm)
    assert layer.weight is plain.weight
    assert list(layer.state_dict()) == list(plain.state_dict())
    monkeypatch.undo()
    other = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dims](3, momentum=momentum)
    other.load_state_dict(plain.state_dict())
    pretend(monkeypatch, 0, 2)
    monkeypatch.setattr(distributed, "total", lambda values: values)
    for _ in range(3):
        first = (5 + 2 * torch.randn(4, 3, *[5] * dims)).requires_grad_()
        second = first.detach().clone().requires_grad_()
        weight = torch.randn_like(first)
        (layer(first) * weight).sum().backward()
        (other(second) * weight).sum().backward()
        torch.testing.assert_close(layer(first), other(second))
        torch.testing.assert_close(first.grad, second.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(layer.weight.grad, other.weight.grad, atol=1e-4, rtol=1e-4)
    for name, value in other.state_dict().items():
        torch.testing.assert_close(layer.state_dict()[name], value)
    layer.eval()
    other.eval()
    torch.testing.assert_close(layer(first), other(first))
