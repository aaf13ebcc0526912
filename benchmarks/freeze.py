"""How long a step of U2PL takes with a frozen encoder, and how much memory it needs.

Prints a line for each value of ``network.freeze``: the median of steps that alternate in one process (losses, backward,
optimizer, teacher update), its ratio to a step that trains everything, bytes that autograd keeps for the backward pass,
and the largest memory of a process that takes two such steps and nothing else.

    python benchmarks/freeze.py [--encoder mobilenet_v2] [--weights PATH] [--passes 1] [--crop 256] [--repeats 5]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from multiprocessing import get_context
from typing import Any

import torch

from u2pl.engine.machine import best_precision
from u2pl.engine.parameter_groups import parameter_groups
from u2pl.methods import U2PL, EmaTeacher
from u2pl.networks import smp_network
from u2pl.pixels import UnreliableContrast
from u2pl.structures import Batch

CLASSES, IMAGES, DIM = 11, 8, 128
FREEZE: dict[str, bool | int] = {"false": False, "true": True, "2": 2}


class Training:
    """A student with its method, its optimizer and a batch of random images, as `auto` sets them on a CPU."""

    def __init__(self, freeze: bool | int, arguments: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.student: Any = smp_network(
            num_classes=CLASSES,
            architecture=arguments.architecture,
            encoder=arguments.encoder,
            embedding_dim=DIM,
            weights=arguments.weights,
        )
        self.student.freeze(freeze)
        self.student.to(memory_format=torch.channels_last).train()
        groups = parameter_groups(self.student, lr=1e-4, head_lr_factor=10, weight_decay=0.01)
        self.optimizer = torch.optim.AdamW(groups)
        contrast = UnreliableContrast(CLASSES, DIM, bank_size=5000, keys_per_step=512)
        teacher = EmaTeacher(self.student, passes=arguments.passes)
        self.method = U2PL(teacher, contrast=contrast).train()
        self.bf16 = arguments.precision == "bf16"
        image, weak, strong = torch.rand(3, IMAGES, 3, arguments.crop, arguments.crop)
        blocks = torch.randint(CLASSES, (IMAGES, 1, 8, 8)).float()
        label = torch.nn.functional.interpolate(blocks, size=arguments.crop)[:, 0].long()
        self.batch = Batch(image, label, weak, strong, torch.ones_like(label, dtype=torch.bool))

    def step(self) -> None:
        batch = Batch(*(tensor.clone() for tensor in self.images()))  # as of the next step: nothing is known of it
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
            losses = self.method(self.student, batch, 0.5)
        torch.stack(list(losses.values())).sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.method.after_step(self.student)

    def images(self) -> list[torch.Tensor]:
        batch = self.batch
        return [batch.image, batch.label, batch.weak, batch.strong, batch.valid]  # type: ignore[list-item]


def kept_bytes(training: Training) -> int:
    """Bytes of the storages that autograd keeps for the backward pass of a step."""
    storages: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        training.step()
    return sum(storages.values())


def peak_bytes(freeze: bool | int, arguments: argparse.Namespace) -> int:
    """The largest memory of this process, after two steps."""
    torch.set_num_threads(arguments.threads)
    training = Training(freeze, arguments)
    for _ in range(2):
        training.step()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kibibytes on Linux


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="FPN")
    parser.add_argument("--encoder", default="mobilenet_v2")
    parser.add_argument("--weights", default=None)
    parser.add_argument("--passes", type=int, choices=(1, 2), default=1, help="of the teacher")
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default=best_precision(on_cpu=True))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{arguments}, torch {torch.__version__}")
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        peaks = {name: pool.apply(peak_bytes, (freeze, arguments)) for name, freeze in FREEZE.items()}
    trainings = {name: Training(freeze, arguments) for name, freeze in FREEZE.items()}
    kept = {name: kept_bytes(training) for name, training in trainings.items()}
    seconds: dict[str, list[float]] = {name: [] for name in trainings}
    for _ in range(arguments.repeats):
        for name, training in trainings.items():
            start = time.perf_counter()
            training.step()
            seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in median.items():
        print(
            f"freeze={name:6} {1000 * value:8.0f} ms {value / median['false']:6.2f} of all training   "
            f"kept {kept[name] / 2**20:6.0f} MiB   peak {peaks[name] / 2**20:6.0f} MiB"
        )


if __name__ == "__main__":
    main()
