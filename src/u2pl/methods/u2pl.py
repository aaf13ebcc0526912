"""U2PL: every pixel trains the model, the unreliable ones as negative keys (arXiv 2203.03884, algorithm 1)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from u2pl.methods.base import Method, PixelLoss, supervised_losses
from u2pl.methods.diagnosis import agreement_counts, contrast_counts, pseudo_label_counts
from u2pl.methods.ema import EmaTeacher
from u2pl.methods.schedule import Schedule
from u2pl.methods.views import (
    Jitter,
    NegativesFrom,
    Views,
    embedding_of,
    informed,
    jittered,
    mixed_view,
    pixel_sets,
    shifted,
    true_classes,
)
from u2pl.methods.weighting import LambdaU, Weighting
from u2pl.pixels.adaptive_mixing import AdaptiveCopyPaste
from u2pl.pixels.alignment import DistributionAlignment
from u2pl.pixels.contrast import UnreliableContrast, class_rank
from u2pl.pixels.losses import cross_entropy
from u2pl.pixels.mixing import CutMix, Mixing
from u2pl.pixels.negative_learning import NegativeLearning
from u2pl.pixels.prototypes import PrototypicalDenoising
from u2pl.pixels.reliability import Reliability
from u2pl.structures import IGNORE_INDEX, Batch, PseudoLabel, SegmentationOutput


class U2PL(Method):
    """One iteration of U2PL. Without a ``contrast`` it is a mean teacher with strong views.

    Args:
        network: the student; the teacher starts as its copy. Needs an embedding when there is a contrast.
        contrast: the contrastive term with its memory bank.
        negative_learning: what unreliable pixels teach without a bank, beside the contrast or in its place.
        alignment: pseudo-labels become as frequent as labels.
        denoising: pseudo-labels by prototypes, which the ``contrast`` has to keep.
        reliability: which pseudo-labels to believe.
        schedule: when unlabeled images begin to train.
        weighting: how much pseudo-labels weigh; lambda_u unless given.
        mixing: how strong views are mixed.
        jitter: photometric jitter of the mixed images, where strong views come without.
        copy_paste: AEL's adaptive copy-paste among labeled images (Hu et al. 2021, arXiv 2110.05474). Its running class
            confidence, which an adaptive ``mixing`` shares, follows the student's labeled pixels in every step.
        ema_decay: largest momentum of the teacher.
        negatives_from: unlabeled pixels that serve as negatives: "unreliable" as in the paper, "reliable" or "all".
        feature_dropout: a further view in L_u: the unmixed image, with half of its features dropped (UniMatch, Yang et
            al. 2023, arXiv 2208.09910).
        teacher_passes: 2: the teacher sees the mixed images to embed them, as in the released code; 1: its view of the
            weak images is mixed instead, which saves a pass.
        supervised_loss: L_s.
        unsupervised_loss: L_u, before its weight.
        class_weight: (C,) how much both losses weigh a class. The teacher takes it to be so much more likely, and its
            probabilities are divided by that: pseudo-labels of rare classes, weighed again, would spread.
    """

    semi_supervised = True
    class_shift: Tensor | None  #: (1, C) float32, of the teacher's logits

    def __init__(
        self,
        network: nn.Module,
        *,
        contrast: UnreliableContrast | None,
        negative_learning: NegativeLearning | None = None,
        alignment: DistributionAlignment | None = None,
        denoising: PrototypicalDenoising | None = None,
        reliability: Reliability = Reliability(),
        schedule: Schedule = Schedule(),
        weighting: Weighting = LambdaU(),
        mixing: Mixing | None = None,
        jitter: Jitter | None = None,
        copy_paste: AdaptiveCopyPaste | None = None,
        ema_decay: float = 0.99,
        negatives_from: NegativesFrom = "unreliable",
        feature_dropout: bool = False,
        teacher_passes: int = 2,
        supervised_loss: PixelLoss = cross_entropy,
        unsupervised_loss: PixelLoss = cross_entropy,
        class_weight: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.teacher = EmaTeacher(network, decay=ema_decay)
        self.contrast, self.negative_learning = contrast, negative_learning
        self.alignment, self.denoising = alignment, denoising
        self.reliability, self.schedule, self.weighting = reliability, schedule, weighting
        self.mixing: Mixing = CutMix() if mixing is None else mixing
        self.jitter, self.copy_paste = jitter, copy_paste
        self.class_confidence = None if copy_paste is None else copy_paste.confidence  # saved and moved with the method
        self.negatives_from: NegativesFrom = negatives_from
        self.feature_dropout = feature_dropout
        self.teacher_passes = teacher_passes
        self.supervised_loss, self.unsupervised_loss = supervised_loss, unsupervised_loss
        shift = None if class_weight is None else -class_weight.float().log().unsqueeze(0)
        self.register_buffer("class_shift", shift, persistent=False)

    def forward(self, student: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Returns ``supervised``, ``unsupervised`` (L_u, weighted), ``contrastive``, and what further parts add."""
        batch = self.prepare(batch)
        if self.schedule.is_warmup(progress):
            return self.warmup_step(student, batch)
        self.teacher.start(student)
        views = self.look(batch, progress)
        output = self.see(student, views)
        losses = self.labeled(output, batch)
        losses["unsupervised"] = self.unsupervised(output.logits[len(batch.image) :], views, progress)
        return losses | self.unlikely(output, batch, views)

    def look(self, batch: Batch, progress: float) -> Views:
        """The teacher labels the weak view; images and pseudo-labels are mixed alike."""
        weak, strong = batch.unlabeled_views()
        view = self.teacher_view(batch)
        pseudo = PseudoLabel.from_logits(self.opinion(view, batch), batch.valid)
        pseudo = self.reliability.partition(pseudo, progress)
        mixes = [self.mixing.draw(pseudo, batch.label) for _ in strong]
        mixed = [mix.apply(image, batch.image) for mix, image in zip(mixes, strong, strict=True)]
        images = torch.cat((batch.image, *(jittered(image, self.jitter) for image in mixed)))
        targets = PseudoLabel.cat([mix.pseudo_label(pseudo) for mix in mixes])
        return Views(images, weak, view, pseudo, mixes, targets)

    def teacher_view(self, batch: Batch) -> SegmentationOutput:
        """What the teacher sees of the weak images, by their prior; labeled ones come first, if there is a contrast."""
        weak, _ = batch.unlabeled_views()
        return informed(self.ask(torch.cat((batch.image, weak)) if self.shares_view else weak), batch.prior)

    def ask(self, images: Tensor) -> SegmentationOutput:
        """What the teacher says of images (B, 3, H, W)."""
        return self.corrected(self.teacher(images))

    def corrected(self, view: SegmentationOutput) -> SegmentationOutput:
        """The view of a network that was taught to find rare classes, by how likely they are."""
        return view if self.class_shift is None else shifted(view, self.class_shift)

    def labeled(self, output: SegmentationOutput, batch: Batch) -> dict[str, Tensor]:
        """What labels teach; their images come first in the student's output."""
        self.observe(output, batch.label)
        return supervised_losses(output, batch.label, self.supervised_loss)

    def opinion(self, view: SegmentationOutput, batch: Batch) -> Tensor:
        """(B_u, C, H, W): the logits that pseudo-labels are made of, from the teacher's view (weak images last)."""
        unlabeled = len(batch.unlabeled_views()[0])
        logits = view.logits[-unlabeled:]
        if self.alignment is not None:
            logits = self.alignment(logits, batch.valid)
        if self.denoising is not None:
            logits = self.denoising(logits, embedding_of(view)[-unlabeled:])
        return logits

    def unlikely(self, output: SegmentationOutput, batch: Batch, views: Views) -> dict[str, Tensor]:
        """What pixels teach by the classes they are not, at coarse resolution: ``contrastive`` (L_c), ``negative``."""
        if not self.needs_keys:
            return {}
        keys, size, images = self.keys(batch, views), output.coarse.shape[-2:], len(views.images)
        probability = keys.coarse.float().softmax(dim=1)
        rank, sets = class_rank(probability), self.sets(batch, views, size)
        losses = {}
        if self.contrast is not None:
            truth = self.truth(batch, views, size)
            embedding = embedding_of(output)[:images]
            losses["contrastive"] = self.contrast(
                embedding, keys.embedding, probability, **sets, rank=rank, truth=truth
            )
        if self.negative_learning is not None:
            losses["negative"] = self.negative_learning(output.coarse[:images], rank, sets["unreliable"])
        return losses

    def sets(self, batch: Batch, views: Views, size: torch.Size) -> dict[str, Tensor]:
        """Which pixels the contrast draws anchors and negatives from, by the names of its arguments."""
        return pixel_sets(
            batch.label, views.targets, known=views.known(), size=size, negatives_from=self.negatives_from
        )

    def truth(self, batch: Batch, views: Views, size: torch.Size) -> Tensor | None:
        """True classes of labeled and mixed images, for a diagnosis."""
        return true_classes(batch, views.mixes, size=size)

    def keys(self, batch: Batch, views: Views) -> SegmentationOutput:
        """The teacher's view of labeled and mixed images, by which their pixels are ranked and embedded."""
        if not self.shares_view:
            return self.ask(views.images)
        return mixed_view(views.teacher, views.mixes, labeled=len(views.images) - len(views.targets.label))

    def see(self, student: nn.Module, views: Views) -> SegmentationOutput:
        """The student's view of the images; with feature dropout the weak ones follow, as they are and perturbed."""
        if not self.feature_dropout:
            return student(views.images)
        return student(torch.cat((views.images, views.weak)), dropped=len(views.weak))

    def unsupervised(self, logits: Tensor, views: Views, progress: float) -> Tensor:
        """L_u, weighted: over the mixed views and, halved with them, over the view with dropped features, the last."""
        mixed, plain = views.targets, views.pseudo
        weighted = partial(self.weighting, self.unsupervised_loss, predicted=plain)
        loss = weighted(logits[: len(mixed.label)], mixed, known=views.known())
        if self.feature_dropout:
            nothing = torch.full_like(plain.label, IGNORE_INDEX)
            loss = (loss + weighted(logits[-len(plain.label) :], plain, known=nothing)) / 2
        return self.schedule.ramped(progress) * loss

    @property
    def needs_keys(self) -> bool:
        """Whether a loss asks what the teacher thinks of each pixel that the student sees."""
        return self.contrast is not None or self.negative_learning is not None

    @property
    def shares_view(self) -> bool:
        """Whether the teacher's view of the unmixed images, mixed, is that of the mixed ones."""
        return self.needs_keys and self.teacher_passes == 1

    def warmup_step(self, student: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Labels alone; every output stays connected to the graph, as distributed training needs."""
        output = student(batch.image)
        losses = self.labeled(output, batch)
        if self.contrast is not None:
            losses["contrastive"] = 0.0 * output.embedding.sum()
        return losses

    def prepare(self, batch: Batch) -> Batch:
        """Account for the labels; the batch with classes pasted among its labeled images, if the method does so."""
        if self.alignment is not None:
            self.alignment.observe(batch.label)
        if self.copy_paste is None:
            return batch
        image, label = self.copy_paste.apply(batch.image, batch.label)
        return replace(batch, image=image, label=label)

    def observe(self, output: SegmentationOutput, label: Tensor) -> None:
        """Let the running class confidence follow the labeled images, which come first in the output."""
        if self.class_confidence is not None:
            self.class_confidence.update(output.logits[: len(label)].detach(), label)

    @torch.no_grad()
    def diagnose(self, student: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Pseudo-labels, agreement of student and teacher, anchors and queues; nothing before there is a teacher."""
        if not self.teacher.started:
            return {}
        batch = self.prepare(batch)
        views = self.look(batch, progress)
        teacher = views.teacher.logits[-len(views.weak) :]
        counts = pseudo_label_counts(views.pseudo, batch.truth, num_classes=teacher.shape[1])
        if self.contrast is not None:
            coarse = self.keys(batch, views).coarse
            sets = self.sets(batch, views, coarse.shape[-2:])
            truth = self.truth(batch, views, coarse.shape[-2:])
            counts |= contrast_counts(self.contrast, coarse, sets, truth, labeled=len(batch.image))
        student.eval()
        return counts | agreement_counts(self.corrected(student(views.weak)).logits, teacher, views.pseudo.valid)

    def after_step(self, student: nn.Module) -> None:
        """Average the student into the teacher, once semi-supervised training has begun."""
        if self.teacher.started:
            self.teacher.update(student)

    def candidates(self, student: nn.Module) -> dict[str, nn.Module]:
        """The student, and the teacher once there is one."""
        return {"student": student} | ({"teacher": self.teacher.network} if self.teacher.started else {})
