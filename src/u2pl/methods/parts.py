"""The two kinds of parts that a method takes from outside: refiners of the teacher's output, and further losses."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from u2pl.methods.keys import Keys
from u2pl.methods.passes import StudentOutput
from u2pl.methods.strong_views import MixedViews
from u2pl.pixels.negative_keys import NegativeKeys
from u2pl.structures import Batch, PseudoLabel, SegmentationOutput


class Refiner(nn.Module):
    """Changes the teacher's output before it becomes pseudo-labels and keys."""

    def observe(self, batch: Batch) -> None:
        """Told of every batch before its step, warm-up included."""

    def forward(self, output: SegmentationOutput, batch: Batch, mixed: MixedViews | None = None) -> SegmentationOutput:
        """Refine the teacher's output.

        Args:
            output: without ``mixed``, for the weak images, which come last, perhaps for the labeled images before them;
                with ``mixed``, for labeled and mixed images.
        """
        raise TypeError(f"{type(self).__name__} refines nothing")


@dataclass(frozen=True, slots=True)
class Step:
    """What a further loss may look at. In the warm-up there is no unlabeled image to look at."""

    batch: Batch
    output: StudentOutput
    pseudo: PseudoLabel | None = None  #: (B_u, H, W), of the weak images
    mixed: MixedViews | None = None
    keys: Keys | None = None  #: where a part of the method has a use for them


class FurtherLoss(nn.Module):
    """A loss that the papers named by a method do not have."""

    in_warmup = False  #: whether it also trains during the warm-up
    drops_features = False  #: whether the student also sees the weak images, plain and with dropped features
    negative_keys: NegativeKeys | None = None  #: which pixels it calls unreliable, if it asks for :class:`Keys`

    def forward(self, losses: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """The losses of the step by name, with this one added to them or folded into them."""
        raise TypeError(f"{type(self).__name__} has no loss")
