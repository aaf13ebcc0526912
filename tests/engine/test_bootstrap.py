"""Whether unlabeled images helped: the bootstrap against loops, and what a run says at its end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny_run import KillAt, KilledError
from u2pl.engine.bootstrap import Gain, gain, group_count, interval, miou, verdict
from u2pl.engine.evaluate import Scores

Train = Callable[..., Any]


def areas(images: int, classes: int, seed: int) -> torch.Tensor:
    random = np.random.default_rng(seed)
    union = random.integers(0, 50, (images, classes))
    return torch.from_numpy(np.stack((random.integers(0, union + 1), union), axis=1))


def miou_loop(drawn: list[int], areas: torch.Tensor | np.ndarray) -> float:
    found = []
    for index in range(areas.shape[2]):
        hit = sum(int(areas[image, 0, index]) for image in drawn)
        union = sum(int(areas[image, 1, index]) for image in drawn)
        if union:
            found.append(100 * hit / union)
    return sum(found) / len(found) if found else 0.0


def test_miou_of_draws_is_that_of_a_loop_over_images() -> None:
    some = areas(6, 4, seed=0)
    some[:, :, 2] = 0  # a class that no image shows
    draws = [[0, 0, 1, 5, 5, 5], [2, 3, 4, 1, 0, 5], [4] * 6]
    times = torch.tensor([[draw.count(image) for image in range(6)] for draw in draws], dtype=torch.float64)
    assert miou(times, some).tolist() == pytest.approx([miou_loop(draw, some) for draw in draws])
    assert miou(times, torch.zeros_like(some)).tolist() == [0, 0, 0]


def test_the_gain_is_the_difference_and_its_interval_that_of_many_draws() -> None:
    before, after = areas(30, 3, seed=1), areas(30, 3, seed=2)
    found = gain(before, after)
    every = list(range(30))
    assert found.points == pytest.approx(miou_loop(every, after) - miou_loop(every, before))
    assert found.images == 30
    draws = torch.randint(30, (2000, 30), generator=torch.Generator().manual_seed(0)).tolist()
    one, other = before.numpy(), after.numpy()  # faster
    loops = [(miou_loop(draw, one), miou_loop(draw, other)) for draw in draws]
    low, high = np.quantile([after - before for before, after in loops], (0.025, 0.975))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert interval(after) == pytest.approx(tuple(np.quantile([after for _, after in loops], (0.025, 0.975))))
    assert gain(before, after) == found  # the same draws each time


def test_alike_images_are_drawn_together() -> None:
    before, after = areas(14, 3, seed=7), areas(14, 3, seed=8)
    numbers = [9, 9, 4, 4, 4, 0, 2, 2, 0, 7, 5, 5, 5, 5]  # of groups of different sizes, in any order
    members = [[image for image in range(14) if numbers[image] == number] for number in sorted(set(numbers))]
    loops = []
    for draw in torch.randint(6, (2000, 6), generator=torch.Generator().manual_seed(0)).tolist():
        drawn = [image for group in draw for image in members[group]]
        loops.append((miou_loop(drawn, before.numpy()), miou_loop(drawn, after.numpy())))
    groups = torch.tensor(numbers)
    found = gain(before, after, groups)
    low, high = np.quantile([after - before for before, after in loops], (0.025, 0.975))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert (found.images, found.groups) == (14, 6)
    assert found.points == gain(before, after).points
    assert interval(after, groups) == pytest.approx(tuple(np.quantile([after for _, after in loops], (0.025, 0.975))))


def test_copies_of_an_image_say_no_more_than_one() -> None:
    before, after = areas(8, 3, seed=1), areas(8, 3, seed=2)
    copied = gain(before.repeat(20, 1, 1), after.repeat(20, 1, 1), torch.arange(8).repeat(20))
    once = gain(before, after)
    assert (copied.points, copied.low, copied.high) == pytest.approx((once.points, once.low, once.high))
    assert (copied.images, copied.groups) == (160, 8)


def test_groups_of_one_image_are_images_and_few_groups_give_no_interval() -> None:
    before, after = areas(12, 3, seed=1), areas(12, 3, seed=2)
    assert gain(before, after, torch.arange(12).flip(0)) == gain(before, after)
    assert group_count(torch.arange(12)) is group_count(None) is None
    assert gain(before, after, torch.arange(12) % 5).low is not None
    few = torch.arange(12) % 4
    found = gain(before, after, few)
    assert found == Gain(gain(before, after).points, None, None, 12, 4)
    assert (found.helps, found.harms) == (False, False)
    assert found.between() is interval(after, few) is None


def test_equal_networks_and_a_single_image() -> None:
    some = areas(7, 3, seed=4)
    assert gain(some, some) == Gain(0.0, 0.0, 0.0, 7)
    one, other = areas(1, 3, seed=5), areas(1, 3, seed=6)
    alone = gain(one, other)
    assert alone.low == alone.high == pytest.approx(alone.points)


@pytest.mark.parametrize(
    ("found", "begins", "advises"),
    [
        (Gain(3.1, 1.2, 4.8, 101), "unlabeled images helped: +3.1 mIoU", False),
        (Gain(-1.0, -2.2, -0.1, 101), "unlabeled images did harm: -1.0 mIoU", True),
        (Gain(0.4, -0.2, 1.0, 101), "unlabeled images made no clear difference: +0.4 mIoU", False),
        (Gain(0.0, 0.0, 0.0, 9), "unlabeled images made no clear difference: +0.0 mIoU", False),
        (Gain(3.1, 1.2, 4.8, 101, 12), "unlabeled images helped: +3.1 mIoU", False),
    ],
)
def test_what_is_said(found: Gain, begins: str, *, advises: bool) -> None:
    line = verdict(found, folder=Path("runs/a b"), warmup=480)
    assert line.startswith(begins)
    assert "(480 steps)" in line
    assert f"interval {found.low:+.1f} to {found.high:+.1f} over {found.images} validation images" in line
    assert ("u2pl predict 'runs/a b' --weights best" in line) == advises
    assert line.endswith(" in 12 groups") == (found.groups == 12)


@pytest.mark.parametrize(("groups", "of"), [(4, "4 groups"), (1, "one group")])
def test_of_few_groups_it_is_not_said_that_unlabeled_images_helped(groups: int, of: str) -> None:
    assert verdict(Gain(3.1, None, None, 101, groups), folder=Path("run"), warmup=480) == (
        "unlabeled images: +3.1 mIoU since the warm-up, which saw labels only (480 steps); the 101 validation images "
        f"are of {of}, too few to say whether that is chance"
    )


def said_by(train: Train, out: Path, *overrides: str, **options: Any) -> tuple[list[str], dict[str, Scores]]:
    said: list[str] = []
    return said, train(out, "data.val=5", *overrides, say=said.append, **options).scores


def verdicts(said: list[str]) -> list[str]:
    return [line for line in said if line.startswith("unlabeled images")]


def test_a_run_compares_its_end_with_the_end_of_its_warmup(tmp_path: Path, tiny_train: Train) -> None:
    said, scores = said_by(tiny_train, tmp_path, "train.eval_every=16")
    teacher = scores["teacher"].areas
    supervised = torch.load(tmp_path / "last.ckpt", weights_only=True)["supervised"]
    assert teacher is not None
    assert supervised.shape == teacher.shape == (5, 2, 10)
    assert not torch.equal(supervised, teacher)
    assert verdicts(said) == [verdict(gain(supervised, teacher), folder=tmp_path, warmup=4)]


@pytest.mark.parametrize("kill", [3, 9])
def test_a_resumed_run_says_the_same(tmp_path: Path, tiny_train: Train, kill: int) -> None:
    overrides = ("train.eval_every=16", "train.save_every=1")
    whole, _ = said_by(tiny_train, tmp_path / "whole", *overrides)
    with pytest.raises(KilledError):
        said_by(tiny_train, tmp_path / "killed", *overrides, watchers=(KillAt(kill),))
    said, _ = said_by(tiny_train, tmp_path / "killed", *overrides, resume=True)
    assert len(verdicts(said)) == 1
    assert verdicts(said) == [line.replace("whole", "killed") for line in verdicts(whole)]
    again, _ = said_by(tiny_train, tmp_path / "killed", *overrides, resume=True)  # it is finished
    assert verdicts(again) == verdicts(said)


@pytest.mark.parametrize(
    "overrides",
    [
        ("train.eval_every=0",),  # one validation, at the end
        ("train.eval_every=8", "data.val=3"),  # too few to say anything
        ("train.eval_every=8", "method.name=supervised"),
        ("train.eval_every=8", "method.name=fixmatch"),
        ("train.eval_every=8", "method.schedule.warmup=0"),
    ],
)
def test_runs_that_have_nothing_to_compare(tmp_path: Path, tiny_train: Train, overrides: tuple[str, ...]) -> None:
    said, _ = said_by(tiny_train, tmp_path, *overrides)
    assert verdicts(said) == []
