"""The sets that anchors and negatives come from, pixel by pixel."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from u2pl.methods.keys import Keys, downsample, make_keys, true_classes
from u2pl.methods.strong_views import MixedViews
from u2pl.pixels.cross_domain_mixing import SourceMix
from u2pl.pixels.mixing import Mix
from u2pl.pixels.negative_keys import NegativeKeys
from u2pl.structures import IGNORE_INDEX, Batch, PseudoLabel, SegmentationOutput

C = 4


def keys_of(label: Tensor, pseudo: PseudoLabel, mix: Mix, chosen: Any) -> Keys:
    """Of labeled images and of mixed ones with this pseudo-label, as the teacher sees them at the same resolution."""
    images = len(label) + len(pseudo.label)
    scores = torch.randn(images, C, *label.shape[-2:])
    mixed = MixedViews(torch.zeros(len(pseudo.label), 3, *label.shape[-2:]), pseudo, [mix])
    batch = Batch(torch.zeros(len(label), 3, *label.shape[-2:]), label)
    return make_keys(SegmentationOutput(scores, scores), batch, mixed, NegativeKeys(pixels=chosen))


@pytest.mark.parametrize("chosen", ["unreliable", "reliable", "all"])
def test_which_unlabeled_pixels_are_negatives(chosen: Any) -> None:
    label = torch.full((1, 2, 2), IGNORE_INDEX)
    valid = torch.tensor([[[True, True], [True, False]]])
    reliable = torch.tensor([[[True, False], [False, False]]])
    zeros = torch.zeros(1, 2, 2)
    pseudo = PseudoLabel(zeros.long(), zeros, zeros, valid, reliable, valid & ~reliable)
    negatives = keys_of(label, pseudo, Mix(torch.ones_like(valid)), chosen).unreliable
    expected = {"unreliable": pseudo.unreliable, "reliable": reliable, "all": valid}[chosen]
    assert not negatives[0].any()
    assert torch.equal(negatives[1:], expected)


def test_pasted_pixels_are_labeled_pixels_of_the_contrast() -> None:
    """A true class makes a hard negative, and no rank of a prediction makes one of the pixel's own class."""
    label = torch.full((1, 1, 3), IGNORE_INDEX)
    known = torch.tensor([[[2, IGNORE_INDEX, IGNORE_INDEX]]])
    reliable = torch.tensor([[[True, True, False]]])
    flags, zeros = torch.ones_like(reliable), torch.zeros(1, 1, 3)
    pseudo = PseudoLabel(torch.tensor([[[2, 1, 0]]]), zeros, zeros, flags, reliable, ~reliable)
    pasting = SourceMix(keep=known == IGNORE_INDEX, label=known)
    expected = {"unreliable": [False, False, True], "reliable": [False, True, False], "all": [False, True, True]}
    for chosen, negatives in expected.items():
        keys = keys_of(label, pseudo, pasting, chosen)
        assert keys.unreliable[1].flatten().tolist() == negatives
        assert keys.label[1].flatten().tolist() == [2, IGNORE_INDEX, IGNORE_INDEX]
        assert keys.target[1].flatten().tolist() == [2, 1, IGNORE_INDEX]


@pytest.mark.parametrize("labeled", [0, 1, 2])
def test_where_images_have_seeds_for_labels_their_true_classes_stand(labeled: int) -> None:
    torch.manual_seed(0)
    label, truth = torch.randint(0, C, (labeled + 2, 6, 6)), torch.randint(0, C, (2, 6, 6))
    keep = torch.rand(2, 6, 6) < 0.5
    mixed = MixedViews(torch.zeros(2, 3, 6, 6), PseudoLabel.from_logits(torch.zeros(2, C, 6, 6)), [Mix(keep)])
    batch = Batch(torch.zeros(labeled + 2, 3, 6, 6), label, truth=truth, seeded=True)
    found = true_classes(batch, mixed, torch.Size((3, 3)))
    assert found is not None
    assert len(found) == labeled + 2 + 2
    for y, x in product(range(3), range(3)):
        for b in range(labeled):
            assert found[b, y, x] == label[b, 2 * y, 2 * x]
        for b in range(2):
            assert found[labeled + b, y, x] == truth[b, 2 * y, 2 * x]
            source = b if keep[b, 2 * y, 2 * x] else 1 - b
            assert found[labeled + 2 + b, y, x] == truth[source, 2 * y, 2 * x]


def test_downsampling_takes_the_nearest_pixel() -> None:
    label = torch.randint(0, 256, (2, 9, 9))
    small = downsample(label, torch.Size((3, 3)))
    for b, y, x in product(range(2), range(3), range(3)):
        assert small[b, y, x] == label[b, 3 * y, 3 * x]
    assert downsample(label > 3, torch.Size((3, 3))).dtype == torch.bool
    assert small.dtype == label.dtype
