"""Training batches as a pure function of (seed, step, rank): resuming a run needs no state of the data."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from u2pl.data.rare_classes import MIN_SHARE, DrawsByClass
from u2pl.data.source import Sample
from u2pl.data.transforms import LabeledTransform, UnlabeledTransform
from u2pl.errors import InputError
from u2pl.structures import IGNORE_INDEX, Crops

# The random streams of a step; each has its own seed.
_LABELED, _UNLABELED, _TRANSFORMS, _PSEUDO = range(4)
_TARGET_LABELED = 6  # 3 to 5 are those of steps and diagnoses, too
PIXEL_BYTES = 3 + 1  #: of an image: RGB, and its class or whether it is padding
_MORE_CROPS = 9  # further crops of an image, until one shows the class that it was drawn for


def step_seed(seed: int, *numbers: int) -> int:
    """A seed in [0, 2**63), hashed from ``seed`` and ``numbers``: different for any change, equal on all machines."""
    text = ",".join(str(int(number)) for number in (seed, *numbers))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class Batches(Dataset["Crops | InputError"]):
    """The batches that one rank draws over ``steps`` steps, as bytes: ``views_of(batches[step])`` is a batch.

    Labeled and unlabeled samples each follow their own sequence of permutations, one per epoch. The ranks divide each
    permutation, so every sample is drawn once before any is drawn again. ``batches[step]`` does not depend on earlier
    reads.

    With labels of two domains, labeled samples come from source and target in turn, so half of each batch is of the
    target (as in MME, Saito et al. 2019, arXiv 1904.06487). In one sequence, 20 target masks beside 400 of the source
    would be 5 % of the labeled pixels, although they alone show what the model is for. Source and target each follow
    their own sequence of permutations.

    With pseudo-labeled samples, a share of the labeled part of each batch is drawn from them, in permutations of their
    own. By default it is half, as in a semi-supervised step, which has as many labeled as unlabeled images: few labels
    are not lost among many pseudo-masks, and no batch is without a label. Over all steps and ranks together the share
    is exact for every batch size.

    Args:
        target_labeled: how many labeled samples, the last ones, are of the target domain; 0: there is one domain.
        pseudo: samples with pseudo-masks; empty: none.
        pseudo_share: of the labeled part; 1 if there is no labeled sample.
        unlabeled: None: batches have labeled parts only.
        batch_size: labeled images per rank.
        unlabeled_batch_size: unlabeled images per rank; None: ``batch_size``.
        truth: read the masks that unlabeled images have, for a diagnosis; nothing else in a batch changes.
        tag_classes: the number of classes; adds the tags of unlabeled images, and no labeled image is needed.
        rare_classes: draws the labeled images, but not pseudo-labeled ones, instead of the permutations. Of up to ten
            crops, the first that shows the class that the image was drawn for is used.
        priors: (C,) float32 by the name of an unlabeled image; the ``prior`` of a batch.
    """

    def __init__(
        self,
        *,
        labeled: Sequence[Sample],
        target_labeled: int = 0,
        unlabeled: Sequence[Sample] | None,
        pseudo: Sequence[Sample] = (),
        pseudo_share: float = 0.5,
        labeled_transform: LabeledTransform,
        unlabeled_transform: UnlabeledTransform | None = None,
        batch_size: int,
        unlabeled_batch_size: int | None = None,
        steps: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        truth: bool = False,
        tag_classes: int | None = None,
        rare_classes: DrawsByClass | None = None,
        priors: Mapping[str, Tensor] | None = None,
    ) -> None:
        if not (labeled or pseudo) and (tag_classes is None or unlabeled is None):
            raise InputError("there is no labeled image to train on; label at least one")
        if unlabeled is not None and (not unlabeled or unlabeled_transform is None):
            raise InputError("there is no unlabeled image to train on; add some or train supervised")
        self.labeled, self.target_labeled, self.unlabeled, self.pseudo = labeled, target_labeled, unlabeled, pseudo
        self.pseudo_share = (pseudo_share if labeled else 1.0) if pseudo else 0.0
        self.labeled_transform, self.unlabeled_transform = labeled_transform, unlabeled_transform
        self.batch_size = batch_size
        self.unlabeled_batch_size = unlabeled_batch_size or batch_size
        self.steps, self.seed, self.rank, self.world_size = steps, seed, rank, world_size
        self.truth = truth
        self.tag_classes = tag_classes
        self.rare_classes = rare_classes
        self.priors = priors

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Crops | InputError:
        """The crops of a step. An InputError is returned, not raised: a worker process would add a traceback to it."""
        if not 0 <= step < self.steps:
            raise IndexError(step)
        try:
            # The transforms draw from the global CPU generator; fork_rng restores its state afterwards. Only this
            # generator is seeded, because torch.manual_seed would seed the accelerators as well.
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(step_seed(self.seed, _TRANSFORMS, step, self.rank))
                return self._draw(step)
        except InputError as error:
            return error

    def indices(self, step: int) -> tuple[list[int], list[int]]:
        """Indices of the labeled and of the unlabeled samples that this rank draws at a step.

        Those of pseudo-labeled samples follow those of the labeled ones.
        """
        labeled = [index for index, _ in self._labeled_draw(step)]
        if self.unlabeled is None:
            return labeled, []
        places = self._places(step, self.unlabeled_batch_size)
        return labeled, self._in_order(places, _UNLABELED, len(self.unlabeled))

    def _labeled_draw(self, step: int) -> list[tuple[int, int | None]]:
        """Indices of a step's labeled samples, each with the class that it was drawn for, if any."""
        places = self._places(step, self.batch_size)
        # Of the first n labeled places of a training, floor(n * share) are for pseudo-labeled samples.
        before, after = (math.floor(place * self.pseudo_share) for place in (places.start, places.stop))
        pseudo = self._in_order(range(before, after), _PSEUDO, len(self.pseudo))
        return [
            *self._true_draw(step, range(places.start - before, places.stop - after)),
            *((len(self.labeled) + index, None) for index in pseudo),
        ]

    def _true_draw(self, step: int, places: range) -> list[tuple[int, int | None]]:
        """As :meth:`_labeled_draw`, without pseudo-labeled samples: those at places of their own sequence."""
        if not (self.labeled and places):
            return []
        if self.rare_classes is None:
            return [(index, None) for index in self._labeled_in_turn(places)]
        return [*self.rare_classes.draw(len(places), step_seed(self.seed, _LABELED, step, self.rank))]

    def _labeled_in_turn(self, places: range) -> list[int]:
        """Indices of the labeled samples at places of their sequence: even ones of the source, odd ones of the target.

        With one domain, all are of one sequence.
        """
        source = len(self.labeled) - self.target_labeled
        if not (self.target_labeled and source):
            return self._in_order(places, _LABELED, len(self.labeled))
        halves = [[place // 2 for place in places if place % 2 == odd] for odd in (False, True)]
        of_source = iter(self._in_order(halves[0], _LABELED, source))
        of_target = iter(self._in_order(halves[1], _TARGET_LABELED, self.target_labeled))
        return [source + next(of_target) if place % 2 else next(of_source) for place in places]

    def _places(self, step: int, batch_size: int) -> range:
        """This rank's places at a step, in an endless sequence of samples."""
        first = (step * self.world_size + self.rank) * batch_size
        return range(first, first + batch_size)

    def _in_order(self, places: Sequence[int], stream: int, count: int) -> list[int]:
        """Indices below ``count`` at places of an endless sequence of permutations."""
        epochs = dict.fromkeys(place // count for place in places)
        orders = {epoch: _permutation(count, step_seed(self.seed, stream, epoch)) for epoch in epochs}
        return [int(orders[place // count][place % count]) for place in places]

    def _draw(self, step: int) -> Crops:
        pairs = [self._read_labeled(self._sample(index), wanted) for index, wanted in self._labeled_draw(step)]
        if self.unlabeled is None or self.unlabeled_transform is None:
            image, label = _stack(pairs)
            return self._with_jitter(Crops(image, label))
        samples = [self.unlabeled[index] for index in self.indices(step)[1]]
        unlabeled, valid, *truth = _stack(
            [self.unlabeled_transform(*self._read_unlabeled(sample)) for sample in samples]
        )
        image, label = _stack(pairs) if pairs else _no_pairs(unlabeled)
        strong_views = self.unlabeled_transform.strong_views
        crops = Crops(image, label, unlabeled, valid, truth[0] if truth else None, strong_views)
        if self.priors is not None:
            crops = replace(crops, prior=torch.stack([self.priors[sample.name] for sample in samples]))
        if self.tag_classes is not None:
            tags, tagged = _tags(samples, self.tag_classes)
            crops = replace(crops, tags=tags, tagged=tagged)
        return self._with_jitter(crops)

    def _sample(self, index: int) -> Sample:
        return self.labeled[index] if index < len(self.labeled) else self.pseudo[index - len(self.labeled)]

    def _with_jitter(self, crops: Crops) -> Crops:
        """With the numbers of the jitter that follows on the device. They come last: no crop depends on them."""
        labeled, unlabeled = self.labeled_transform.photometric, self.unlabeled_transform
        if labeled is not None:
            crops = replace(crops, image_jitter=labeled.draw(len(crops.image)).values)
        if crops.unlabeled is None or unlabeled is None or unlabeled.photometric is None:
            return crops
        views = len(crops.unlabeled) * crops.strong_views
        return replace(crops, strong_jitter=unlabeled.photometric.draw(views).values)

    def _read_labeled(self, sample: Sample, wanted: int | None) -> tuple[Tensor, Tensor]:
        """The first of up to ten crops of image and mask that shows the ``wanted`` class; if none does, the last."""
        image, mask = sample.image(), sample.mask()
        crop = self.labeled_transform(image, mask)
        for _ in range(_MORE_CROPS if wanted is not None else 0):
            if wanted is not None and torch.eq(crop[1], wanted).float().mean() >= MIN_SHARE:
                break
            crop = self.labeled_transform(image, mask)
        return crop

    def _read_unlabeled(self, sample: Sample) -> tuple[Tensor, ...]:
        """The image and, for a diagnosis, its true classes (H, W) uint8: all IGNORE_INDEX if there is no mask."""
        image = sample.image()
        if not self.truth:
            return (image,)
        unknown = torch.full(image.shape[-2:], IGNORE_INDEX, dtype=torch.uint8)
        return image, sample.mask() if sample.has_mask else unknown


class Evaluation(Dataset["tuple[Tensor, Tensor] | InputError"]):
    """Whole images with their masks: (3, H, W) uint8 and (H, W) uint8, or an InputError."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor] | InputError:
        sample = self.samples[index]
        try:
            return sample.image(), sample.mask()
        except InputError as error:
            return error


def _stack(rows: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
    """Images (B, 3, h, w), and masks (B, h, w). The channels of a pixel stay side by side, as in each image."""
    images, *masks = zip(*rows, strict=True)
    stacked = torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)
    return [stacked, *(torch.stack(column) for column in masks)]


def _no_pairs(unlabeled: Tensor) -> tuple[Tensor, Tensor]:
    """Empty image and label tensors, at the size of the unlabeled images."""
    return unlabeled[:0].clone(), unlabeled.new_empty(0, *unlabeled.shape[-2:])


def _tags(samples: Sequence[Sample], num_classes: int) -> tuple[Tensor, Tensor]:
    """``tags`` and ``tagged`` of a batch."""
    known = [sample.tags for sample in samples]
    rows = [[tags is None or index == 0 or index in tags for index in range(num_classes)] for tags in known]
    return torch.tensor(rows), torch.tensor([tags is not None for tags in known])


@lru_cache(maxsize=8)  # the epoch of each sequence of samples, and the next one
def _permutation(count: int, seed: int) -> npt.NDArray[np.int32]:
    """(count,) in random order. Drawing ten million numbers takes a second: each process keeps its last ones."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).numpy().astype(np.int32)
