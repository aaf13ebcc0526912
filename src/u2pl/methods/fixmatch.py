"""Consistency from weak to strong views by a fixed confidence threshold: FixMatch and UniMatch, without a teacher."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from u2pl.methods.base import Method, PixelLoss, supervised_losses
from u2pl.methods.diagnosis import pseudo_label_counts
from u2pl.methods.views import Jitter, jittered
from u2pl.pixels.losses import cross_entropy
from u2pl.pixels.mixing import CutMix, Mixing
from u2pl.structures import IGNORE_INDEX, Batch, PseudoLabel


class FixMatch(Method):
    """FixMatch (Sohn et al. 2020, arXiv 2001.07685) for segmentation, after the baseline of UniMatch.

    The student labels the weak view itself, in evaluation mode; where it is confident, it must say the same of the
    mixed strong view.

    Args:
        threshold: confidence that a pseudo-label needs.
        mixing: how strong views are mixed.
        jitter: photometric jitter of the mixed images, where strong views come without.
        supervised_loss: L_s.
    """

    semi_supervised = True

    def __init__(
        self,
        *,
        threshold: float = 0.95,
        mixing: Mixing | None = None,
        jitter: Jitter | None = None,
        supervised_loss: PixelLoss = cross_entropy,
    ) -> None:
        super().__init__()
        self.threshold, self.jitter = threshold, jitter
        self.mixing: Mixing = CutMix() if mixing is None else mixing
        self.supervised_loss = supervised_loss

    def forward(self, student: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Returns ``supervised`` and ``unsupervised``; with such a head ``auxiliary``."""
        _, (strong, *_) = batch.unlabeled_views()
        mixed, pseudo = self.mix(batch, strong, self.believe(self.weak_logits(student, batch), batch.valid))

        output = student(torch.cat((batch.image, mixed)))
        losses = supervised_losses(output, batch.label, self.supervised_loss)
        losses["unsupervised"] = confident_cross_entropy(output.logits[-len(mixed) :], pseudo)
        return losses

    @torch.no_grad()
    def weak_logits(self, student: nn.Module, batch: Batch) -> Tensor:
        """(B_u, C, H, W): the student's view of the weak images, in evaluation mode."""
        weak, _ = batch.unlabeled_views()
        student.eval()
        logits = student(weak).logits
        student.train()
        return logits

    def diagnose(self, student: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Pseudo-labels; the student labels its images itself, so that there is nothing else to compare."""
        logits = self.weak_logits(student, batch)
        pseudo = self.believe(logits, batch.valid)
        return pseudo_label_counts(pseudo, batch.truth, num_classes=logits.shape[1])

    def believe(self, logits: Tensor, valid: Tensor | None) -> PseudoLabel:
        """Pseudo-labels, reliable where they reach the threshold."""
        pseudo = PseudoLabel.from_logits(logits, valid)
        reliable = pseudo.valid & (pseudo.confidence >= self.threshold)
        return replace(pseudo, reliable=reliable, unreliable=pseudo.valid & ~reliable)

    def mix(self, batch: Batch, strong: Tensor, pseudo: PseudoLabel) -> tuple[Tensor, PseudoLabel]:
        """The strong view and its pseudo-labels, mixed alike."""
        mix = self.mixing.draw(pseudo, batch.label)
        return jittered(mix.apply(strong, batch.image), self.jitter), mix.pseudo_label(pseudo)


class UniMatch(FixMatch):
    """UniMatch (Yang et al. 2023, arXiv 2208.09910): two strong views and one with dropped features.

    L_u = (the mean over the strong views + the loss of the perturbed features) / 2. The release also halves the sum of
    L_s and L_u, which is left to the learning rate here, and draws partners for CutMix from a second loader; here an
    image's partner is the next of its batch. Takes the options of :class:`FixMatch`.
    """

    def forward(self, student: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Returns ``supervised`` and ``unsupervised``; with such a head ``auxiliary``."""
        weak, views = batch.unlabeled_views()
        output = student(torch.cat((batch.image, weak)), dropped=len(weak))
        _, clean, perturbed = output.logits.split((len(batch.image), len(weak), len(weak)))
        pseudo = self.believe(clean.detach(), batch.valid)
        mixed, targets = zip(*(self.mix(batch, strong, pseudo) for strong in views), strict=True)
        strong_logits = student(torch.cat(mixed)).logits

        losses = supervised_losses(output, batch.label, self.supervised_loss)
        strong_loss = confident_cross_entropy(strong_logits, PseudoLabel.cat(targets))
        losses["unsupervised"] = (strong_loss + confident_cross_entropy(perturbed, pseudo)) / 2
        return losses

    @torch.no_grad()
    def weak_logits(self, student: nn.Module, batch: Batch) -> Tensor:
        """(B_u, C, H, W): the student's view of the weak images beside the labeled ones, in training mode."""
        weak, _ = batch.unlabeled_views()
        output = student(torch.cat((batch.image, weak)), dropped=len(weak))
        return output.logits[len(batch.image) : -len(weak)]


def confident_cross_entropy(logits: Tensor, pseudo: PseudoLabel) -> Tensor:
    """Cross-entropy over reliable pixels, divided by the number of all valid ones: few of them weigh little."""
    total = F.cross_entropy(logits.float(), pseudo.target(), ignore_index=IGNORE_INDEX, reduction="sum")
    return total / pseudo.valid.sum().clamp(min=1)
