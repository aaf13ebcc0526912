"""Scores against a confusion matrix counted pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from u2pl.engine.evaluate import (
    Counted,
    Scores,
    count,
    evaluate,
    interleaved,
    labels,
    labels_and_confidence,
    sure_labels,
)
from u2pl.engine.many_images import segment_many
from u2pl.structures import SegmentationOutput

CLASSES = ("sky", "road", "car", "tree")


class Oracle(nn.Module):
    """Says of each pixel the class that its red value names."""

    def forward(self, image: Tensor) -> SegmentationOutput:
        assert not self.training
        assert image.shape[0] == 1
        logits = nn.functional.one_hot(image[:, 0].long(), len(CLASSES)).permute(0, 3, 1, 2).float()
        return SegmentationOutput(logits, logits)


def pairs(sizes: list[tuple[int, int]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Predictions and masks with ignored pixels; class 3 (tree) occurs in neither."""
    random = np.random.default_rng(0)
    made = [(random.integers(0, 3, size), random.integers(0, 3, size)) for size in sizes]
    for _, mask in made:
        mask[random.random(mask.shape) < 0.2] = 255
    return made


def count_loop(made: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    confusion = np.zeros((len(CLASSES), len(CLASSES)), dtype=np.int64)
    for predicted, mask in made:
        for p, t in zip(predicted.ravel(), mask.ravel(), strict=True):
            if t != 255:
                confusion[t, p] += 1
    return confusion


def as_tensors(made: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[Tensor, Tensor]]:
    return [(torch.from_numpy(p).float().expand(3, -1, -1), torch.from_numpy(m)) for p, m in made]


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


def test_the_confusion_matrix_is_that_of_a_loop_over_pixels(fabric: Fabric) -> None:
    made = pairs([(5, 7), (9, 4), (6, 6)])
    network = Oracle().train()
    confusion = evaluate(fabric, network, as_tensors(made), len(CLASSES)).confusion
    assert confusion.tolist() == count_loop(made).tolist()
    assert network.training  # back in the mode it came in


def test_one_image_and_none(fabric: Fabric) -> None:
    made = pairs([(5, 7)])
    assert evaluate(fabric, Oracle().eval(), as_tensors(made), 4).confusion.tolist() == count_loop(made).tolist()
    assert evaluate(fabric, Oracle(), [], 4).confusion.tolist() == np.zeros((4, 4)).tolist()


def test_equal_scores_are_the_first_class() -> None:
    scores = torch.tensor([[1.0, 3.0, 3.0, 3.0], [2.0, 2.0, 2.0, 2.0], [0.0, 0.0, 5.0, 5.0]])
    assert labels(scores.T.reshape(1, 4, 3, 1)).flatten().tolist() == [1, 0, 2]


def test_every_ignored_pixel_is_left_out_and_every_class_has_a_row() -> None:
    mask, predicted = torch.tensor([[255, 255, 3]], dtype=torch.uint8), torch.tensor([[0, 3, 3]])
    assert count(mask, predicted, 4).tolist() == [[0, 0, 0, 0]] * 3 + [[0, 0, 0, 1]]
    assert count(mask[:, :2], predicted[:, :2], 4).sum() == 0


class Blurred(nn.Module):
    """Two layers, and normalisation that does not depend on the other images of a batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
        self.batches: list[int] = []

    def forward(self, image: Tensor) -> SegmentationOutput:
        self.batches.append(len(image))
        logits = nn.functional.interpolate(self.layers(image), size=image.shape[-2:], mode="bilinear")
        return SegmentationOutput(logits, logits)


@pytest.mark.parametrize("way", ["threads", "batches"])
def test_together_scores_are_those_of_one_by_one(fabric: Fabric, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On images of mixed sizes, in fp32."""
    network, before = Blurred().eval(), torch.get_num_threads()
    torch.manual_seed(0)
    sizes = [(24, 32), (20, 20), (24, 32), (24, 32), (33, 17), (20, 20), (24, 32)] * 5
    images = [(torch.rand(3, *size), torch.randint(0, 5, size)) for size in sizes]
    for _, mask in images:
        mask[mask == 4] = 255
    expected = np.zeros((4, 4), dtype=np.int64)
    for image, mask in images:
        with torch.no_grad():
            predicted = network(image[None]).logits.argmax(dim=1)[0]
        np.add.at(expected, (mask[mask != 255].numpy(), predicted[mask != 255].numpy()), 1)
    assert (expected.sum(0) > 0).sum() > 1
    network.batches.clear()
    if way == "batches":  # as on an accelerator
        cuda = {"device": torch.device("cuda")}
        monkeypatch.setattr(
            "u2pl.engine.evaluate.segment_many", lambda *a, **options: segment_many(*a, **options | cuda)
        )
        monkeypatch.setattr("u2pl.engine.many_images.whole_pixels", lambda *_: 10**6)
    torch.set_num_threads(3 if way == "threads" else 1)
    try:
        found = evaluate(fabric, network, iter(images), 4).confusion
    finally:
        torch.set_num_threads(before)
    assert found.tolist() == expected.tolist()
    assert max(network.batches, default=0) == (8 if way == "batches" else 0)  # threads have copies


def test_the_areas_of_each_image_are_those_of_a_loop_over_its_pixels(fabric: Fabric) -> None:
    made = pairs([(5, 7), (9, 4), (5, 7), (6, 6)])
    confusion, areas = evaluate(fabric, Oracle(), as_tensors(made), 4)
    expected = []
    for one in made:
        counts = count_loop([one])
        hit = [counts[c, c] for c in range(4)]
        expected.append([hit, [counts[c].sum() + counts[:, c].sum() - hit[c] for c in range(4)]])
    assert areas.tolist() == expected
    assert Scores.from_counted(Counted(confusion, areas), CLASSES).areas is not None
    assert evaluate(fabric, Oracle(), [], 4).areas.shape == (0, 2, 4)


@pytest.mark.parametrize("numbers", [(3, 2), (1, 0), (0, 0), (2, 2)])
def test_areas_of_processes_are_in_the_common_order(numbers: tuple[int, int]) -> None:
    """Process r holds images r, r + 2, ...; the sum over processes is that of what each of them gives."""
    whole = torch.arange(sum(numbers) * 2).reshape(-1, 2)
    given: list[list[Tensor]] = [[], []]

    class Process:
        world_size = 2

        def __init__(self, rank: int) -> None:
            self.global_rank = rank

        def all_reduce(self, tensor: Tensor, reduce_op: str) -> Tensor:
            given[self.global_rank].append(tensor)
            return torch.tensor(sum(numbers)) if tensor.dim() == 0 else tensor

    for rank in range(2):
        interleaved(Process(rank), whole[rank::2])  # type: ignore[arg-type]
    assert (given[0][1] + given[1][1]).tolist() == whole.tolist()
    assert [int(each[0]) for each in given] == list(numbers)


def test_counts_are_summed_over_processes_once(fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a process that has no image."""
    summed: list[Tensor] = []

    def add(counts: Tensor, reduce_op: str) -> Tensor:
        assert reduce_op == "sum"
        summed.append(counts)
        return 2 * counts

    monkeypatch.setattr(fabric, "all_reduce", add)
    made = pairs([(5, 7)])
    assert evaluate(fabric, Oracle(), as_tensors(made), 4).confusion.tolist() == (2 * count_loop(made)).tolist()
    assert evaluate(fabric, Oracle(), [], 4).confusion.tolist() == np.zeros((4, 4)).tolist()
    assert len(summed) == 2


def test_scores_follow_their_definition() -> None:
    confusion = count_loop(pairs([(5, 7), (9, 4)]))
    scores = Scores.from_confusion(torch.from_numpy(confusion), CLASSES)
    expected: list[float] = []
    for index, name in enumerate(CLASSES[:3]):
        true, found = confusion[index, :].sum(), confusion[:, index].sum()
        both = confusion[index, index]
        expected.append(100 * both / (true + found - both))
        assert scores.iou[name] == pytest.approx(expected[-1])
    assert scores.iou["tree"] is None  # in neither masks nor predictions: no part of the mean
    assert scores.miou == pytest.approx(sum(expected) / 3)
    assert scores.pixel_accuracy == pytest.approx(100 * np.trace(confusion) / confusion.sum())
    assert scores.as_json() == {"miou": scores.miou, "iou": scores.iou, "pixel_accuracy": scores.pixel_accuracy}


def test_a_class_that_is_only_predicted_counts_as_zero() -> None:
    scores = Scores.from_confusion(torch.tensor([[3, 1], [0, 0]]), ("a", "b"))
    assert scores.iou == {"a": 75.0, "b": 0.0}
    assert scores.miou == 37.5


def test_no_pixel_at_all_is_zero_not_nan() -> None:
    scores = Scores.from_confusion(torch.zeros(2, 2), ("a", "b"))
    assert (scores.miou, scores.pixel_accuracy) == (0.0, 0.0)
    assert scores.iou == {"a": None, "b": None}


def test_large_counts_do_not_lose_precision() -> None:
    """Float32 cannot count beyond 2**24 pixels, which is one validation set."""
    big = 2**25
    scores = Scores.from_confusion(torch.tensor([[big + 1, 1], [0, big]]), ("a", "b"))
    assert scores.pixel_accuracy == pytest.approx(100 * (2 * big + 1) / (2 * big + 2), rel=1e-12)


@pytest.mark.parametrize("least", [0.0, 0.4, 0.7, 0.999])
def test_labels_of_unsure_pixels_are_ignored(least: float) -> None:
    scores = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0)) * 2
    found, both = sure_labels(scores, least), labels_and_confidence(scores, least)
    for image in range(2):
        for y in range(5):
            for x in range(6):
                probability = [math.exp(float(score)) for score in scores[image, :, y, x]]
                probability = [each / sum(probability) for each in probability]
                best = max(range(4), key=lambda index: probability[index])
                assert found[image, y, x] == (best if probability[best] >= least else 255)
                assert tuple(both[image, :, y, x].tolist()) == (found[image, y, x], round(255 * probability[best]))
    assert ((found == 255).any() and (found < 4).any()) or least in (0.0, 0.999)
