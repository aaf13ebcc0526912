"""Predict masks of images with a trained network. :mod:`u2pl.build.loadable` loads it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from u2pl.build.loadable import Loadable
from u2pl.build.trained import read_trained
from u2pl.data.classes import Palette
from u2pl.data.image_files import ImageReader
from u2pl.data.readers.pascal_voc import voc_palette
from u2pl.engine.evaluate import labels, labels_and_confidence, sure_labels
from u2pl.engine.inference import SMALL, Inference, MultiScale, Segment, Softmax, Whole, inference
from u2pl.engine.machine import best_precision
from u2pl.engine.many_images import in_order, segment_many
from u2pl.engine.memory import whole_pixels
from u2pl.engine.strips import labels_by_strips
from u2pl.errors import InputError
from u2pl.networks.image_classifier import ImageClassifier
from u2pl.networks.image_encoder import SIDE

Item = TypeVar("Item")
Result = TypeVar("Result")
#: Of the network's layers; auto: bf16 if the processor multiplies it natively, else fp32.
PRECISIONS = ("fp32", "bf16", "auto")


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image, at the image's own size."""

    mask: Tensor  #: (H, W) uint8, class index
    probability: Tensor  #: (C, H, W) float32
    entropy: Tensor  #: (H, W) float32, nats


