"""Scores against a confusion matrix counted pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from u2pl.engine.evaluate import Scores, evaluate
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


def count(made: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
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
    confusion = evaluate(fabric, network, as_tensors(made), len(CLASSES))
    assert confusion.tolist() == count(made).tolist()
    assert network.training  # back in the mode it came in


def test_one_image_and_none(fabric: Fabric) -> None:
    made = pairs([(5, 7)])
    assert evaluate(fabric, Oracle().eval(), as_tensors(made), 4).tolist() == count(made).tolist()
    assert evaluate(fabric, Oracle(), [], 4).tolist() == np.zeros((4, 4)).tolist()


def test_counts_are_gathered_from_other_processes_once(fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Fabric. A metric that gathers them itself waits for ever for a process that has no image to count."""

    def gather(*arguments: object) -> None:
        raise AssertionError("the metric gathers")

    monkeypatch.setattr("torchmetrics.metric.jit_distributed_available", lambda: True)
    monkeypatch.setattr("torchmetrics.metric.gather_all_tensors", gather)
    made = pairs([(5, 7)])
    assert evaluate(fabric, Oracle(), as_tensors(made), 4).tolist() == count(made).tolist()


def test_scores_follow_their_definition() -> None:
    confusion = count(pairs([(5, 7), (9, 4)]))
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
