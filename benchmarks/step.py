"""How much a step of U2PL costs beyond its network passes, and its contrastive term beside a plain one.

Prints small tables, medians of runs that alternate in one process:

1. *contrast*: forward and backward of ``UnreliableContrast`` with full queues, next to the same term written class by
   class with boolean masks, every negative gathered, queues concatenated and cut, and negatives drawn per anchor. Two
   shapes: VOC (21 classes, 8 + 8 crops of 513) and small (11 classes, 8 + 8 crops of 160).
2. *step*: a whole step (losses, backward, optimizer, teacher update) over its network passes alone (the teacher's, the
   student's forward and backward under a trivial loss, optimizer), for one and for two passes of the teacher, and
   across domains: labeled pixels are pasted onto unlabeled images, which are jittered afterwards. The VOC shape runs a
   ResNet-50 and needs CUDA; the small shape runs a ResNet-18.
3. *options*: a whole step with one pass of the teacher and one option, over the same step without it. Small shape only.
4. *weak step*: a whole step from image-level tags, with and without the refinement of its maps by colours. Small shape
   only.

    python benchmarks/step.py [--small] [--device cuda] [--precision bf16] [--repeats 10]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from training import LABELED, SMALL, UNLABELED, VOC, Shape, Training, alternate, full_contrast
from u2pl.data.photometric import Photometric
from u2pl.methods import U2PL, EmaTeacher, Schedule, StrongViews, WeakU2PL
from u2pl.methods.extras.alignment import AlignPseudoLabels
from u2pl.methods.extras.denoising import DenoisePseudoLabels
from u2pl.methods.extras.negative_learning import NegativeLearningLoss
from u2pl.methods.seeding import Seeding
from u2pl.methods.tags import ClassificationLoss, LimitToTags
from u2pl.networks import deeplabv3plus
from u2pl.pixels import (
    CrossDomainClassMix,
    DistributionAlignment,
    NegativeLearning,
    Prototypes,
    PrototypicalDenoising,
    Reliability,
)
from u2pl.pixels.cam import PixelAdaptiveRefinement
from u2pl.pixels.losses import SymmetricCrossEntropy
from u2pl.pixels.reliability import entropy_threshold
from u2pl.structures import IGNORE_INDEX, Batch

ANCHORS, NEGATIVES, TEMPERATURE, MIN_PROBABILITY = 50, 256, 0.5, 0.3


class PlainContrast:
    """The same term in the manner of the released code, with the paper's sets."""

    def __init__(self, shape: Shape, *, low_rank: int, high_rank: int, device: str) -> None:
        self.sizes, self.low_rank, self.high_rank = shape.bank_size, low_rank, high_rank
        self.queues = [torch.randn(size, shape.dim, device=device) for size in shape.bank_size]

    def __call__(self, embedding: Tensor, keys: Tensor, probability: Tensor, **sets: Tensor) -> Tensor:
        embedding, keys = embedding.float().permute(0, 2, 3, 1), keys.float().permute(0, 2, 3, 1)
        order = probability.sort(dim=1, descending=True).indices
        label, labeled = sets["label"], sets["label"] != IGNORE_INDEX
        losses = []
        for c in range(len(self.queues)):
            is_anchor = (sets["target"] == c) & (probability[:, c] > MIN_PROBABILITY)
            hard = labeled & (label != c) & (order[:, : self.low_rank] == c).any(dim=1)
            unlikely = sets["unreliable"] & (order[:, self.low_rank : self.high_rank] == c).any(dim=1)
            queue = torch.cat((self.queues[c], keys[hard | unlikely].detach()))[-self.sizes[c] :]
            self.queues[c] = queue
            anchors = embedding[is_anchor]
            if not len(anchors) or not len(queue):
                continue
            anchors = anchors[torch.randint(len(anchors), (ANCHORS,), device=anchors.device)]
            positive = keys[is_anchor].mean(dim=0).expand(ANCHORS, 1, -1)
            drawn = torch.randint(len(queue), (ANCHORS * NEGATIVES,), device=queue.device)
            contrasted = torch.cat((positive, queue[drawn].unflatten(0, (ANCHORS, NEGATIVES))), dim=1)
            scores = torch.cosine_similarity(anchors.unsqueeze(1), contrasted, dim=2) / TEMPERATURE
            losses.append(F.cross_entropy(scores, torch.zeros(ANCHORS, dtype=torch.long, device=scores.device)))
        return torch.stack(losses).mean() if losses else 0 * embedding.sum()


