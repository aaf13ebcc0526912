"""Every way to see an image against loops in numpy: over windows, scales and mirror images, and over pixels."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from u2pl.data.batches import Evaluation
from u2pl.data.readers.cityscapes import cityscapes
from u2pl.engine.evaluate import Scores, evaluate
from u2pl.engine.inference import Whole, inference, window_starts
from u2pl.networks import smp_network
from u2pl.structures import SegmentationOutput

Array = npt.NDArray[Any]

SLIDING: dict[str, Any] = {"protocol": "sliding", "window": 16}
WAYS: list[dict[str, Any]] = [
    {},
    {"flip": True},
    {"scales": [0.5]},
    {"scales": [0.75, 1.0, 1.25]},
    {"scales": [0.6, 2.0], "flip": True},
    SLIDING,
    {**SLIDING, "overlap": 0.0},
    {**SLIDING, "overlap": 0.7, "window": 20},
    {**SLIDING, "flip": True},
    {**SLIDING, "scales": [0.75, 1.0, 1.25], "flip": True},
    {**SLIDING, "window": 99},
]
SIZES = [(37, 53), (16, 16), (17, 15), (9, 40), (41, 8), (5, 7)]


class Glance(nn.Module):
    """Class scores that depend on all that is in view: a convolution with padding, and the average of the view."""

    def __init__(self, num_classes: int = 5, *, stride: int = 1) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.convolution = nn.Conv2d(3, num_classes, 5, padding=2, stride=stride)
        self.average = nn.Linear(3, num_classes)
        self.seen: list[tuple[int, ...]] = []
        with torch.no_grad():
            self.convolution.weight.sub_(self.convolution.weight.mean(dim=(1, 2, 3), keepdim=True)).mul_(8)
            self.convolution.bias.zero_()
            self.convolution.bias[-1] = -1e4  # the last class is never predicted
            self.average.weight.mul_(40)
            self.average.bias.zero_()

    def forward(self, image: Tensor) -> SegmentationOutput:
        assert not self.training
        self.seen.append(tuple(image.shape))
        scores = self.convolution(image) + self.average(image.mean(dim=(2, 3)) - 0.5)[..., None, None]
        return SegmentationOutput(nn.functional.interpolate(scores, image.shape[-2:], mode="bilinear"), scores)


class Knowing(Glance):
    """It also scores all classes but the first at each place of a coarse map."""

    def __init__(self, num_classes: int = 5) -> None:
        super().__init__(num_classes)
        self.classification = nn.Conv2d(3, num_classes - 1, 4, stride=4, padding=2, bias=False)
        with torch.no_grad():
            self.classification.weight.mul_(20)

    def forward(self, image: Tensor) -> SegmentationOutput:
        return replace(super().forward(image), activation=self.classification(image))


def probabilities(network: nn.Module, image: Array, *, tags: bool = True) -> Array:
    """What the network alone says of an image (3, H, W), by its own tags if it has any."""
    with torch.no_grad():
        output = network(torch.from_numpy(np.ascontiguousarray(image))[None])
    logits = output.logits[0].numpy()
    powers = np.exp(logits - logits.max(axis=0))
    if tags and output.activation is not None:
        for index, scores in enumerate(output.activation[0].numpy()):
            mean = sum(float(score) for score in scores.ravel()) / scores.size
            powers[index + 1] *= 1 / (1 + math.exp(-mean))
    return powers / powers.sum(axis=0)


def bilinear(length: int, new: int, *, antialias: bool) -> Array:
    """(new, length) weights of the old pixels in each new one: a triangle around the centre of the new pixel."""
    weights = np.zeros((new, length))
    ratio = length / new
    reach = max(1.0, ratio) if antialias else 1.0
    for i in range(new):
        centre = (i + 0.5) * ratio - 0.5
        for j in range(length):
            weights[i, j] = max(0.0, 1 - abs(j - centre) / reach)
        weights[i] /= weights[i].sum()
    return weights


def resized(image: Array, size: tuple[int, int], *, antialias: bool) -> Array:
    rows, columns = (bilinear(old, new, antialias=antialias) for old, new in zip(image.shape[1:], size, strict=True))
    return np.stack([rows @ channel @ columns.T for channel in image.astype(float)])


def starts(side: int, window: int, overlap: float) -> list[int]:
    found, stride = [], math.ceil(window * (1 - Fraction(str(overlap))))
    begin = 0
    while begin + window < side:
        found.append(begin)
        begin += stride
    return [*found, max(0, side - window)]


def through_windows(network: nn.Module, image: Array, *, window: int, overlap: float, tags: bool) -> Array:
    height, width = image.shape[1:]
    places = [
        (..., slice(top, top + window), slice(left, left + window))
        for top in starts(height, window, overlap)
        for left in starts(width, window, overlap)
    ]
    seen = [probabilities(network, image[place], tags=tags) for place in places]
    total, cover = (
        np.zeros((len(seen[0]), height, width), dtype=np.float32),
        np.zeros((height, width), dtype=np.float32),
    )
    for place, probability in zip(places, seen, strict=True):
        total[place] += probability
        cover[place] += 1
    assert cover.min() >= 1
    return total / cover


def reference(
    network: nn.Module,
    image: Array,
    *,
    protocol: str = "whole",
    window: int = 769,
    overlap: float = 0.33,
    scales: tuple[float, ...] = (1.0,),
    flip: bool = False,
    tags: bool = True,
) -> Array:
    """(C, H, W) probabilities of a (3, H, W) image."""
    height, width = image.shape[1:]
    looks = []
    for scale in scales:
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        small = image if size == (height, width) else resized(image, size, antialias=True).astype(np.float32)
        for mirror in (False, True) if flip else (False,):
            view = small[..., ::-1] if mirror else small
            if protocol == "sliding":
                seen = through_windows(network, view, window=window, overlap=overlap, tags=tags)
            else:
                seen = probabilities(network, view, tags=tags)
            seen = seen[..., ::-1] if mirror else seen
            looks.append(seen if size == (height, width) else resized(seen, (height, width), antialias=False))
    return np.mean(looks, axis=0)


def ignore_ties(mask: Array, probability: Array) -> None:
    """Ignore pixels whose class another order of the same sums might change."""
    others = probability.copy()
    np.put_along_axis(others, probability.argmax(axis=0)[None], -1, axis=0)
    mask[probability.max(axis=0) - others.max(axis=0) < 1e-5] = 255


def count(made: list[tuple[Array, Array]], num_classes: int) -> Array:
    """Confusion matrix of (prediction, mask), pixel by pixel."""
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    for predicted, mask in made:
        for p, t in zip(predicted.ravel(), mask.ravel(), strict=True):
            if t != 255:
                confusion[t, p] += 1
    return confusion


def samples(sizes: list[tuple[int, int]], num_classes: int = 5) -> list[tuple[Array, Array]]:
    """Images and masks with ignored pixels; class 1 is in no mask, and one mask is ignored altogether."""
    random = np.random.default_rng(1)
    made = []
    for index, size in enumerate(sizes):
        mask = random.choice([0, *range(2, num_classes)], size)
        mask[random.random(size) < (0.3 if index != 1 else 1.0)] = 255
        made.append((random.random((3, *size), dtype=np.float32), mask))
    return made


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_way_is_that_of_loops(fabric: Fabric, way: dict[str, Any]) -> None:
    network = Glance().eval()
    made = samples(SIZES)
    expected = [reference(network, image, **way) for image, _ in made]
    for (image, mask), probability in zip(made, expected, strict=True):
        with torch.no_grad():
            scores = inference(network, **way)(torch.from_numpy(image)[None])
        assert scores.shape == (1, 5, *image.shape[1:])
        assert np.allclose(scores[0].softmax(dim=0).numpy(), probability, atol=2e-6)
        ignore_ties(mask, probability)
    confusion = evaluate(
        fabric,
        network.train(),
        [(torch.from_numpy(image), torch.from_numpy(mask)) for image, mask in made],
        5,
        inference=partial(inference, **way),
    ).confusion
    assert network.training
    predicted = [(p.argmax(axis=0), mask) for p, (_, mask) in zip(expected, made, strict=True)]
    assert confusion.tolist() == count(predicted, 5).tolist()
    assert confusion.sum() == sum((mask != 255).sum() for _, mask in made)  # each pixel once, and no padding
    scores = Scores.from_confusion(confusion, "abcde")
    assert scores.iou["b"] == 0.0  # in no mask, but predicted
    assert scores.iou["e"] == 0.0  # in masks, never predicted


@pytest.mark.parametrize("tags", [True, False])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_class_that_the_classifier_does_not_see_is_at_no_pixel(way: dict[str, Any], tags: bool) -> None:
    network, changed = Knowing().eval(), 0
    for image, _ in samples(SIZES):
        with torch.no_grad():
            scores = inference(network, **way, tags=tags)(torch.from_numpy(image)[None])[0].softmax(dim=0).numpy()
        assert np.allclose(scores, reference(network, image, **way, tags=tags), atol=2e-6)
        changed += int((scores.argmax(axis=0) != reference(network, image, **way, tags=False).argmax(axis=0)).sum())
    assert (changed > 100) is tags


@pytest.mark.parametrize("way", [{}, {"scales": [1, 1.0]}, {"tags": False}])
def test_whole_is_the_networks_own_answer_bit_by_bit(way: dict[str, Any]) -> None:
    for network in (Glance().eval(), *([Knowing().eval()] if way == {"tags": False} else [])):
        segment = inference(network, **way)
        assert isinstance(segment, Whole)
        image = torch.rand(1, 3, 21, 34)
        assert torch.equal(segment(image), network(image).logits)
        assert len(network.seen) == 2


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.29, 0.33, 0.5, 0.7, 0.9, 0.999])
@pytest.mark.parametrize("window", [10, 16, 100, 769])
def test_windows_cover_every_pixel_and_overlap_enough(window: int, overlap: float) -> None:
    for side in (1, window - 1, window, window + 1, 2 * window - 1, 3 * window + 7):
        found = window_starts(side, window=window, overlap=overlap)
        assert found == starts(side, window, overlap)
        assert found[0] == 0
        assert found[-1] + min(window, side) == side
        steps = np.diff(found)
        assert (steps > 0).all()
        assert (window - steps >= math.floor(window * Fraction(str(overlap)))).all()


def test_the_paper_windows_of_cityscapes() -> None:
    """Side 769, a third of overlap: two rows of four windows on an image of 1024x2048."""
    assert window_starts(2048, window=769, overlap=1 / 3) == [0, 513, 1026, 1279]
    assert window_starts(2048, window=769, overlap=0.333) == [0, 513, 1026, 1279]  # as the presets say it
    assert window_starts(1024, window=769, overlap=1 / 3) == [0, 255]


def test_few_windows_at_once_and_none_larger_than_the_image() -> None:
    network = Glance().eval()
    inference(network, protocol="sliding", window=16, overlap=0.0)(torch.rand(1, 3, 33, 50))
    assert network.seen == [(4, 3, 16, 16)] * 3  # 3 x 4 windows
    network.seen.clear()
    inference(network, protocol="sliding", window=64, scales=[1.0, 2.0])(torch.rand(1, 3, 20, 70))
    assert network.seen == [(2, 3, 20, 64), (3, 3, 40, 64)]


def test_several_images_are_seen_as_each_alone() -> None:
    images = torch.rand(3, 3, 23, 31)
    for network in (Glance(), Knowing()):
        segment = inference(network.eval(), protocol="sliding", window=16, scales=[1.0, 0.7], flip=True)
        with torch.no_grad():
            assert torch.allclose(segment(images), torch.cat([segment(image[None]) for image in images]), atol=1e-5)


def test_a_class_that_is_ruled_out_stays_finite() -> None:
    with torch.no_grad():
        scores = inference(Glance().eval(), flip=True)(torch.rand(1, 3, 8, 8))
    assert scores[0, -1].isfinite().all()
    assert (scores.softmax(dim=1)[0, -1] < 1e-30).all()


def test_lower_precision_averages_in_float32() -> None:
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    network, image = Glance().eval(), torch.rand(1, 3, 30, 41)
    segment = inference(network, protocol="sliding", window=16, scales=[1.0, 1.5], flip=True)
    with torch.no_grad():
        exact = segment(image).exp()
        with fabric.autocast():
            assert network(image).logits.dtype == torch.bfloat16
            scores = segment(image)
    assert scores.dtype == torch.float32
    assert torch.allclose(scores.exp().sum(dim=1), torch.ones(1, 30, 41), atol=1e-5)
    assert torch.allclose(scores.exp(), exact, atol=0.1)


@pytest.mark.parametrize(
    "way",
    [
        {"protocol": "tiled"},
        {"protocol": "sliding", "window": 0},
        {"overlap": 1.0},
        {"overlap": -0.1},
        {"scales": []},
        {"scales": [1.0, 0.0]},
        {"scales": [-1]},
        {"scales": [math.nan]},
        {"scales": [math.inf]},
    ],
)
def test_nonsense_is_refused(way: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"is no way to see an image|positive numbers"):
        inference(Glance(), **way)


def test_padding_inside_a_network_does_not_count(fabric: Fabric) -> None:
    """A network that needs multiples of 32 pads each window of 48, and each image; what it adds is cut off again."""
    torch.manual_seed(0)
    network = smp_network(num_classes=4, embedding_dim=None).eval()
    image, mask = samples([(50, 71)], num_classes=4)[0]
    way: dict[str, Any] = {"protocol": "sliding", "window": 48, "scales": [1.0, 0.6]}
    expected = reference(network, image, **way)
    with torch.no_grad():
        scores = inference(network, **way)(torch.from_numpy(image)[None])
    assert np.allclose(scores[0].exp().numpy(), expected, atol=1e-5)
    pairs = [(torch.from_numpy(image), torch.from_numpy(mask))]
    confusion = evaluate(fabric, network, pairs, 4, inference=partial(inference, **way)).confusion
    assert confusion.tolist() == count([(expected.argmax(axis=0), mask)], 4).tolist()


@pytest.mark.slow
def test_cityscapes_at_full_resolution(fabric: Fabric, real_data: Path) -> None:
    """2048x1024 through windows of 769, scored against the masks as they are on disk."""
    root = real_data / "cityscapes_sample"
    if not root.is_dir():
        pytest.skip(f"{root} is missing")
    image, mask = Evaluation(cityscapes(root=root).val)[0]
    assert mask.shape == (1024, 2048)
    network = Glance(19, stride=4).eval()
    way: dict[str, Any] = {"protocol": "sliding", "window": 769, "overlap": 1 / 3}
    expected, truth = reference(network, image.numpy(), **way), mask.numpy()
    ignore_ties(truth, expected)
    network.seen.clear()
    confusion = evaluate(fabric, network, [(image, mask)], 19, inference=partial(inference, **way)).confusion
    assert network.seen == [(4, 3, 769, 769)] * 2
    predicted, kept = expected.argmax(axis=0), truth != 255
    counted = np.zeros((19, 19), dtype=np.int64)
    np.add.at(counted, (truth[kept], predicted[kept]), 1)
    assert confusion.tolist() == counted.tolist()
    assert confusion.sum() == kept.sum() > 10**6
    scores = Scores.from_confusion(confusion, map(str, range(19)))
    unions = counted.sum(0) + counted.sum(1) - np.diag(counted)
    assert scores.miou == pytest.approx(100 * np.mean(np.diag(counted)[unions > 0] / unions[unions > 0]), rel=1e-12)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("power", [0.0, 1.0, 2.5])
def test_a_prior_of_the_whole_image_multiplies_what_its_pixels_say(way: dict[str, Any], power: float) -> None:
    """It is asked once for an image, whatever the looks at it."""
    network, changed = Glance().eval(), 0
    asked: list[tuple[int, ...]] = []

    def prior(image: Tensor) -> Tensor:
        asked.append(tuple(image.shape))
        return torch.log(torch.tensor([1.0, 1.0, 0.1, 0.02, 1.0])).expand(len(image), -1)

    for number, size in enumerate(SIZES):
        image = np.random.default_rng(number).random((3, *size), dtype=np.float32)
        with torch.no_grad():
            scores = inference(network, **way, prior=prior, image_prior=power)(torch.from_numpy(image)[None])[0]
        alone = reference(network, image, **way)
        weighted = alone * np.array([1.0, 1.0, 0.1, 0.02, 1.0])[:, None, None] ** power
        assert np.allclose(scores.softmax(dim=0).numpy(), weighted / weighted.sum(axis=0), atol=4e-6)
        changed += int((scores.numpy().argmax(axis=0) != alone.argmax(axis=0)).sum())
    assert (changed > 50) is (power > 0)
    assert asked == ([(1, 3, *size) for size in SIZES] if power else [])
