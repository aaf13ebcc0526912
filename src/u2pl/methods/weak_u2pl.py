"""U2PL from image-level tags: no pixel is labeled by anyone, and yet some are sure not to be most classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from u2pl.methods.seeding import Seeding
from u2pl.methods.u2pl import U2PL
from u2pl.methods.views import Views, downsample, true_classes
from u2pl.pixels.adaptive_mixing import class_pixels
from u2pl.pixels.cam import multi_label_loss, tag_scores
from u2pl.pixels.mixing import Mix
from u2pl.structures import IGNORE_INDEX, Batch, SegmentationOutput

_NEVER = -1e4  # a logit whose probability is zero in every precision, and whose product with zero is zero


class WeakU2PL(U2PL):
    """The step of U2PL on images of which only the tags are known, in three phases.

    1. Up to ``cam_warmup`` the tags train a classification head on the encoder.
    2. From then on there is a teacher. Its class activation maps become seeds (:class:`Seeding`), which train the
       segmentation as labels do: the weak images with their seeds stand where labeled images stand in U2PL.
    3. After the warm-up of the ``schedule`` comes all the rest of U2PL. What the teacher thinks of a pixel is then
       limited to the tags of its image and has a share in the seeds; every pixel is a negative of each class that is
       absent from the tags, which travel with the pixels when images are mixed.

    Labeled images, if there are any, come before the weak ones. An image without tags may show any class.

    Args:
        network: as in U2PL, with a classification head.
        seeding: tags -> seeds.
        cam_warmup: share of training of phase 1; the warm-up of the schedule ends no earlier.
        tag_negatives: absent classes add to the negatives of the contrast.
        options: of :class:`U2PL`, but for what mixes labels into other images.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        seeding: Seeding | None = None,
        cam_warmup: float = 0.3,
        tag_negatives: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(network, **options)
        self.seeding = Seeding() if seeding is None else seeding
        self.cam_warmup = cam_warmup
        self.tag_negatives = tag_negatives
        self.schedule = replace(self.schedule, warmup=max(self.schedule.warmup, cam_warmup))

    def forward(self, student: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Returns the losses of U2PL, of which ``supervised`` is that of the seeds, and ``classification``."""
        if progress >= self.cam_warmup:
            self.teacher.start(student)
        return super().forward(student, self.seeded(batch, progress), progress)

    def seeded(self, batch: Batch, progress: float) -> Batch:
        """The batch with its weak images after the labeled ones, labeled by seeds once there is a teacher."""
        weak, _ = batch.unlabeled_views()
        label = torch.full_like(weak[:, 0], IGNORE_INDEX, dtype=torch.long)
        if self.teacher.started:
            tags, tagged = tags_of(batch)
            probability = None
            if self.seeding.share and not self.schedule.is_warmup(progress):
                probability = limited(self.ask(weak).logits, tags[:, :, None, None]).softmax(dim=1)
            found = self.seeding(self.teacher.network, weak, tags[:, 1:], batch.valid, probability)
            label = found.where(tagged.view(-1, 1, 1), label)  # without tags nothing is known to be background
        return replace(batch, image=torch.cat((batch.image, weak)), label=torch.cat((batch.label, label)))

    def labeled(self, output: SegmentationOutput, batch: Batch) -> dict[str, Tensor]:
        """What labels and seeds teach, and the ``classification`` of all unmixed images by their tags."""
        losses = super().labeled(output, batch)
        assert output.activation is not None
        tags, tagged = tags_of(batch)
        label = batch.label[: len(batch.label) - len(tags)]
        present = class_pixels(label, tags.shape[1]).flatten(2).any(dim=2)  # labels tell the tags of their crop
        valid = torch.ones_like(batch.label[-len(tags) :], dtype=torch.bool) if batch.valid is None else batch.valid
        scores = tag_scores(output.activation[: len(batch.image)], torch.cat((label != IGNORE_INDEX, valid)))
        tags, tagged = torch.cat((present, tags)), torch.cat((present.any(dim=1), tagged))
        losses["classification"] = multi_label_loss(scores, tags[:, 1:], tagged)
        return losses

    def teacher_view(self, batch: Batch) -> SegmentationOutput:
        """As of U2PL; the weak images, which are among the labeled ones, are seen once."""
        if not self.shares_view:
            return super().teacher_view(batch)
        view, weak = self.ask(batch.image), len(batch.unlabeled_views()[0])

        def again(tensor: Tensor) -> Tensor:
            return torch.cat((tensor, tensor[-weak:]))

        embedding = None if view.embedding is None else again(view.embedding)
        return SegmentationOutput(logits=again(view.logits), coarse=again(view.coarse), embedding=embedding)

    def opinion(self, view: SegmentationOutput, batch: Batch) -> Tensor:
        """As of U2PL, limited to the tags: probabilities of absent classes are zero, the others share their part."""
        tags, _ = tags_of(batch)
        return limited(super().opinion(view, batch), tags[:, :, None, None])

    def keys(self, batch: Batch, views: Views) -> SegmentationOutput:
        """As of U2PL, limited to the tags."""
        keys = super().keys(batch, views)
        tags, _ = tags_of(batch)
        allowed = tags[:, :, None, None].expand(-1, -1, *keys.coarse.shape[-2:])
        return replace(keys, coarse=limited(keys.coarse, mixed_as_images(allowed, views.mixes, batch, labeled=True)))

    def sets(self, batch: Batch, views: Views, size: torch.Size) -> dict[str, Tensor]:
        """As of U2PL, and ``absent``: the classes that a pixel is not, since its image is not tagged with them."""
        sets = super().sets(batch, views, size)
        if self.tag_negatives:
            tags, _ = tags_of(batch)
            valid = torch.ones_like(views.pseudo.valid) if batch.valid is None else batch.valid
            absent = ~tags[:, :, None, None] & downsample(valid, size).unsqueeze(1)
            sets["absent"] = mixed_as_images(absent, views.mixes, batch, labeled=False)
        return sets

    def truth(self, batch: Batch, views: Views, size: torch.Size) -> Tensor | None:
        """As of U2PL; seeds are no truth."""
        if batch.truth is None:
            return None
        labels = torch.cat((batch.label[: -len(batch.truth)], batch.truth))
        return true_classes(replace(batch, label=labels), views.mixes, size=size)

    @torch.no_grad()
    def diagnose(self, student: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
        """As of U2PL; nothing before there is a teacher."""
        return super().diagnose(student, self.seeded(batch, progress), progress) if self.teacher.started else {}


def tags_of(batch: Batch) -> tuple[Tensor, Tensor]:
    """Tags (B_u, C) bool of the weak images, and whether they are known (B_u,). Raises ValueError without tags."""
    if batch.tags is None or batch.tagged is None:
        raise ValueError("a weakly supervised step needs a batch with tags")
    return batch.tags, batch.tagged


def limited(logits: Tensor, allowed: Tensor) -> Tensor:
    """Logits (B, C, h, w) whose softmax is zero where ``allowed`` does not hold, and renormalised elsewhere."""
    return logits.float().masked_fill(~allowed, _NEVER)


def mixed_as_images(weak: Tensor, mixes: Sequence[Mix], batch: Batch, *, labeled: bool) -> Tensor:
    """(B, C, h, w) bool: what holds of weak images (B_u, C, h, w), for the unmixed and the mixed images of a step.

    ``labeled`` is what holds of labeled images. ``batch`` has its weak images after them.
    """
    shape = (len(batch.image) - len(weak), *weak.shape[1:])
    unmixed = torch.cat((torch.full(shape, labeled, dtype=torch.bool, device=weak.device), weak))
    return torch.cat((unmixed, *(mix.apply(weak, unmixed) for mix in mixes)))
