"""What benchmarks of a step share: its shapes, a full memory bank, a network with its optimiser, and a stopwatch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from u2pl.methods import U2PL
from u2pl.networks import deeplabv3plus
from u2pl.pixels import UnreliableContrast
from u2pl.structures import Batch

LABELED = UNLABELED = 8


@dataclass(frozen=True)
class Shape:
    name: str
    classes: int
    crop: int
    features: int
    dim: int
    bank_size: list[int]
    network: dict[str, object]


#: The paper's on PASCAL VOC, but for the encoder.
VOC = Shape("voc", 21, 513, 129, 256, [50_000] + 20 * [30_000], {"encoder": "resnet50", "output_stride": 8})
SMALL = Shape("small", 11, 160, 40, 128, 11 * [30_000], {"encoder": "resnet18", "channels": 128, "embedding_dim": 128})


def full_contrast(shape: Shape, device: str, **options: Any) -> UnreliableContrast:
    """The contrastive term of the library, all of its queues full."""
    background, *_, others = shape.bank_size
    sizes = {"bank_size": others, "background_bank_size": background}
    contrast = UnreliableContrast(shape.classes, shape.dim, **sizes, **options).to(device)
    contrast.bank.keys.normal_()
    contrast.bank.pushed.copy_(contrast.bank.capacity)
    return contrast


class Training:
    """A student, its optimizer and a batch of random images. ``tuned``: like `u2pl train` on a GPU."""

    def __init__(self, shape: Shape, *, device: str, dtype: torch.dtype, tuned: bool = False) -> None:
        network = deeplabv3plus(num_classes=shape.classes, **shape.network)  # type: ignore[arg-type]
        layout = torch.channels_last if tuned else torch.contiguous_format
        self.student = network.to(device, memory_format=layout).train()
        fused = True if tuned and device == "cuda" else None
        self.optimizer = torch.optim.SGD(self.student.parameters(), lr=1e-4, momentum=0.9, fused=fused)
        image, weak, strong = torch.rand(3, LABELED, 3, shape.crop, shape.crop, device=device)
        label = torch.randint(shape.classes, (LABELED, shape.crop, shape.crop), device=device)
        self.batch = Batch(image, label, weak, strong, torch.ones_like(label, dtype=torch.bool))
        self.autocast = torch.autocast(device, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)

    def learn(self, loss: Tensor) -> None:
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def step(self, method: U2PL) -> None:
        with self.autocast:
            losses = method(self.student, self.batch, 0.5)
        self.learn(torch.stack(list(losses.values())).sum())
        method.after_step(self.student)


def alternate(
    runs: dict[str, Callable[[], object]], *, repeats: int, device: str, together: int = 1
) -> dict[str, float]:
    """Median milliseconds of each run, after one of each that does not count. So many run before the clock stops."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            if device == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(together):
                run()
            if device == "cuda":
                torch.cuda.synchronize()
            if repeat:
                seconds[name].append((time.perf_counter() - start) / together)
    return {name: 1000 * statistics.median(values) for name, values in seconds.items()}
