"""FixMatch and UniMatch: consistency of weak and strong views by a fixed confidence threshold, without a teacher."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from u2pl.methods.base import Method, PixelLoss, supervised_losses
from u2pl.methods.diagnosis import pseudo_label_counts
from u2pl.methods.passes import Network, student_pass, teacher_pass
from u2pl.methods.strong_views import StrongViews
from u2pl.methods.weighting import ReliableShare, Weighting
from u2pl.pixels.losses import cross_entropy
from u2pl.pixels.reliability import ConfidenceThreshold
from u2pl.structures import IGNORE_INDEX, Batch, PseudoLabel, SegmentationOutput


class FixMatch(Method):
    """FixMatch (Sohn et al. 2020, arXiv 2001.07685) for segmentation, like the baseline of UniMatch.

    The student labels the weak view in evaluation mode. Where it is confident, the label becomes its target for the
    mixed strong view.

    Args:
        threshold: smallest confidence of a pseudo-label that trains.
        mix: makes the strong views; default: CutMix.
        supervised_loss: L_s.
        unsupervised_loss: L_u, before its weight.
        weighting: weight of pseudo-labels; default: the share of reliable pixels.
    """

    semi_supervised = True

    def __init__(
        self,
        *,
        threshold: float = 0.95,
        mix: StrongViews | None = None,
        supervised_loss: PixelLoss = cross_entropy,
        unsupervised_loss: PixelLoss = cross_entropy,
        weighting: Weighting = ReliableShare(),
    ) -> None:
        super().__init__()
        self.reliability = ConfidenceThreshold(threshold)
        self.mix = StrongViews() if mix is None else mix
        self.label_loss, self.pseudo_label_loss, self.weighting = supervised_loss, unsupervised_loss, weighting

    def forward(self, student: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Returns ``supervised``, ``unsupervised`` and, with an auxiliary head, ``auxiliary``."""
        pseudo = self.make_pseudo_labels(self.weak_logits(student, batch), batch, progress)
        mixed = self.mix(batch, pseudo)
        output = student_pass(student, batch, mixed)
        losses = supervised_losses(output.labeled, batch.label, self.label_loss)
        losses["unsupervised"] = self.unsupervised_loss(output.mixed.logits, mixed.pseudo)
        return losses

    def weak_logits(self, student: nn.Module, batch: Batch) -> Tensor:
        """(B_u, C, H, W): the student's scores of the weak images, in evaluation mode and without gradient."""
        return teacher_pass(evaluated(student), batch).logits

    def make_pseudo_labels(self, logits: Tensor, batch: Batch, progress: float) -> PseudoLabel:
        """The student's own labels for the weak images, reliable where they reach the threshold."""
        return self.reliability.partition(PseudoLabel.from_logits(logits, batch.valid), progress)

    def unsupervised_loss(self, logits: Tensor, pseudo: PseudoLabel) -> Tensor:
        """Cross-entropy over reliable pixels, divided by the number of all valid ones: few pixels weigh little."""
        nothing = torch.full_like(pseudo.label, IGNORE_INDEX)
        return self.weighting(self.pseudo_label_loss, logits, pseudo, known=nothing, predicted=pseudo)

    @torch.no_grad()
    def diagnose(self, student: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Counts of the pseudo-labels. There is no teacher to compare the student with."""
        logits = self.weak_logits(student, batch)
        pseudo = self.make_pseudo_labels(logits, batch, progress)
        return pseudo_label_counts(pseudo, batch.truth, num_classes=logits.shape[1])


class UniMatch(FixMatch):
    """UniMatch (Yang et al. 2023, arXiv 2208.09910): two strong views, and one view with dropped features.

    L_u = (mean over the strong views + loss of the view with dropped features) / 2. The released code also halves the
    sum of L_s and L_u; here the learning rate can do that. It draws partners for CutMix from a second loader; here the
    partner of an image is the next one of its batch. Takes the arguments of :class:`FixMatch`.
    """

    strong_views = 2

    def forward(self, student: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Returns ``supervised``, ``unsupervised`` and, with an auxiliary head, ``auxiliary``."""
        weak, _ = batch.unlabeled_views()
        output = student(torch.cat((batch.image, weak)), dropped=len(weak))
        _, clean, perturbed = output.logits.split((len(batch.image), len(weak), len(weak)))
        pseudo = self.make_pseudo_labels(clean.detach(), batch, progress)
        mixed = self.mix(batch, pseudo)
        strong = student(mixed.image).logits

        losses = supervised_losses(output[: len(batch.image)], batch.label, self.label_loss)
        strong_loss = self.unsupervised_loss(strong, mixed.pseudo)
        perturbed_loss = self.unsupervised_loss(perturbed, pseudo)
        losses["unsupervised"] = (strong_loss + perturbed_loss) / 2
        return losses

    @torch.no_grad()
    def weak_logits(self, student: nn.Module, batch: Batch) -> Tensor:
        """(B_u, C, H, W): the student's scores of the weak images, in training mode beside the labeled images."""
        weak, _ = batch.unlabeled_views()
        logits = student(torch.cat((batch.image, weak)), dropped=len(weak)).logits
        return logits[len(batch.image) : -len(weak)]


def evaluated(student: nn.Module) -> Network:
    """The student as its own teacher: in evaluation mode, without gradient."""

    @torch.no_grad()
    def network(image: Tensor) -> SegmentationOutput:
        student.eval()
        output = student(image)
        student.train()
        return output

    return network
