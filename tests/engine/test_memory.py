"""A step that cannot fit is refused before training, and at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from u2pl.commands.remedies import out_of_memory_is_bad_input
from u2pl.engine import memory
from u2pl.engine.memory import activation_bytes, require_memory
from u2pl.errors import InputError
from u2pl.networks import deeplabv3plus, smp_network


def test_activations_of_layers_are_counted() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Sequential(nn.Conv2d(4, 5, 1)))
    # (4 + 5) channels of 2 images of 6 x 8 pixels, two bytes a number; what works in place takes nothing
    assert activation_bytes(network, 2, 6, 8) == (4 + 5) * 2 * 6 * 8 * 2


def test_what_is_handed_on_takes_nothing() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Identity(), nn.Dropout(0.0), nn.Identity())
    assert activation_bytes(network, 1, 6, 8) == 4 * 6 * 8 * 2


@pytest.mark.parametrize(
    "options",
    [
        {"architecture": "DPT", "encoder": "tu-vit_tiny_patch16_224", "decoder_fusion_channels": 64},
        {"architecture": "Segformer", "encoder": "mit_b0"},
        {"architecture": "Unet", "encoder": "resnet18"},
    ],
)
def test_close_below_what_a_step_keeps_for_its_gradients(options: dict[str, Any]) -> None:
    network = smp_network(num_classes=5, embedding_dim=None, **options).train()
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, torch.Tensor] = {}  # alive until they are counted, so that no address comes twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network(torch.rand(1, 3, 128, 128))
    assert output.logits.requires_grad
    real = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / 2  # of four bytes a number
    assert 0.7 * real < activation_bytes(network, 1, 128, 128) < real


def test_the_network_is_left_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1)).eval()
    activation_bytes(network, 1, 4, 4)
    assert next(network.parameters()).device.type == "cpu"
    assert not network.training
    assert not network[0]._forward_hooks


def test_what_fits_passes_and_what_does_not_names_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Conv2d(3, 4, 1)
    needed = activation_bytes(network, 1, 8, 8)
    monkeypatch.setattr(memory, "total_memory", lambda device: needed)
    require_memory(network, torch.device("cpu"), images=1, height=8, width=8)
    with pytest.raises(InputError, match=r"^train\.crop_size: 2 crops of 8x8 need .* lower train\.crop_size"):
        require_memory(network, torch.device("cpu"), images=2, height=8, width=8)
    monkeypatch.setattr(memory, "total_memory", lambda device: None)  # unknown: try
    require_memory(network, torch.device("cpu"), images=2, height=8, width=8)


def test_a_huge_crop_is_refused_quickly() -> None:
    network = deeplabv3plus(num_classes=3, encoder="resnet18", channels=16, embedding_dim=8)
    started = time.process_time()  # of this process: others may keep the machine busy
    with pytest.raises(InputError, match=r"100000x100000 .* lower train\.crop_size or train\.batch_size"):
        require_memory(network, torch.device("cpu"), images=8, height=100_000, width=100_000)
    assert time.process_time() - started < 5
    with pytest.raises(InputError, match=r"need at least .* lower train\.crop_size"):  # more than torch can count
        require_memory(network, torch.device("cpu"), images=8, height=10**9, width=10**9)


def test_training_never_begins(tmp_path: Path, tiny_train: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=r"train\.crop_size"):
        tiny_train(tmp_path / "run", "train.crop_size=1000000")
    assert not (tmp_path / "run").exists()


def test_only_memory_that_runs_out_is_told_as_such() -> None:
    for error in (
        torch.OutOfMemoryError("x"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ):
        with pytest.raises(InputError, match="out of memory"), out_of_memory_is_bad_input():
            raise error
    for kind in (NotImplementedError, RecursionError, RuntimeError):
        with pytest.raises(kind, match="another"), out_of_memory_is_bad_input():
            raise kind("another reason")


def test_a_batch_with_one_value_per_channel_is_refused() -> None:
    network = deeplabv3plus(num_classes=3, encoder="resnet18", output_stride=16, channels=8)
    with pytest.raises(InputError, match=r"^train\.batch_size: a batch of 1 with crops of 16x16 has one value"):
        memory.require_values(network, images=1, height=16, width=16)
    memory.require_values(network, images=2, height=16, width=16)
    memory.require_values(network, images=1, height=32, width=16)


def test_weights_and_contrast_that_cannot_fit_name_their_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "total_memory", lambda device: 2**34)
    device = torch.device("cpu")
    with pytest.raises(InputError, match=r"^network\.channels: the network needs at least"):
        memory.require_weights(lambda: deeplabv3plus(num_classes=3, channels=20_000), device)
    memory.require_weights(lambda: deeplabv3plus(num_classes=3, channels=8), device)
    memory.require_weights(lambda: smp_network(num_classes=3, architecture="Segformer", encoder="mit_b0"), device)
    sizes = {"classes": 21, "dim": 256, "anchors": 50, "negatives": 256, "keys": 30_000}
    memory.require_contrast(device, **sizes)
    for changes, key in (
        ({"anchors": 65_536, "negatives": 65_536}, "anchors"),
        ({"keys": 10**9}, "bank_size"),
    ):
        with pytest.raises(InputError, match=rf"^method\.contrast\.{key}: the contrast needs"):
            memory.require_contrast(device, **{**sizes, **changes})


def test_nothing_is_kept_of_what_is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 5, 1))
    network[0].requires_grad_(False)
    assert activation_bytes(network, 2, 6, 8) == (4 + 4 + 5) * 2 * 6 * 8 * 2
    assert activation_bytes(network, 2, 6, 8, kept=True) == 5 * 2 * 6 * 8 * 2
    monkeypatch.setattr(memory, "total_memory", lambda device: 5 * 2 * 6 * 8 * 2)
    require_memory(network, torch.device("cpu"), images=2, height=6, width=8)
    with pytest.raises(InputError):
        require_memory(network.requires_grad_(True), torch.device("cpu"), images=2, height=6, width=8)
