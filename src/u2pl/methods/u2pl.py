"""U2PL: every pixel trains the model, the unreliable ones as negative keys (arXiv 2203.03884, algorithm 1)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from u2pl.methods.base import Method, PixelLoss, supervised_losses
from u2pl.methods.diagnosis import agreement_counts, anchor_counts, pseudo_label_counts, queue_counts
from u2pl.methods.ema import EmaTeacher
from u2pl.methods.schedule import Schedule
from u2pl.methods.views import NegativesFrom, Views, embedding_of, mixed_view, pixel_sets, true_classes
from u2pl.pixels.adaptive_mixing import AdaptiveCopyPaste
from u2pl.pixels.contrast import UnreliableContrast, anchor_mask
from u2pl.pixels.losses import cross_entropy
from u2pl.pixels.mixing import CutMix, Mixing
from u2pl.pixels.reliability import Reliability
from u2pl.structures import Batch, PseudoLabel, SegmentationOutput


class U2PL(Method):
    """One iteration of U2PL. Without a ``contrast`` it is a mean teacher with strong views.

    Args:
        network: the student; the teacher starts as its copy. Needs an embedding when there is a contrast.
        contrast: the contrastive term with its memory bank.
        reliability: which pseudo-labels to believe.
        schedule: when unlabeled images begin to train, and how much they weigh.
        mixing: how strong views are mixed.
        copy_paste: AEL's adaptive copy-paste among labeled images (Hu et al. 2021, arXiv 2110.05474). Its running class
            confidence, which an adaptive ``mixing`` shares, follows the student's labeled pixels in every step.
        ema_decay: largest momentum of the teacher.
        negatives_from: unlabeled pixels that serve as negatives: "unreliable" as in the paper, "reliable" or "all".
        feature_dropout: a further view in L_u: the unmixed image, with half of its features dropped (UniMatch, Yang et
            al. 2023, arXiv 2208.09910).
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
        reliability: Reliability = Reliability(),
        schedule: Schedule = Schedule(),
        mixing: Mixing | None = None,
        copy_paste: AdaptiveCopyPaste | None = None,
        ema_decay: float = 0.99,
        negatives_from: NegativesFrom = "unreliable",
        feature_dropout: bool = False,
        teacher_passes: int = 2,
        supervised_loss: PixelLoss = cross_entropy,
    ) -> None:
        super().__init__()
        self.teacher = EmaTeacher(network, decay=ema_decay)
        self.contrast, self.reliability, self.schedule = contrast, reliability, schedule
        self.mixing: Mixing = CutMix() if mixing is None else mixing
        self.copy_paste = copy_paste
        self.class_confidence = None if copy_paste is None else copy_paste.confidence  # saved and moved with the method
        self.negatives_from: NegativesFrom = negatives_from
        self.feature_dropout = feature_dropout
        self.teacher_passes = teacher_passes
        self.supervised_loss = supervised_loss

    def forward(self, student: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Returns ``supervised``, ``unsupervised`` (lambda_u L_u), ``contrastive``; with such a head ``auxiliary``."""
        batch = self.paste(batch)
        if self.schedule.is_warmup(progress):
            return self.warmup_step(student, batch)
        self.teacher.start(student)
        views = self.look(batch, progress)
        output = self.see(student, views)
        self.observe(output, batch.label)
        losses = supervised_losses(output, batch.label, self.supervised_loss)
        losses["unsupervised"] = self.unsupervised(output.logits[len(batch.image) :], views, progress)
        if self.contrast is not None:
            losses["contrastive"] = self.contrastive(output, batch, views)
        return losses

    def look(self, batch: Batch, progress: float) -> Views:
        """The teacher labels the weak view; images and pseudo-labels are mixed alike."""
        weak, strong = batch.unlabeled_views()
        view = self.teacher(torch.cat((batch.image, weak)) if self.shares_view else weak)
        pseudo = PseudoLabel.from_logits(self.opinion(view, batch), batch.valid)
        pseudo = self.reliability.partition(pseudo, progress)
        mixes = [self.mixing.draw(pseudo) for _ in strong]
        mixed = [mix.apply(image) for mix, image in zip(mixes, strong, strict=True)]
        targets = PseudoLabel.cat([mix.pseudo_label(pseudo) for mix in mixes])
        return Views(torch.cat((batch.image, *mixed)), weak, view, pseudo, mixes, targets)

    def opinion(self, view: SegmentationOutput, batch: Batch) -> Tensor:
        """(B_u, C, H, W): the logits that pseudo-labels are made of, from the teacher's view (weak images last)."""
        return view.logits[-len(batch.unlabeled_views()[0]) :]

    def contrastive(self, output: SegmentationOutput, batch: Batch, views: Views) -> Tensor:
        """L_c over the pixels of labeled and mixed images, at the resolution of the embedding."""
        assert self.contrast is not None
        keys = self.keys(views)
        size = keys.coarse.shape[-2:]
        return self.contrast(
            embedding_of(output)[: len(views.images)],
            keys.embedding,
            keys.coarse.float().softmax(dim=1),
            **self.sets(batch, views, size),
            truth=true_classes(batch, views.mixes, size=size),
        )

    def sets(self, batch: Batch, views: Views, size: torch.Size) -> dict[str, Tensor]:
        """Which pixels the contrast draws anchors and negatives from."""
        return pixel_sets(batch.label, views.targets, size=size, negatives_from=self.negatives_from)

    def keys(self, views: Views) -> SegmentationOutput:
        """The teacher's view of labeled and mixed images, which the contrast takes its keys from."""
        if not self.shares_view:
            return self.teacher(views.images)
        return mixed_view(views.teacher, views.mixes, labeled=len(views.images) - len(views.targets.label))

    def see(self, student: nn.Module, views: Views) -> SegmentationOutput:
        """The student's view of the images; with feature dropout the weak ones follow, as they are and perturbed."""
        if not self.feature_dropout:
            return student(views.images)
        return student(torch.cat((views.images, views.weak)), dropped=len(views.weak))

    def unsupervised(self, logits: Tensor, views: Views, progress: float) -> Tensor:
        """lambda_u L_u over the mixed views and, halved with them, over the view with dropped features, the last."""
        mixed, plain = views.targets, views.pseudo
        loss = self.schedule.lambda_u(mixed, progress) * cross_entropy(logits[: len(mixed.label)], mixed.target())
        if not self.feature_dropout:
            return loss
        perturbed = cross_entropy(logits[-len(plain.label) :], plain.target())
        return (loss + self.schedule.lambda_u(plain, progress) * perturbed) / 2

    @property
    def shares_view(self) -> bool:
        """Whether the teacher's view of the unmixed images also serves the contrast."""
        return self.contrast is not None and self.teacher_passes == 1

    def warmup_step(self, student: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Labels alone; every output stays connected to the graph, as distributed training needs."""
        output = student(batch.image)
        self.observe(output, batch.label)
        losses = supervised_losses(output, batch.label, self.supervised_loss)
        if self.contrast is not None:
            losses["contrastive"] = 0.0 * output.embedding.sum()
        return losses

    def paste(self, batch: Batch) -> Batch:
        """The batch with classes pasted among its labeled images, if the method does so."""
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
        batch = self.paste(batch)
        views = self.look(batch, progress)
        teacher = views.teacher.logits[-len(views.weak) :]
        counts = pseudo_label_counts(views.pseudo, batch.truth, num_classes=teacher.shape[1])
        if self.contrast is not None:
            keys = self.keys(views)
            size = keys.coarse.shape[-2:]
            target = pixel_sets(batch.label, views.targets, size=size)["target"]
            probability = keys.coarse.float().softmax(dim=1)
            anchors = anchor_mask(target, probability, min_probability=self.contrast.min_probability)
            counts |= anchor_counts(anchors, true_classes(batch, views.mixes, size=size), labeled=len(batch.image))
            counts |= queue_counts(self.contrast.bank)
        student.eval()
        return counts | agreement_counts(student(views.weak).logits, teacher, views.pseudo.valid)

    def after_step(self, student: nn.Module) -> None:
        """Average the student into the teacher, once semi-supervised training has begun."""
        if self.teacher.started:
            self.teacher.update(student)

    def candidates(self, student: nn.Module) -> dict[str, nn.Module]:
        """The student, and the teacher once there is one."""
        return {"student": student} | ({"teacher": self.teacher.network} if self.teacher.started else {})
