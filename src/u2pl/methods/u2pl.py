"""U2PL: every pixel trains the model, the unreliable ones as negative keys (arXiv 2203.03884, algorithm 1)."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from u2pl.methods.base import Method, PixelLoss, supervised_losses
from u2pl.methods.ema import EmaTeacher
from u2pl.pixels.contrast import UnreliableContrast
from u2pl.pixels.losses import cross_entropy
from u2pl.pixels.mixing import CutMix, Mix, Mixing
from u2pl.pixels.reliability import partition
from u2pl.structures import IGNORE_INDEX, Batch, PseudoLabel, SegmentationOutput


class U2PL(Method):
    """One iteration of U2PL. Without a ``contrast`` it is a mean teacher with strong views.

    Args:
        network: the student; the teacher starts as its copy. Needs an embedding when there is a contrast.
        contrast: the contrastive term with its memory bank.
        mixing: how strong views are mixed.
        alpha_0: share of pixels held unreliable at the start; falls to 0 with the progress of training.
        min_confidence: absolute floor of a reliable pixel beside the quantile; 0 in the paper.
        warmup: first share of training that is supervised only.
        ramp: share of training over which the weight of L_u grows linearly to one after the warm-up; 0 in the paper.
        max_lambda_u: bound of lambda_u, which grows without one when ``min_confidence`` leaves few pixels reliable.
        ema_decay: largest momentum of the teacher.
        teacher_passes: 2: the teacher sees the mixed images to embed them, as in the released code; 1: its view of the
            weak images is mixed instead, which saves a pass.
        supervised_loss: L_s.
    """

    semi_supervised = True

    def __init__(
        self,
        network: nn.Module,
        *,
        contrast: UnreliableContrast | None,
        mixing: Mixing | None = None,
        alpha_0: float = 0.20,
        min_confidence: float = 0.0,
        warmup: float = 0.0,
        ramp: float = 0.0,
        max_lambda_u: float = math.inf,
        ema_decay: float = 0.99,
        teacher_passes: int = 2,
        supervised_loss: PixelLoss = cross_entropy,
    ) -> None:
        super().__init__()
        self.teacher = EmaTeacher(network, decay=ema_decay)
        self.contrast = contrast
        self.mixing: Mixing = CutMix() if mixing is None else mixing
        self.alpha_0, self.min_confidence = alpha_0, min_confidence
        self.warmup, self.ramp = warmup, ramp
        self.max_lambda_u = max_lambda_u
        self.teacher_passes = teacher_passes
        self.supervised_loss = supervised_loss

    def forward(self, student: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Returns ``supervised``, ``unsupervised`` (lambda_u L_u), ``contrastive``; with such a head ``auxiliary``."""
        if progress < self.warmup:
            return self.warmup_step(student, batch)
        self.teacher.start(student)

        weak, strong = batch.unlabeled_views()
        view = self.teacher(torch.cat((batch.image, weak)) if self.shares_view else weak)
        pseudo = PseudoLabel.from_logits(view.logits[-len(weak) :], batch.valid)
        pseudo = partition(pseudo, alpha=self.alpha_0 * (1 - progress), min_confidence=self.min_confidence)
        mix = self.mixing.draw(pseudo)
        mixed, pseudo = mix.apply(strong), mix.pseudo_label(pseudo)

        images = torch.cat((batch.image, mixed))
        output: SegmentationOutput = student(images)
        losses = supervised_losses(output, batch.label, self.supervised_loss)
        losses["unsupervised"] = self.weight(pseudo, progress) * cross_entropy(
            output.logits[-len(mixed) :], pseudo.target()
        )
        if self.contrast is not None:
            keys = mixed_view(view, mix, labeled=len(batch.image)) if self.shares_view else self.teacher(images)
            losses["contrastive"] = self.contrast(
                output.embedding,
                keys.embedding,
                keys.coarse.float().softmax(dim=1),
                **pixel_sets(batch.label, pseudo, size=keys.coarse.shape[-2:]),
            )
        return losses

    @property
    def shares_view(self) -> bool:
        """Whether the teacher's view of the unmixed images also serves the contrast."""
        return self.contrast is not None and self.teacher_passes == 1

    def weight(self, pseudo: PseudoLabel, progress: float) -> Tensor:
        """lambda_u = all unlabeled pixels / reliable ones, times the ramp after the warm-up."""
        lambda_u = pseudo.valid.sum() / pseudo.reliable.sum().clamp(min=1)
        ramp = min(1.0, (progress - self.warmup) / self.ramp) if self.ramp > 0 else 1.0
        return ramp * lambda_u.clamp(max=self.max_lambda_u)

    def warmup_step(self, student: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Labels alone; every output stays connected to the graph, as distributed training needs."""
        output = student(batch.image)
        losses = supervised_losses(output, batch.label, self.supervised_loss)
        if self.contrast is not None:
            losses["contrastive"] = 0.0 * output.embedding.sum()
        return losses

    def after_step(self, student: nn.Module) -> None:
        """Average the student into the teacher, once semi-supervised training has begun."""
        if self.teacher.started:
            self.teacher.update(student)

    def candidates(self, student: nn.Module) -> dict[str, nn.Module]:
        """The student, and the teacher once there is one."""
        return {"student": student} | ({"teacher": self.teacher.network} if self.teacher.started else {})


def mixed_view(view: SegmentationOutput, mix: Mix, *, labeled: int) -> SegmentationOutput:
    """The teacher's view of labeled and weak images, the latter mixed as the images the student sees."""

    def mixed(tensor: Tensor) -> Tensor:
        return torch.cat((tensor[:labeled], mix.apply(tensor[labeled:])))

    assert view.embedding is not None  # a contrast needs a network with a projection head
    return replace(view, coarse=mixed(view.coarse), embedding=mixed(view.embedding))


def pixel_sets(label: Tensor, pseudo: PseudoLabel, *, size: torch.Size) -> dict[str, Tensor]:
    """What the contrast asks of labeled and unlabeled pixels together, at the resolution of the embedding.

    Returns (B_l + B_u, h, w): ``target``, the class of labeled and of reliable pixels; ``label``, the true class of
    labeled pixels; ``unreliable``. All others are IGNORE_INDEX or False.
    """
    nothing = torch.full_like(pseudo.label, IGNORE_INDEX)
    sets = {
        "target": torch.cat((label, pseudo.target())),
        "label": torch.cat((label, nothing)),
        "unreliable": torch.cat((torch.zeros_like(label, dtype=torch.bool), pseudo.unreliable)),
    }
    return {name: downsample(tensor, size) for name, tensor in sets.items()}


def downsample(tensor: Tensor, size: torch.Size) -> Tensor:
    """(B, H, W) of any dtype to (B, h, w) by nearest neighbour."""
    return F.interpolate(tensor.unsqueeze(1).float(), size=size).squeeze(1).to(tensor.dtype)
