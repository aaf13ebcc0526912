"""A script: one step of several methods on a fixed batch, which the processes divide. It saves what they come to.

    python steps_of_processes.py OUT DEVICES CASES

CASES is a JSON object: the overrides of each case.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from u2pl.build import build_method, build_network, build_optimizer
from u2pl.config.overrides import load_config
from u2pl.engine.machine import make_fabric, share_batch_norm, share_keys, sum_over_processes
from u2pl.structures import IGNORE_INDEX, Batch

CLASSES, IMAGES, SIDE = 10, 4, 64


def whole_batch() -> Batch:
    """Four labeled and four unlabeled images. The first have few ignored pixels, the last have many."""
    torch.manual_seed(0)
    images = [torch.rand(IMAGES, 3, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3) for _ in range(2)]
    images = [(image + 0.1 * torch.randn(IMAGES, 3, SIDE, SIDE)).clamp(0, 1) for image in images]
    label = torch.randint(0, CLASSES, (IMAGES, 8, 8)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    rows = torch.arange(SIDE).view(1, -1, 1).expand(IMAGES, SIDE, SIDE)
    label = label.masked_fill(rows >= torch.tensor([60, 50, 20, 0]).view(-1, 1, 1), IGNORE_INDEX)
    valid = rows < torch.tensor([64, 40, 30, 10]).view(-1, 1, 1)
    return Batch(images[0], label, images[1], images[1] ** 0.7, valid)


@torch.no_grad()
def settled(network: Any) -> Any:
    """The network with statistics of the batch and firm predictions, so that a teacher's pseudo-labels are not ties."""
    network.train()
    for _ in range(30):
        network(whole_batch().weak)
    network.classifier[-1].weight.mul_(8)
    return network


def step(fabric: Fabric, overrides: list[str]) -> dict[str, Any]:
    """Losses, gradients and running statistics of the first step."""
    config, processes = load_config("scenes", overrides), fabric.world_size
    torch.manual_seed(0)
    network = settled(build_network(config, CLASSES))
    optimizer = build_optimizer(config.train, network)
    method = build_method(
        config.method,
        network,
        num_classes=CLASSES,
        embedding_dim=config.network.embedding_dim,
        gather=share_keys(fabric) if processes > 1 else None,
        total=sum_over_processes if processes > 1 else None,
        processes=processes,
    )
    if processes > 1 and config.train.sync_batch_norm:
        network = share_batch_norm(network, fabric.device)
    student, _ = fabric.setup(network, optimizer)
    student.train()
    mine = slice(fabric.global_rank * IMAGES // processes, (fabric.global_rank + 1) * IMAGES // processes)
    whole = whole_batch()
    values = {name: getattr(whole, name) for name in ("image", "label", "weak", "strong", "valid")}
    losses = method.train()(student, replace(whole, **{name: value[mine] for name, value in values.items()}), 0.0)
    fabric.backward(sum(losses.values()))
    return {
        "losses": {name: sum_over_processes(loss).item() / processes for name, loss in losses.items()},
        "gradients": {name: each.grad.clone() for name, each in network.named_parameters() if each.grad is not None},
        "statistics": {name: each.clone() for name, each in network.named_buffers() if "running" in name},
    }


def main(out: Path, devices: int, cases: dict[str, list[str]]) -> None:
    fabric = make_fabric(accelerator="cpu", devices=devices, nodes=1, precision="fp32")
    fabric.launch()
    kept = {name: step(fabric, overrides) for name, overrides in cases.items()}
    torch.save(kept, out / f"{devices}-{fabric.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