class Predictor(Loadable):
    """Segments images with a trained network.

    Args:
        network: trained, returns a :class:`~u2pl.structures.SegmentationOutput`.
        classes: names of the classes.
        palette: RGB per class; empty: the colours of PASCAL VOC.
        lookup: raw value of a mask -> class, for masks in the format of the training data.
        scale: images are resized by this factor before they enter the network, as in training.
        inference: how the network processes the resized image; see :func:`u2pl.engine.inference.inference`.
        evaluation: the options of that function, for images that are too large to be processed at once.
        image_prior: the classifier of the image prior, to build another inference with.
        reader: how image files become RGB, as in training.
        precision: one of ``PRECISIONS``. bf16 is faster, and changes the class of a few pixels in a hundred.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        classes: tuple[str, ...],
        palette: Palette = (),
        scale: float = 1.0,
        lookup: tuple[int, ...] | None = None,
        inference: Inference = Whole,
        image_prior: ImageClassifier | None = None,
        reader: ImageReader = ImageReader(),
        evaluation: Mapping[str, Any] | None = None,
        precision: str = "fp32",
    ) -> None:
        if precision not in PRECISIONS:
            raise InputError(f"--precision {precision}: should be {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}")
        self.network = network.eval()
        self.classes = classes
        self.palette = palette or voc_palette(len(classes))
        self.scale = scale
        self.lookup = lookup
        self.inference = inference
        self.image_prior = image_prior
        self.reader = reader
        self.evaluation = {"window": 769, "overlap": 0.33, **(evaluation or {})}
        self.precision = best_precision(on_cpu=self.device.type == "cpu") if precision == "auto" else precision

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Prediction:
        """Segment one (3, H, W) uint8 RGB image."""
        scores = self._scores(self.inference(self.network), [image])
        log_probability = scores[0].log_softmax(dim=0)
        probability = log_probability.exp()
        return Prediction(
            mask=labels(scores)[0].to(torch.uint8).cpu(),
            probability=probability.cpu(),
            entropy=-(probability * log_probability).sum(dim=0).cpu(),
        )

    @torch.no_grad()
    def mask(
        self,
        image: Tensor,
        *,
        min_confidence: float = 0.0,
        confidence: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """(H, W) uint8, the class of each pixel of one (3, H, W) uint8 RGB image, of any size.

        An image that is too large for the memory is processed through windows, a few rows at a time.

        Args:
            min_confidence: pixels whose most likely class has a lower probability are 255.
            confidence: return (2, H, W) uint8: the classes, and the probability of the most likely one, in 255ths.
            progress: called with (windows done, windows in total), for such an image.
        """
        if self._fits(image):
            scores = self._scores(self.inference(self.network), [image])
            return _read(scores, min_confidence, confidence)[0].cpu()
        options = {key: value for key, value in self.evaluation.items() if key != "protocol"}
        window, overlap, power = options.pop("window"), options.pop("overlap"), options.pop("image_prior", 1.0)
        whole = inference(self.network, protocol="whole", **options)
        shift = None
        if self.image_prior is not None and power > 0:
            shift = power * self.image_prior(_shrunk(image).to(self.device))[0]
        with self._autocast():
            return labels_by_strips(
                image,
                MultiScale(Softmax(whole), scales=(self.scale,)),
                device=self.device,
                window=round(window / self.scale),
                overlap=overlap,
                shift=shift,
                min_confidence=min_confidence,
                confidence=confidence,
                progress=progress,
            )

    def masks(self, images: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield :meth:`mask` of each image, in their order: faster than one call an image.

        Several images are processed at a time, see :func:`u2pl.engine.many_images.segment_many`. Images are taken from
        the iterable as they are needed.
        """
        return (mask.cpu() for _, mask in self.masks_of(images, lambda image: image))

    def masks_of(
        self,
        items: Iterable[Item],
        image: Callable[[Item], Tensor],
        *,
        during: Callable[[Item], AbstractContextManager[object]] = lambda item: nullcontext(),
        min_confidence: float = 0.0,
        confidence: bool = False,
    ) -> Generator[tuple[Item, Tensor], None, None]:
        """Items with an ``image``, each with its mask, as in :meth:`masks`, but on the device of the network.

        Args:
            during: a context for the work on an item, to explain its errors.
            min_confidence, confidence: see :meth:`mask`.
        """

        def masks(segment: Segment, images: Sequence[Tensor]) -> Sequence[Tensor]:
            if len(images) == 1 and not self._fits(images[0]):
                return [self.mask(images[0], min_confidence=min_confidence, confidence=confidence)]
            return [*_read(self._scores(segment, images), min_confidence, confidence)]

        return self._each(masks, items, image, during=during)

    def _each(
        self,
        work: Callable[[Segment, Sequence[Tensor]], Sequence[Result]],
        items: Iterable[Item],
        image: Callable[[Item], Tensor],
        *,
        during: Callable[[Item], AbstractContextManager[object]],
        inference: Inference | None = None,
    ) -> Generator[tuple[Item, Result], None, None]:
        """Items, each with what ``work`` makes of its image. Images that it gets together are of one size."""

        @torch.no_grad()
        def on(segment: Segment, some: Sequence[tuple[int, Item]]) -> Sequence[Result]:
            images = [image(item) for _, item in some]
            with during(some[0][1]):
                return work(segment, images)

        def size(item: tuple[int, Item]) -> tuple[int, int]:
            height, width = image(item[1]).shape[-2:]
            return height, width

        done = segment_many(
            on,
            enumerate(items),
            network=self.network,
            inference=inference or self.inference,
            size=size,
            device=self.device,
        )
        return in_order(done)

    def _fits(self, image: Tensor) -> bool:
        """Whether the memory holds the class scores of the whole image."""
        if self.evaluation.get("protocol") == "whole":
            return True
        pixels = image.shape[-2] * image.shape[-1]
        return pixels <= SMALL or pixels <= whole_pixels(self.network, self.device)

    def _scores(self, segment: Segment, images: Sequence[Tensor]) -> Tensor:
        """Images (3, H, W) uint8 of one size -> class scores (B, C, H, W) float32."""
        pixels = torch.stack([image.to(self.device) for image in images]).float().div(255)
        size = pixels.shape[-2:]
        if self.scale != 1.0:
            scaled = [max(1, round(side * self.scale)) for side in size]
            pixels = F.interpolate(pixels, size=scaled, mode="bilinear", antialias=True)
        with self._autocast():
            scores = segment(pixels)
        scores = scores.float()
        return scores if scores.shape[-2:] == size else F.interpolate(scores, size=size, mode="bilinear")

    def _autocast(self) -> torch.autocast:
        """The precision of the network. Each thread needs a context of its own."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")


def _read(scores: Tensor, min_confidence: float, confidence: bool) -> Tensor:
    """Class scores (B, C, H, W) -> (B, H, W) uint8 classes, or (B, 2, H, W) with the confidence."""
    return (labels_and_confidence if confidence else sure_labels)(scores, min_confidence).to(torch.uint8)


def _shrunk(image: Tensor) -> Tensor:
    """(3, H, W) uint8 -> (1, 3, h, w) float32 in [0, 1], small: enough to tell what a whole image shows."""
    step = max(1, min(image.shape[-2:]) // (2 * SIDE))
    return image[None, :, ::step, ::step].float().div(255)


def load_network(path: Path | str, *, device: str | torch.device = "cpu") -> nn.Module:
    """Load the network of a ``.safetensors`` file from `u2pl train` or `u2pl import-weights`, in evaluation mode.

    For images (B, 3, H, W) in [0, 1] it returns a :class:`~u2pl.structures.SegmentationOutput`. It does not apply an
    image prior; a :class:`Predictor` does, if the file has one. Raises InputError if the file is missing or another
    file.
    """
    return read_trained(Path(path), device).network.to(memory_format=torch.channels_last).eval()