def synthetic_pixels(shape: Shape, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Blocks of classes that a teacher mostly recognises, half of them labeled."""
    batch, size = LABELED + UNLABELED, (shape.features, shape.features)
    blocks = torch.randint(shape.classes, (batch, 1, 6, 6), device=device)
    truth = F.interpolate(blocks.float(), size=size).squeeze(1).long()
    logits = torch.randn(batch, shape.classes, *size, device=device)
    probability = (logits + 3 * F.one_hot(truth, shape.classes).permute(0, 3, 1, 2)).softmax(dim=1)
    entropy = torch.special.entr(probability).sum(dim=1)
    unlabeled = (torch.arange(batch, device=device) >= LABELED).view(-1, 1, 1)
    gamma = entropy_threshold(entropy, unlabeled.expand_as(entropy), alpha=0.2)
    unreliable = unlabeled & (entropy >= gamma)
    pseudo_label = probability.argmax(dim=1).masked_fill(unreliable, IGNORE_INDEX)
    return {
        "embedding": torch.randn(batch, shape.dim, *size, device=device, dtype=dtype, requires_grad=True),
        "keys": torch.randn(batch, shape.dim, *size, device=device, dtype=dtype),
        "probability": probability,
        "target": torch.where(unlabeled, pseudo_label, truth),
        "label": truth.masked_fill(unlabeled, IGNORE_INDEX),
        "unreliable": unreliable,
    }


def compare_contrast(shape: Shape, *, device: str, dtype: torch.dtype, repeats: int) -> None:
    ours = full_contrast(shape, device)
    low_rank, high_rank = ours.negative_keys.ranks(shape.classes)
    plain = PlainContrast(shape, low_rank=low_rank, high_rank=high_rank, device=device)
    pixels = synthetic_pixels(shape, device, dtype)
    inputs = [pixels.pop(name) for name in ("embedding", "keys", "probability")]

    def run(contrast: Callable[..., Tensor]) -> None:
        inputs[0].grad = None
        contrast(*inputs, **pixels).backward()

    runs = {"plain": lambda: run(plain), "ours": lambda: run(ours)}
    ms = alternate(runs, repeats=repeats, device=device)
    report("contrast", shape, "plain / ours", ms["plain"], ms["ours"], target=">= 8")


def compare_step(
    shape: Shape, *, passes: int, device: str, dtype: torch.dtype, repeats: int, across: bool = False
) -> None:
    training = Training(shape, device=device, dtype=dtype)
    mix = StrongViews(CrossDomainClassMix(shape.classes), jitter=Photometric()) if across else None
    teacher = EmaTeacher(training.student, passes=passes)  # type: ignore[arg-type]
    method = U2PL(teacher, contrast=full_contrast(shape, device), mix=mix).to(device)
    both, weak = torch.cat((training.batch.image, training.batch.strong)), training.batch.weak

    def network_passes() -> None:
        with training.autocast:
            for images in (weak, both) if passes == 2 else (both,):
                method.teacher(images)
            output = training.student(both)
        training.learn(output.logits.mean() + output.embedding.mean())

    runs = {"whole": lambda: training.step(method), "passes": network_passes}
    ms = alternate(runs, repeats=repeats, device=device)
    name = "step across domains" if across else f"step, {passes} teacher pass(es)"
    report(name, shape, "whole / passes", ms["whole"], ms["passes"], target="<= 1.15")


def compare_options(shape: Shape, *, device: str, dtype: torch.dtype, repeats: int) -> None:
    training = Training(shape, device=device, dtype=dtype)
    prototypes = Prototypes(shape.classes, shape.dim)
    prototypes.update(torch.randn(shape.classes, shape.dim), torch.ones(shape.classes))
    kept = {"prototypes": prototypes, "prototype_positives": False}
    options: dict[str, dict[str, Any]] = {
        "none": {},
        "class_wise": {"reliability": Reliability(class_wise=True)},
        "alignment": {"refiners": [AlignPseudoLabels(DistributionAlignment(shape.classes))]},
        "negative": {"further_losses": [NegativeLearningLoss(NegativeLearning())]},
        "symmetric": {"unsupervised_loss": SymmetricCrossEntropy()},
        "prototypes": {"contrast": full_contrast(shape, device, prototypes=Prototypes(shape.classes, shape.dim))},
        "denoising": {
            "contrast": full_contrast(shape, device, **kept),
            "refiners": [DenoisePseudoLabels(PrototypicalDenoising(prototypes))],
        },
    }
    methods = {
        name: U2PL(EmaTeacher(training.student, passes=1), **{"contrast": full_contrast(shape, device), **parts})
        for name, parts in options.items()
    }
    runs = {name: partial(training.step, method.to(device)) for name, method in methods.items()}
    ms = alternate(runs, repeats=repeats, device=device)
    for name in list(options)[1:]:
        report(f"option {name}", shape, "with / without", ms[name], ms["none"], target="1 is free")


def compare_refinement(shape: Shape, *, device: str, dtype: torch.dtype, repeats: int) -> None:
    network = deeplabv3plus(num_classes=shape.classes, classification=True, **shape.network)  # type: ignore[arg-type]
    student = network.to(device).train()
    weak, strong = torch.rand(2, UNLABELED, 3, shape.crop, shape.crop, device=device)
    tags = torch.rand(UNLABELED, shape.classes, device=device) < 2 / shape.classes
    tags[:, 0] = True
    batch = Batch(
        image=weak[:0],
        label=torch.zeros(0, shape.crop, shape.crop, dtype=torch.long, device=device),
        weak=weak,
        strong=strong,
        valid=torch.ones(UNLABELED, shape.crop, shape.crop, dtype=torch.bool, device=device),
        tags=tags,
        tagged=torch.ones(UNLABELED, dtype=torch.bool, device=device),
    )
    autocast = torch.autocast(device, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)

    def step_with(iterations: int) -> Callable[[], None]:
        step_of_u2pl = U2PL(
            EmaTeacher(student, passes=1),
            contrast=full_contrast(shape, device),
            schedule=Schedule(),
            refiners=[LimitToTags()],
            further_losses=[ClassificationLoss()],
        )
        seeding = Seeding(warmup=0, refinement=PixelAdaptiveRefinement(iterations))
        method = WeakU2PL(step_of_u2pl, seeding=seeding).to(device)

        def step() -> None:
            with autocast:
                losses = method(student, batch, 0.5)
            torch.stack(list(losses.values())).sum().backward()
            student.zero_grad()

        return step

    ms = alternate({"refined": step_with(10), "plain": step_with(0)}, repeats=repeats, device=device)
    report("weak step", shape, "refined / plain", ms["refined"], ms["plain"], target="<= 1.15")


def report(what: str, shape: Shape, names: str, first: float, second: float, *, target: str) -> None:
    print(f"{what:26} {shape.name:6} {names:15} {first:9.1f} / {second:8.1f} ms = {first / second:6.2f}  ({target})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="the small shape only")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="fp32")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, default=None, help="threads of the CPU")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    options = {
        "device": arguments.device,
        "dtype": torch.bfloat16 if arguments.precision == "bf16" else torch.float32,
        "repeats": arguments.repeats,
    }
    print(f"torch {torch.__version__}, {arguments.device}, {arguments.precision}, {arguments.repeats} repeats, medians")
    for shape in (SMALL,) if arguments.small else (VOC, SMALL):
        compare_contrast(shape, **options)
        if shape is VOC and arguments.device == "cpu":
            print(f"{'step':26} {shape.name:6} left out: its network passes take minutes on a CPU")
            continue
        for passes in (1, 2):
            compare_step(shape, passes=passes, **options)
        compare_step(shape, passes=1, across=True, **options)
    compare_options(SMALL, **options)
    compare_refinement(SMALL, **options)


if __name__ == "__main__":
    main()
