"""U2PL in a plain PyTorch loop: no configuration, no engine, nothing but the parts. For those who bring a trainer.

    python examples/plain_pytorch.py --steps 300

Replace `scenes` by a reader of your data (`u2pl.data.readers.folder.folder(root=...)`) and the loop by your own.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from u2pl import U2PL, EmaTeacher, Schedule, UnreliableContrast, deeplabv3plus
from u2pl.data.batches import Batches, Evaluation
from u2pl.data.loading import loader
from u2pl.data.scenes.reader import scenes
from u2pl.data.transforms import LabeledTransform, UnlabeledTransform
from u2pl.pixels.views import as_float, views_of

#: L = L_s + L_u + 0.1 L_c; lambda_u is part of what the method returns as "unsupervised".
LOSS_WEIGHTS = {"supervised": 1.0, "unsupervised": 1.0, "contrastive": 0.1}


def main(arguments: Sequence[str] | None = None) -> float:
    """Train, print losses and the teacher's mIoU, and return the latter in percent."""
    parser = argparse.ArgumentParser(description="U2PL without a framework")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--crop", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(options.seed)  # initial weights, dropout, mixing, and which pixels are drawn

    # Twelve labeled images; of all others the masks are never read.
    source = scenes(labeled=12, train=100, val=20, seed=options.seed)
    batches = Batches(
        labeled=source.labeled,
        unlabeled=source.unlabeled,
        labeled_transform=LabeledTransform(crop_size=options.crop),
        unlabeled_transform=UnlabeledTransform(crop_size=options.crop),  # a weak and a strong view of one crop
        batch_size=4,
        steps=options.steps,
        seed=options.seed,
    )

    # The student is an ordinary module; the method owns the teacher and the memory bank.
    classes, dim = len(source.classes), 32
    student = deeplabv3plus(
        num_classes=classes, encoder="resnet18", channels=64, low_level_channels=32, embedding_dim=dim
    ).to(device)
    contrast = UnreliableContrast(classes, dim, bank_size=2000, keys_per_step=256)
    # A quarter of training is supervised only: a teacher has to know something before it is worth listening to.
    schedule = Schedule(warmup=0.25, ramp=0.2)
    method = U2PL(EmaTeacher(student, passes=1), contrast=contrast, schedule=schedule).to(device)
    optimizer = AdamW(student.parameters(), lr=1e-3, weight_decay=0.01)  # the teacher has no gradient

    student.train()
    for step, crops in enumerate(loader(batches)):
        progress = step / options.steps
        batch = views_of(crops.to(device))  # images as float32; the strong views are jittered
        losses = method(student, batch, progress)
        total = sum((LOSS_WEIGHTS[name] * loss for name, loss in losses.items()), start=torch.zeros((), device=device))
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (1 - progress) ** 0.9
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        method.after_step(student)  # the teacher follows the student
        if (step + 1) % max(1, options.steps // 10) == 0:
            print(f"step {step + 1:4d}  " + "  ".join(f"{name} {loss.item():.3f}" for name, loss in losses.items()))

    # The last candidate is the model to use: the teacher, once there is one.
    name, network = list(method.candidates(student).items())[-1]
    confusion = confusion_matrix(network, loader(Evaluation(source.val)), classes, device)
    hit = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - hit
    miou = 100 * (hit[union > 0] / union[union > 0]).mean().item()
    print(f"{name}: {miou:.2f} mIoU on {len(source.val)} validation images")
    return miou


@torch.no_grad()
def confusion_matrix(
    network: nn.Module, images: Iterable[tuple[Tensor, Tensor]], classes: int, device: torch.device
) -> Tensor:
    """(C, C) pixel counts over whole images, true class by row. One matrix: mean IoU per image is another number."""
    network.eval()
    counts = torch.zeros(classes * classes, dtype=torch.int64)
    for image, mask in images:
        predicted = network(as_float(image.to(device)).unsqueeze(0)).logits.argmax(dim=1)[0].cpu()
        known = mask < classes  # 255 is ignored
        counts += torch.bincount(mask[known].long() * classes + predicted[known], minlength=classes * classes)
    return counts.view(classes, classes)


if __name__ == "__main__":
    main()
