"""What the processes of a run exchange in a step: bytes by formula, and milliseconds of each exchange by itself.

Two processes on this machine's CPU, connected by gloo over loopback. The sizes are those of the preset pascal_voc:
DeepLabv3+ on ResNet-101, 21 classes, embeddings of length 256, a crop of 513. No network runs: an exchange depends on
the shapes of its tensors only. Times are medians.

    python benchmarks/scaling.py [--repeats 20] [--images 10000000]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from u2pl.data.batches import _permutation
from u2pl.engine.machine import make_fabric, share_keys, sum_over_processes
from u2pl.networks import deeplabv3plus
from u2pl.pixels.order import at_places, float_keys
from u2pl.pixels.reliability import class_entropy_thresholds, entropy_threshold

CLASSES, DIM, KEYS, IMAGES, CROP = 21, 256, 2048, 4, 513


def median(work: Callable[[], object], repeats: int) -> float:
    """Milliseconds."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def sent_by(work: Callable[[], object]) -> int:
    """Bytes of the tensors that a process gives to its exchanges in ``work``."""
    total, plain = 0, torch.distributed.all_reduce

    def counting(tensor: torch.Tensor, *rest: object, **options: object) -> object:
        nonlocal total
        total += tensor.numel() * tensor.element_size()
        return plain(tensor, *rest, **options)  # type: ignore[arg-type]

    torch.distributed.all_reduce = counting
    try:
        work()
    finally:
        torch.distributed.all_reduce = plain
    return total


def main(repeats: int, images: int) -> None:
    fabric = make_fabric(accelerator="cpu", devices=2, nodes=1, precision="fp32")
    fabric.launch()
    torch.manual_seed(fabric.global_rank)
    network = deeplabv3plus(num_classes=CLASSES, encoder="resnet101", output_stride=8, embedding_dim=DIM)
    gradients = torch.zeros(sum(each.numel() for each in network.parameters()))
    widths = [each.num_features for each in network.modules() if isinstance(each, nn.BatchNorm2d)]
    statistics_ = torch.zeros(sum(each.numel() for each in network.buffers() if each.is_floating_point()))
    entropy = torch.rand(IMAGES, CROP, CROP)
    valid = entropy > 0.05
    pixels = entropy, torch.randint(0, CLASSES, entropy.shape), valid
    keys, keep = torch.rand(CLASSES, KEYS, DIM), torch.ones(CLASSES, KEYS, dtype=torch.bool)
    ordered, zero = float_keys(entropy).flatten().sort().values, torch.zeros(1, dtype=torch.long)

    def batch_norms() -> None:
        for width in widths:
            sum_over_processes(torch.zeros(2 * width + 1, dtype=torch.float64))  # forward
            sum_over_processes(torch.zeros(2 * width, dtype=torch.float64))  # backward

    def places() -> None:
        at_places(ordered, zero, torch.tensor([[10, 11]]), sum_over_processes)

    gather = share_keys(fabric)
    exchanges: list[tuple[str, Callable[[], object], int | None]] = [
        ("gradients, 4 P", lambda: sum_over_processes(gradients), None),
        (f"batch norm, {2 * len(widths)} sums", batch_norms, None),
        ("running statistics", lambda: fabric.all_reduce(statistics_, reduce_op="mean"), None),
        ("keys, C K (4 D + 1)", lambda: gather(keys, keep), CLASSES * KEYS * (4 * DIM + 1)),
        ("one count", lambda: sum_over_processes(zero), None),
        ("quantile, exchanges alone", places, None),
        ("quantile with its sort", lambda: entropy_threshold(entropy, valid, 0.2, sum_over_processes), None),
        ("quantile of each class", lambda: class_entropy_thresholds(*pixels, 0.2, sum_over_processes), None),
    ]
    rows = []
    for name, work, size in exchanges:
        size = sent_by(work) if size is None else size  # noqa: PLW2901
        rows.append((name, size, median(work, repeats)))
    alone = median(lambda: entropy_threshold(entropy, valid, 0.2), repeats)
    if fabric.is_global_zero:
        print(f"{len(gradients) / 1e6:.1f} M parameters, {len(widths)} batch norms of {sum(widths)} channels")
        print(f"{'exchange':<28}{'bytes':>14}{'ms':>10}")
        for name, size, milliseconds in rows:
            print(f"{name:<28}{size:>14,}{milliseconds:>10.1f}")
        print(f"{'quantile of own pixels':<28}{0:>14,}{alone:>10.1f}")
        began = time.perf_counter()
        _permutation(images, 0)
        print(f"order of {images:,} images: {time.perf_counter() - began:.1f} s")
    fabric.barrier()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--images", type=int, default=10_000_000)
    arguments = parser.parse_args()
    main(arguments.repeats, arguments.images)
