from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from u2pl.engine.unreached import freeze_unreached, unreached
from u2pl.networks import deeplabv3plus, smp_network
from u2pl.structures import SegmentationOutput


class WithSpare(nn.Module):
    """A network with a layer that no output comes from."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.spare = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)

    def forward(self, image: torch.Tensor) -> SegmentationOutput:
        self.spare(image)
        logits = self.used(image)
        return SegmentationOutput(logits, logits)


def test_a_layer_without_an_output_is_found_and_frozen() -> None:
    network = WithSpare()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert unreached(network, height=8, width=8) == ["spare.weight", "spare.bias"]
    freeze_unreached(network, height=8, width=8)
    assert [name for name, each in network.named_parameters() if each.requires_grad] == ["used.weight", "used.bias"]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert network.training


@pytest.mark.parametrize(
    ("architecture", "encoder", "stages"),
    [("FPN", "efficientnet-b0", ("_conv_head", "_bn1")), ("PSPNet", "resnet18", ("layer3", "layer4"))],
)
def test_stages_of_an_encoder_that_a_decoder_leaves_out(
    architecture: str, encoder: str, stages: tuple[str, ...]
) -> None:
    network = smp_network(num_classes=4, architecture=architecture, encoder=encoder, embedding_dim=8)
    found = unreached(network, height=64, width=64)
    assert {name.split(".")[2] for name in found} == set(stages)
    # A real backward pass agrees.
    output = network(torch.rand(2, 3, 64, 64))
    sum(each.sum() for each in (output.logits, output.coarse, output.embedding)).backward()  # type: ignore[union-attr]
    assert found == [name for name, each in network.named_parameters() if each.grad is None]


def test_every_head_of_the_papers_network_is_reached() -> None:
    network = deeplabv3plus(
        num_classes=4, encoder="resnet18", channels=8, embedding_dim=8, auxiliary=True, classification=True
    )
    assert unreached(network, height=64, width=64) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [
        ("network.name=smp", "network.architecture=FPN", "network.encoder=efficientnet-b0"),
        ("network.name=smp", "network.architecture=PSPNet", "network.encoder=resnet18"),
        ("network.name=deeplabv3plus", "network.encoder=resnet18"),
    ],
    ids=["FPN", "PSPNet", "DeepLabv3+"],
)
def test_two_processes_train_through_the_warm_up_and_beyond(
    tmp_path: Path, tiny_overrides: tuple[str, ...], network: tuple[str, ...]
) -> None:
    """In the warm-up no loss depends on the projection head: it is kept in the graph by a term that is zero."""
    out = tmp_path / "run"
    plain = [each for each in tiny_overrides if not each.startswith("network.")]
    short = ("train.steps=4", "method.schedule.warmup=0.5", "data.val=1", "network.embedding_dim=8")
    command = [Path(sys.executable).with_name("u2pl"), "train", "scenes", *plain, *network, *short]
    done = subprocess.run(
        [*map(str, command), "train.devices=2", "train.log_every=1", "network.pretrained=false", "--out", str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    weights = load_file(out / "last.safetensors")
    assert all(value.isfinite().all() for value in weights.values())
