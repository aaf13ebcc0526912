"""U2PL: every pixel trains the model, unreliable ones as negative keys (arXiv 2203.03884, algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from u2pl.methods.base import Method, PixelLoss, supervised_losses
from u2pl.methods.diagnosis import agreement_counts, contrast_counts, pseudo_label_counts, threshold_counts
from u2pl.methods.ema import EmaTeacher
from u2pl.methods.keys import Keys, make_keys, mixed_output
from u2pl.methods.parts import FurtherLoss, Refiner, Refiners, Step
from u2pl.methods.passes import StudentOutput, further_pass, student_pass, teacher_pass
from u2pl.methods.schedule import Schedule
from u2pl.methods.strong_views import MixedViews, StrongViews
from u2pl.methods.weighting import LambdaU, Weighting
from u2pl.pixels.contrast import UnreliableContrast
from u2pl.pixels.losses import cross_entropy
from u2pl.pixels.reliability import Partition, Reliability
from u2pl.structures import Batch, PseudoLabel, SegmentationOutput


class U2PL(Method):
    """The training step of U2PL. Without a ``contrast`` it is a mean teacher with strong views.

    Args:
        teacher: the moving average of the student. Its network needs an embedding if there is a contrast.
        contrast: L_c with its memory bank.
        reliability: decides which pseudo-labels are reliable.
        schedule: when unlabeled images begin to train.
        weighting: weight of pseudo-labels; default: lambda_u.
        mix: makes the strong views; default: CutMix.
        supervised_loss: L_s.
        unsupervised_loss: L_u, before its weight.
        refiners: change the teacher's output, in order, before it becomes pseudo-labels. Not in the paper.
        further_losses: losses in addition to the three of the paper. Not in the paper.
    """

    semi_supervised = has_teacher = has_contrast = True
    strong_views: int | None = None

    def __init__(
        self,
        teacher: EmaTeacher,
        *,
        contrast: UnreliableContrast | None,
        reliability: Partition = Reliability(),
        schedule: Schedule = Schedule(),
        weighting: Weighting = LambdaU(),
        mix: StrongViews | None = None,
        supervised_loss: PixelLoss = cross_entropy,
        unsupervised_loss: PixelLoss = cross_entropy,
        refiners: Sequence[Refiner] = (),
        further_losses: Sequence[FurtherLoss] = (),
    ) -> None:
        super().__init__()
        self.teacher, self.contrast = teacher, contrast
        self.reliability, self.schedule, self.weighting = reliability, schedule, weighting
        self.mix = StrongViews() if mix is None else mix
        self.label_loss, self.pseudo_label_loss = supervised_loss, unsupervised_loss
        self.refiners, self.further_losses = Refiners(refiners), nn.ModuleList(further_losses)
        rules = [part.negative_keys for part in (contrast, *further_losses) if part is not None]
        self.negative_keys = next((rule for rule in rules if rule is not None), None)

    def forward(self, student: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One iteration of Algorithm 1: L_s, weighted L_u and L_c by name, and further losses."""
        batch = self.prepare(batch)
        if self.schedule.is_warmup(progress):
            return self.warmup_step(student, batch)
        self.teacher.start(student)

        teacher = self.teacher_pass(batch)
        pseudo = self.make_pseudo_labels(teacher, batch)
        pseudo = self.reliability.partition(pseudo, progress)
        mixed = self.mix(batch, pseudo)
        output = self.student_pass(student, batch, mixed)
        keys = self.keys(teacher, batch, mixed)

        losses = self.supervised_loss(output.labeled, batch)
        losses["unsupervised"] = self.unsupervised_loss(output.mixed, mixed, pseudo)
        if keys is not None and self.contrast is not None:
            losses["contrastive"] = self.contrastive_loss(output.labeled_and_mixed, keys)
        predict = partial(further_pass, student, join=self.teacher.joined)
        for further_loss in self.further_losses:
            losses = further_loss(losses, Step(batch, output, pseudo, mixed, keys, predict))
        losses["unsupervised"] = self.schedule.ramped(progress) * losses["unsupervised"]
        return losses

    def teacher_pass(self, batch: Batch) -> SegmentationOutput:
        """The teacher's refined output for the weak images. If keys need it, the labeled images come before them."""
        both = self.negative_keys is not None and self.teacher.passes == 1
        return self.refiners(teacher_pass(self.teacher, batch, labeled=both), batch)

    def make_pseudo_labels(self, teacher: SegmentationOutput, batch: Batch) -> PseudoLabel:
        """The most likely class of each weak pixel, and the entropy of its prediction."""
        weak, _ = batch.unlabeled_views()
        return PseudoLabel.from_logits(teacher.logits[-len(weak) :], batch.valid)

    def student_pass(self, student: nn.Module, batch: Batch, mixed: MixedViews) -> StudentOutput:
        """The student's output for labeled and mixed images, in one pass."""
        dropped = any(loss.drops_features for loss in self.further_losses)
        return student_pass(student, batch, mixed, dropped=dropped, join=self.teacher.joined)

    def keys(self, teacher: SegmentationOutput, batch: Batch, mixed: MixedViews) -> Keys | None:
        """The teacher's keys for each pixel that the student gets; None if no loss uses them."""
        if self.negative_keys is None:
            return None
        if self.teacher.passes == 1:
            output = mixed_output(teacher, batch, mixed)
        else:
            output = self.refiners(self.teacher(batch.image, mixed.image), batch, mixed)
        return make_keys(output, batch, mixed, self.negative_keys)

    def supervised_loss(self, output: SegmentationOutput, batch: Batch) -> dict[str, Tensor]:
        """L_s, and its auxiliary loss if the network has an auxiliary head."""
        self.mix.observe(output, batch.label)
        return supervised_losses(output, batch.label, self.label_loss)

    def unsupervised_loss(self, output: SegmentationOutput, mixed: MixedViews, pseudo: PseudoLabel) -> Tensor:
        """L_u, weighted, over the reliable pixels of the mixed images."""
        return self.weighting(
            self.pseudo_label_loss, output.logits, mixed.pseudo, known=mixed.true_label(), predicted=pseudo
        )

    def contrastive_loss(self, output: SegmentationOutput, keys: Keys) -> Tensor:
        """L_c: anchors of the student against class centres and unreliable negatives of the teacher."""
        assert self.contrast is not None
        assert output.embedding is not None
        assert keys.embedding is not None
        return self.contrast(
            output.embedding,
            keys.embedding,
            keys.probability,
            target=keys.target,
            label=keys.label,
            unreliable=keys.unreliable,
            rank=keys.rank,
            absent=keys.absent,
            truth=keys.truth,
        )

    def warmup_step(self, student: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Losses on labels only. Every output stays connected to the graph, as distributed training needs."""
        output = student(batch.image)
        losses = self.supervised_loss(output, batch)
        if self.contrast is not None:
            losses["contrastive"] = 0.0 * output.embedding.sum()
        for further_loss in self.further_losses:
            if further_loss.in_warmup:
                losses = further_loss(losses, Step(batch, StudentOutput(output, len(batch.image), 0)))
        return losses

    def prepare(self, batch: Batch) -> Batch:
        """Pass the batch to the refiners, and let AEL paste rare classes between its labeled images."""
        self.refiners.observe(batch)
        return self.mix.paste_labeled(batch)

    @torch.no_grad()
    def diagnose(self, student: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Counts of pseudo-labels, student-teacher agreement, anchors and queues; empty until there is a teacher."""
        if not self.teacher.started:
            return {}
        batch = self.prepare(batch)
        teacher = self.teacher_pass(batch)
        pseudo = self.reliability.partition(self.make_pseudo_labels(teacher, batch), progress)
        counts = pseudo_label_counts(pseudo, batch.truth, num_classes=teacher.logits.shape[1])
        counts |= threshold_counts(pseudo, self.reliability, progress)
        keys = self.keys(teacher, batch, self.mix(batch, pseudo))
        if self.contrast is not None and keys is not None:
            counts |= contrast_counts(self.contrast, keys, labeled=len(batch.image))
        weak, _ = batch.unlabeled_views()
        own, averaged = student.eval()(weak).logits, self.teacher(weak).logits
        return counts | agreement_counts(own, averaged, pseudo.valid)

    def after_step(self, student: nn.Module) -> None:
        """Update the teacher, once semi-supervised training has begun."""
        if self.teacher.started:
            self.teacher.update(student)

    def candidates(self, student: nn.Module) -> dict[str, nn.Module]:
        """The student, and the teacher once there is one."""
        return {"student": student} | ({"teacher": self.teacher.network} if self.teacher.started else {})
