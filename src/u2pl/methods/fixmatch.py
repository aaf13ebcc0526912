"""FixMatch and UniMatch: consistency of weak and strong views by a fixed confidence threshold, without a teacher."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from u2pl.methods.base import Method, PixelLoss, supervised_losses
from u2pl.methods.diagnosis import pseudo_label_counts
from u2pl.methods.parts import Refiner, Refiners
from u2pl.methods.passes import Network, student_pass, teacher_pass, without_dropout
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
        refiners: change the student's output, in order, before it becomes pseudo-labels. Not in the paper.
    """

    semi_supervised = has_threshold = True

    def __init__(
        self,
        *,
        threshold: float = 0.95,
        mix: StrongViews | None = None,
        supervised_loss: PixelLoss = cross_entropy,
        unsupervised_loss: PixelLoss = cross_entropy,
        weighting: Weighting = ReliableShare(),
        refiners: Sequence[Refiner] = (),
    ) -> None:
        super().__init__()
        self.reliability = ConfidenceThreshold(threshold)
        self.mix = StrongViews() if mix is None else mix
        self.label_loss, self.pseudo_label_loss, self.weighting = supervised_loss, unsupervised_loss, weighting
        self.refiners = Refiners(refiners)

    def forward(self, student: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Returns ``supervised``, ``unsupervised`` and, with an auxiliary head, ``auxiliary``."""
        self.refiners.observe(batch)
        pseudo = self.make_pseudo_labels(self.weak_output(student, batch), batch, progress)
        mixed = self.mix(batch, pseudo)
        output = student_pass(student, batch, mixed)
        losses = supervised_losses(output.labeled, batch.label, self.label_loss)
        losses["unsupervised"] = self.unsupervised_loss(output.mixed.logits, mixed.pseudo)
        return losses

    def weak_output(self, student: nn.Module, batch: Batch) -> SegmentationOutput:
        """The student's output for the weak images, in evaluation mode and without gradient."""
        return teacher_pass(evaluated(student), batch)

    def make_pseudo_labels(self, output: SegmentationOutput, batch: Batch, progress: float) -> PseudoLabel:
        """The student's own labels for the weak images, refined, and reliable where they reach the threshold."""
        logits = self.refiners(output, batch).logits
        return self.reliability.partition(PseudoLabel.from_logits(logits, batch.valid), progress)

    def unsupervised_loss(self, logits: Tensor, pseudo: PseudoLabel) -> Tensor:
        """Cross-entropy over reliable pixels, divided by the number of all valid ones: few pixels weigh little."""
        nothing = torch.full_like(pseudo.label, IGNORE_INDEX)
        return self.weighting(self.pseudo_label_loss, logits, pseudo, known=nothing, predicted=pseudo)

    @torch.no_grad()
    def diagnose(self, student: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Counts of the pseudo-labels. There is no teacher to compare the student with."""
        output = self.weak_output(student, batch)
        pseudo = self.make_pseudo_labels(output, batch, progress)
        return pseudo_label_counts(pseudo, batch.truth, num_classes=output.logits.shape[1])


class UniMatch(FixMatch):
    """UniMatch (Yang et al. 2023, arXiv 2208.09910): two strong views, and one view with dropped features.

    L_u = (mean over the strong views + loss of the view with dropped features) / 2. The weak images pass beside the
    labeled ones, in training mode but for the network's own dropout, which would blur their labels. The released code
    also halves the sum of L_s and L_u; here the learning rate can do that. It draws partners for CutMix from a second
    loader; here the partner of an image is the next one of its batch. Takes the arguments of :class:`FixMatch`.
    """

    strong_views = 2

    def forward(self, student: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Returns ``supervised``, ``unsupervised`` and, with an auxiliary head, ``auxiliary``."""
        self.refiners.observe(batch)
        labeled, clean, perturbed = self.weak_pass(student, batch)
        pseudo = self.make_pseudo_labels(clean.detach(), batch, progress)
        mixed = self.mix(batch, pseudo)
        strong = student(mixed.image).logits

        losses = supervised_losses(labeled, batch.label, self.label_loss)
        strong_loss = self.unsupervised_loss(strong, mixed.pseudo)
        perturbed_loss = self.unsupervised_loss(perturbed.logits, pseudo)
        losses["unsupervised"] = (strong_loss + perturbed_loss) / 2
        return losses

    def weak_pass(
        self, student: nn.Module, batch: Batch
    ) -> tuple[SegmentationOutput, SegmentationOutput, SegmentationOutput]:
        """The output for labeled images, for weak images, and for these with dropped features, in one pass."""
        weak, _ = batch.unlabeled_views()
        with without_dropout(student):
            output = student(torch.cat((batch.image, weak)), dropped=len(weak))
        first, last = len(batch.image), len(batch.image) + len(weak)
        return output[:first], output[first:last], output[last:]

    @torch.no_grad()
    def weak_output(self, student: nn.Module, batch: Batch) -> SegmentationOutput:
        """The student's output for the weak images beside the labeled images, without gradient."""
        return self.weak_pass(student, batch)[1]


def evaluated(student: nn.Module) -> Network:
    """The student as its own teacher: in evaluation mode, without gradient."""

    @torch.no_grad()
    def network(image: Tensor) -> SegmentationOutput:
        student.eval()
        output = student(image)
        student.train()
        return output

    return network
