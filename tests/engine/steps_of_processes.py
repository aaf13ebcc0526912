"""A script: the first steps of a method on a fixed batch, which the processes divide. It saves what they come to.

python steps_of_processes.py OUT DEVICES [overrides]
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from u2pl.build import build_method, build_network, build_optimizer
from u2pl.config.overrides import load_config
from u2pl.engine.machine import make_fabric, share_batch_norm, share_keys, sum_over_processes
from u2pl.structures import IGNORE_INDEX, Batch

CLASSES, IMAGES, SIDE, STEPS = 10, 4, 64, 3


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


def main(out: Path, devices: int, overrides: list[str]) -> None:
    config = load_config("scenes", [*overrides, "train.precision=fp32"])
    fabric = make_fabric(accelerator="cpu", devices=devices, nodes=1, precision="fp32")
    torch.manual_seed(0)
    network = settled(build_network(config, CLASSES))
    optimizer = build_optimizer(config.train, network)
    method = build_method(
        config.method,
        network,
        num_classes=CLASSES,
        embedding_dim=config.network.embedding_dim,
        gather=share_keys(fabric) if devices > 1 else None,
        total=sum_over_processes if devices > 1 else None,
        processes=devices,
    )
    fabric.launch()
    if devices > 1 and config.train.sync_batch_norm:
        network = share_batch_norm(network, fabric.device)
    student, optimizer = fabric.setup(network, optimizer)
    student.train()
    method.train()
    mine = slice(fabric.global_rank * IMAGES // devices, (fabric.global_rank + 1) * IMAGES // devices)
    whole = whole_batch()
    values = {name: getattr(whole, name) for name in ("image", "label", "weak", "strong", "valid")}
    batch = replace(whole, **{name: value[mine] for name, value in values.items()})
    kept: dict[str, Any] = {"steps": []}
    for step in range(STEPS):
        losses = method(student, batch, step / STEPS)
        fabric.backward(sum(losses.values()))
        gradients = {name: each.grad.clone() for name, each in network.named_parameters() if each.grad is not None}
        means: dict[str, Tensor] = {name: sum_over_processes(loss) / devices for name, loss in losses.items()}
        kept["steps"].append({"losses": means, "gradients": gradients})
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(network)
    kept["state"] = network.state_dict()
    torch.save(kept, out / f"{devices}-{fabric.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
