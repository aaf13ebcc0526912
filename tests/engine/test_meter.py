"""Means of losses, and the first number that was not finite."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from u2pl.engine.fit import gradient_norm
from u2pl.engine.meter import Meter, all_finite, diverged
from u2pl.errors import InputError

ONE = torch.tensor(1.0)


def test_it_reads_means_and_starts_over() -> None:
    meter = Meter()
    meter.add({"a": ONE})
    meter.add({"a": 3 * ONE, "b": 5 * ONE})
    read = meter.read()
    assert read.pop("steps_per_second") > 0
    assert read.pop("waiting") == 0
    assert read == {"loss/a": 2.0, "loss/b": 5.0}  # b was there once, and its mean is of that one time
    meter.add({"a": 7 * ONE})
    assert meter.read()["loss/a"] == 7.0


def test_it_knows_how_long_data_are_waited_for() -> None:
    def slow() -> Iterator[int]:
        for number in range(3):
            time.sleep(0.05)
            yield number

    meter = Meter()
    found = []
    for number in meter.timed(slow()):
        found.append(number)
        time.sleep(0.02)
        meter.add({"a": ONE})
    assert found == [0, 1, 2]
    assert 0.4 < meter.read()["waiting"] < 0.95
    assert meter.waited == 0


def test_it_holds_no_graph() -> None:
    meter = Meter()
    meter.add({"a": torch.tensor(1.0, requires_grad=True)})
    assert not meter.sums["a"].requires_grad


def test_it_goes_on_where_it_was() -> None:
    meter, other = Meter(), Meter()
    meter.add({"a": ONE})
    other.load_state_dict(meter.state_dict())
    other.add({"a": 4 * ONE})
    assert other.read()["loss/a"] == 2.5


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_first_term_that_is_not_finite_is_named_with_its_step(value: float) -> None:
    meter = Meter()
    for step in range(9):
        losses = {"a": ONE, "b": ONE if step < 6 else torch.tensor(value)}
        meter.add(losses, step=step, gradient=ONE if step < 6 else torch.tensor(value))
    told = r"the b loss is not finite at step 6; runs/x keeps the weights of step 4; lower train\.lr$"
    with pytest.raises(InputError, match=told):
        diverged(meter, [ONE], step=9, saved=4, folder="runs/x")


def test_a_weight_that_makes_a_loss_infinite_is_named() -> None:
    meter = Meter()
    meter.add({"a": ONE, "b": 1e30 * ONE}, step=2, weights={"b": 1e30}, gradient=torch.tensor(math.nan))
    with pytest.raises(InputError, match=r"the b loss is not finite at step 2; lower method\.loss_weights\.b$"):
        diverged(meter, [ONE], step=3, saved=None, folder="runs/x")


def test_gradients_and_weights_are_watched_too() -> None:
    meter = Meter()
    meter.add({"a": ONE}, step=0, gradient=ONE)
    diverged(meter, [ONE, torch.tensor(3)], step=1, saved=None, folder="runs/x")
    with pytest.raises(InputError, match="the weights are not finite at step 0"):
        diverged(meter, [ONE, torch.tensor([1.0, math.nan])], step=1, saved=None, folder="runs/x")
    meter.add({"a": ONE}, step=1, gradient=torch.tensor(math.inf))
    with pytest.raises(InputError, match="the gradient is not finite at step 1"):
        diverged(meter, [ONE], step=2, saved=None, folder="runs/x")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_all_finite(dtype: torch.dtype) -> None:
    tensors = [torch.ones(3, dtype=dtype), torch.ones(2, 2, dtype=dtype), torch.zeros(0), torch.tensor(5)]
    assert all_finite(tensors)
    for bad in (math.nan, math.inf, -math.inf):
        tensors[1][1, 0] = bad
        assert not all_finite(tensors)


def test_a_loss_scaler_skips_bad_gradients_itself() -> None:
    student = torch.nn.Linear(2, 1)
    student(torch.ones(1, 2)).sum().backward()
    for scaler, expected in ((None, 3**0.5), (object(), None)):
        fabric: Any = SimpleNamespace(_precision=SimpleNamespace(scaler=scaler))
        norm = gradient_norm(fabric, student)
        assert norm is None if expected is None else norm == pytest.approx(expected)
