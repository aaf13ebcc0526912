"""What a trained network makes of an image, for a ranking, in the pass that segments it."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from operator import itemgetter
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from u2pl.engine.inference import SMALL, Inference, Segment
from u2pl.engine.memory import whole_pixels
from u2pl.labelling.ranking import class_entropy_histogram, entropy_edges
from u2pl.networks.freezing import FreezableNetwork
from u2pl.predictor import Predictor
from u2pl.structures import IGNORE_INDEX, PseudoLabel, SegmentationOutput

Item = TypeVar("Item")
Result = TypeVar("Result")


class Look(NamedTuple):
    """What a ranking needs to know of an image. It has no tensor of the image's size."""

    histogram: Tensor  #: (C, bins) float32, see :func:`u2pl.labelling.ranking.class_entropy_histogram`
    entropy: float  #: mean over the pixels, nats
    embedding: Tensor  #: (K,) float32, mean of the encoder's last features


class Draft(NamedTuple):
    """A mask to correct by hand."""

    mask: Tensor  #: (H, W) uint8, class index, or 255 where the network is unsure
    image: Tensor  #: (3, H, W) uint8


class DescribedSegment:
    """A :data:`~u2pl.engine.inference.Segment` that also describes the images: from the features of the same passes.

    Args:
        inference: a network -> class scores.
        network: its encoder's features are described.
    """

    def __init__(self, inference: Inference, network: nn.Module) -> None:
        if not isinstance(network, FreezableNetwork):
            raise TypeError(f"{type(network).__name__} has no encoder, whose features describe an image")
        self.network = _Described(network)
        self.segment = inference(self.network)

    def __call__(self, image: Tensor) -> Tensor:
        self.network.rows.clear()
        return self.segment(image)

    def embedding(self, images: int) -> Tensor:
        """(images, K) float32 of the last call: the mean over all windows, sizes and mirror images."""
        rows = torch.cat(self.network.rows)
        return rows.view(-1, images, rows.shape[1]).mean(dim=0)


class _Described(nn.Module):
    """A network that keeps the mean features of each image that it gets."""

    def __init__(self, network: FreezableNetwork) -> None:
        super().__init__()
        self.network = network
        self.rows: list[Tensor] = []

    def forward(self, image: Tensor) -> SegmentationOutput:
        encoded = self.network.encode(image)
        self.rows.append(self.network.last_features(encoded).float().mean(dim=(2, 3)))
        return self.network(encoded)


class LookingPredictor(Predictor):
    """A predictor that also says what a ranking needs to know of an image."""

    @property
    def edges(self) -> Tensor:
        """Where the bins of entropies border on each other; see :func:`u2pl.labelling.ranking.entropy_edges`."""
        return entropy_edges(len(self.classes))

    def looks_of(
        self,
        items: Iterable[Item],
        image: Callable[[Item], Tensor],
        *,
        during: Callable[[Item], AbstractContextManager[object]] = lambda item: nullcontext(),
    ) -> Generator[tuple[Item, Look], None, None]:
        """Items with an ``image``, each with its :class:`Look`, in their order.

        An image that is too large for the memory is looked at in a smaller size.

        Args:
            during: a context for the work on an item, to explain its errors.
        """
        edges = self.edges.to(self.device)

        def look(segment: Segment, images: Sequence[Tensor]) -> list[Look]:
            assert isinstance(segment, DescribedSegment)
            pseudo = PseudoLabel.from_logits(self._scores(segment, images))
            histogram = class_entropy_histogram(pseudo.label, pseudo.entropy, len(self.classes), edges)
            found = (histogram, pseudo.entropy.mean(dim=(1, 2)), segment.embedding(len(images)))
            rows = [tensor.cpu() for tensor in found]
            return [Look(*each) for each in zip(rows[0], rows[1].tolist(), rows[2], strict=True)]

        def described(network: nn.Module) -> Segment:
            return DescribedSegment(self.inference, network)

        return self._fitted(look, items, image, during, described)

    def drafts_of(
        self,
        items: Iterable[Item],
        image: Callable[[Item], Tensor],
        *,
        gamma: float,
        during: Callable[[Item], AbstractContextManager[object]] = lambda item: nullcontext(),
    ) -> Generator[tuple[Item, Draft], None, None]:
        """Items with an ``image``, each with its :class:`Draft`, in their order.

        Args:
            gamma: pixels of at least this entropy (nats) are 255.
            during: a context for the work on an item, to explain its errors.
        """

        def draft(segment: Segment, images: Sequence[Tensor]) -> list[Tensor]:
            return [*draft_mask(PseudoLabel.from_logits(self._scores(segment, images)), gamma).cpu()]

        with closing(self._fitted(draft, items, image, during, self.inference)) as drafts:
            for item, mask in drafts:
                whole = image(item)
                size = whole.shape[-2:]
                fits = mask.shape == size
                yield item, Draft(mask if fits else F.interpolate(mask[None, None], size=size)[0, 0], whole)

    def _fitted(
        self,
        work: Callable[[Segment, Sequence[Tensor]], Sequence[Result]],
        items: Iterable[Item],
        image: Callable[[Item], Tensor],
        during: Callable[[Item], AbstractContextManager[object]],
        inference: Inference,
    ) -> Generator[tuple[Item, Result], None, None]:
        """Items, each with what ``work`` makes of its image, in a size that fits the memory."""

        def fitting() -> Iterator[tuple[Item, Tensor]]:
            for item in items:
                yield item, self._shrunk_to_fit(image(item))

        done = self._each(work, fitting(), itemgetter(1), during=lambda fit: during(fit[0]), inference=inference)
        with closing(done):
            for (item, _), result in done:
                yield item, result

    def _shrunk_to_fit(self, image: Tensor) -> Tensor:
        """(3, H, W) uint8, smaller if the memory does not hold the class scores of the image."""
        if self._fits(image):
            return image
        most = max(SMALL, whole_pixels(self.network, self.device))
        factor = math.sqrt(most / (image.shape[-2] * image.shape[-1]))
        size = [max(1, math.floor(side * factor)) for side in image.shape[-2:]]
        return F.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]


def draft_mask(pseudo: PseudoLabel, gamma: float) -> Tensor:
    """(B, H, W) uint8: the most likely class, or IGNORE_INDEX where the entropy is at least ``gamma``."""
    return pseudo.label.masked_fill(pseudo.entropy >= gamma, IGNORE_INDEX).to(torch.uint8)
