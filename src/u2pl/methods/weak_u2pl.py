"""U2PL from image-level tags: without labeled pixels, tags rule out most classes of a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from u2pl.methods.base import Method
from u2pl.methods.parts import Refiner
from u2pl.methods.seeding import Seeding
from u2pl.methods.tags import LimitToTags, tags_of
from u2pl.methods.u2pl import U2PL
from u2pl.structures import IGNORE_INDEX, Batch


class WeakU2PL(Method):
    """The step of U2PL on images that only have tags, in three phases.

    1. Up to ``seeding.warmup`` the tags train a classification head on the encoder.
    2. Then the teacher starts. Its class activation maps become seeds (:class:`Seeding`), which train the segmentation
       like labels. The weak images with their seeds take the place of the labeled images in U2PL.
    3. After the warm-up of the schedule, the rest of U2PL begins. The teacher's predictions for a pixel are then
       limited to the tags of its image and become a part of the seeds. Every pixel is a negative of each class that is
       not in the tags. The tags move with the pixels when images are mixed.

    Labeled images, if there are any, come before the weak ones. An image without tags may show any class.

    Args:
        u2pl: the step, with :class:`~u2pl.methods.tags.LimitToTags` among its refiners and
            :class:`~u2pl.methods.tags.ClassificationLoss` among its further losses. Its network has a classification
            head. Its warm-up ends no earlier than the warm-up of the seeding. It pastes no label into other images.
        seeding: tags -> seeds.
        seed_refiners: refine the teacher's segmentation before it becomes a part of the seeds.

    Raises:
        ValueError: the warm-up ends before there are seeds.
    """

    semi_supervised = has_teacher = has_contrast = uses_tags = True
    strong_views = None

    def __init__(self, u2pl: U2PL, *, seeding: Seeding = Seeding(), seed_refiners: Sequence[Refiner] = ()) -> None:
        super().__init__()
        if u2pl.schedule.warmup < seeding.warmup:
            raise ValueError(
                f"the warm-up ends at {u2pl.schedule.warmup}, before that of the seeding, {seeding.warmup}"
            )
        self.u2pl, self.seeding = u2pl, seeding
        self.seed_refiners = nn.ModuleList(seed_refiners or [LimitToTags()])

    def forward(self, student: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Returns the losses of U2PL and ``classification``. ``supervised`` is the loss of the seeds."""
        if progress >= self.seeding.warmup:
            self.u2pl.teacher.start(student)
        return self.u2pl(student, self.seeded(batch, progress), progress)

    def seeded(self, batch: Batch, progress: float) -> Batch:
        """The batch with its weak images after the labeled ones. Once there is a teacher, seeds are their labels."""
        weak, _ = batch.unlabeled_views()
        label = torch.full_like(weak[:, 0], IGNORE_INDEX, dtype=torch.long)
        if self.u2pl.teacher.started:
            tags, tagged = tags_of(batch)
            seeds = self.seeding(
                self.u2pl.teacher.network, weak, tags[:, 1:], batch.valid, self.segmentation(batch, progress)
            )
            label = seeds.where(tagged.view(-1, 1, 1), label)  # without tags nothing is known to be background
        # Without labeled images the tensor stays the same object: its features are known if the encoder is frozen.
        image = torch.cat((batch.image, weak)) if len(batch.image) else weak
        label = torch.cat((batch.label, label))
        return replace(batch, image=image, label=label, seeded=True)

    def segmentation(self, batch: Batch, progress: float) -> Tensor | None:
        """(B_u, C, H, W): the teacher's segmentation for the seeds; None during the warm-up or if its share is 0."""
        if not self.seeding.share or self.u2pl.schedule.is_warmup(progress):
            return None
        weak, _ = batch.unlabeled_views()
        output = self.u2pl.teacher(weak)
        for refiner in self.seed_refiners:
            output = refiner(output, batch)
        return output.logits.softmax(dim=1)

    @torch.no_grad()
    def diagnose(self, student: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The counts of U2PL; empty until there is a teacher."""
        if not self.u2pl.teacher.started:
            return {}
        return self.u2pl.diagnose(student, self.seeded(batch, progress), progress)

    def after_step(self, student: nn.Module) -> None:
        """As in U2PL."""
        self.u2pl.after_step(student)

    def candidates(self, student: nn.Module) -> dict[str, nn.Module]:
        """As in U2PL."""
        return self.u2pl.candidates(student)
