"""Losses, weights and thresholds of two processes, played by threads, against one process with both batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from threads import Exchange, in_threads
from u2pl.methods.weighting import ConfidentShare, LambdaU, ReliableShare
from u2pl.pixels.losses import BalancedCrossEntropy, CrossEntropy, OhemCrossEntropy, SymmetricCrossEntropy
from u2pl.pixels.order import at_places, float_keys, float_of_keys
from u2pl.pixels.reliability import class_entropy_thresholds, entropy_threshold, partition
from u2pl.structures import IGNORE_INDEX, PseudoLabel

CLASSES = 4


def pixels(seed: int, ignored: tuple[float, ...] = (0.1, 0.1, 0.8, 0.95)) -> tuple[Tensor, Tensor]:
    """Logits and labels of four images; the share of ignored pixels differs a lot."""
    torch.manual_seed(seed)
    target = torch.randint(0, CLASSES, (4, 6, 7))
    target[torch.rand(4, 6, 7) < torch.tensor(ignored).view(4, 1, 1)] = IGNORE_INDEX
    return torch.randn(4, CLASSES, 6, 7) * 2, target


def compare(loss_of: Callable[..., Any], logits: Tensor, *inputs: Any, several: int = 2) -> None:
    """``loss_of(exchange or None)(logits, *inputs)`` of the halves, averaged, is that of the whole; gradients too."""
    whole = logits.clone().requires_grad_()
    one = loss_of(None)(whole, *inputs)
    one.backward()
    exchange = Exchange(several)
    part = len(logits) // several
    halves = [half.clone().requires_grad_() for half in logits.split(part)]

    def work(rank: int) -> Tensor:
        loss = loss_of(exchange)(halves[rank], *(cut(each, rank, part) for each in inputs))
        loss.backward()
        return loss.detach()

    losses = in_threads(work, several)
    torch.testing.assert_close(sum(losses) / several, one.detach(), rtol=1e-5, atol=1e-6)
    ours = torch.cat([half.grad for half in halves]) / several  # type: ignore[misc]
    torch.testing.assert_close(ours, whole.grad, rtol=1e-5, atol=1e-6)


def cut(value: Any, rank: int, part: int) -> Any:
    if isinstance(value, PseudoLabel):
        return PseudoLabel(*(getattr(value, name)[rank * part : (rank + 1) * part] for name in value.__slots__))
    return value[rank * part : (rank + 1) * part]


LOSSES: dict[str, Callable[[Exchange | None], Any]] = {
    "cross_entropy": lambda e: CrossEntropy(e and e.average),
    "ohem": lambda e: OhemCrossEntropy(0.3, 20, e and e.average, e and e.total),
    "ohem of few": lambda e: OhemCrossEntropy(0.01, 5, e and e.average, e and e.total),
    "ohem of all": lambda e: OhemCrossEntropy(0.01, 10_000, e and e.average, e and e.total),
    "balanced": lambda e: BalancedCrossEntropy(average=e and e.average),
    "symmetric": lambda e: SymmetricCrossEntropy(average=e and e.average),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("several", [2, 4])
def test_losses(name: str, seed: int, several: int) -> None:
    logits, target = pixels(seed)
    compare(LOSSES[name], logits, target, several=several)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("ignored", [(0.0, 0.5, 1.0, 1.0), (1.0, 1.0, 1.0, 1.0)])
def test_a_process_without_a_pixel_to_learn_from(name: str, ignored: tuple[float, ...]) -> None:
    logits, target = pixels(0, ignored)
    compare(LOSSES[name], logits, target)


WEIGHTINGS: dict[str, Callable[[Exchange | None], Any]] = {
    "lambda_u": lambda e: LambdaU(average=e and e.average),
    "lambda_u with a maximum": lambda e: LambdaU(1.2, e and e.average),
    "reliable_share": lambda e: ReliableShare(e and e.average),
    "confident_share": lambda e: ConfidentShare(0.5, e and e.average),
}


@pytest.mark.parametrize("name", WEIGHTINGS)
@pytest.mark.parametrize("loss", ["cross_entropy", "balanced", "symmetric"])
@pytest.mark.parametrize("class_wise", [False, True])
def test_weighted_losses_of_partitioned_pseudo_labels(name: str, loss: str, class_wise: bool) -> None:
    logits, teacher = pixels(0)[0], pixels(1)[0]
    valid = torch.rand(4, 6, 7) > torch.tensor([0.0, 0.1, 0.7, 0.9]).view(4, 1, 1)
    known = pixels(2, (0.7, 0.9, 1.0, 0.8))[1]

    def weighted(exchange: Exchange | None) -> Callable[..., Tensor]:
        def of(logits: Tensor, pseudo: PseudoLabel, known: Tensor) -> Tensor:
            total = exchange and exchange.total
            divided = partition(pseudo, alpha=0.3, class_wise=class_wise, total=total)  # type: ignore[arg-type]
            weighting = WEIGHTINGS[name](exchange)
            return weighting(LOSSES[loss](exchange), logits, divided, known=known, predicted=divided)

        return of

    compare(weighted, logits, PseudoLabel.from_logits(teacher, valid), known)


@pytest.mark.parametrize("alpha", [0.0, 0.13, 0.5, 1.0])
def test_thresholds_are_exactly_those_of_all_pixels(alpha: float) -> None:
    torch.manual_seed(0)
    entropy = torch.rand(4, 30, 30).square()
    entropy[0, :5] = 0.0
    entropy[1, :9] = entropy[2, 0, 0]  # many alike
    label, valid = torch.randint(0, 3, (4, 30, 30)), torch.rand(4, 30, 30) < 0.6
    valid[3] = False
    exchange = Exchange(4)

    def work(rank: int) -> tuple[Tensor, Tensor]:
        mine = slice(rank, rank + 1)
        return (
            entropy_threshold(entropy[mine], valid[mine], alpha, exchange.total),
            class_entropy_thresholds(entropy[mine], label[mine], valid[mine], alpha, exchange.total),
        )

    for gamma, gammas in in_threads(work, 4):
        assert gamma == entropy_threshold(entropy, valid, alpha)
        assert torch.equal(gammas, class_entropy_thresholds(entropy, label, valid, alpha))


def test_without_a_valid_pixel_anywhere_the_threshold_is_infinite() -> None:
    exchange = Exchange(2)
    nothing = torch.zeros(1, 3, 3, dtype=torch.bool)
    found = in_threads(lambda rank: entropy_threshold(torch.rand(1, 3, 3), nothing, 0.2, exchange.total), 2)
    assert [gamma.item() for gamma in found] == [float("inf")] * 2


def test_places_are_those_of_the_sorted_union() -> None:
    torch.manual_seed(0)
    values = [torch.rand(size) * 10 for size in (40, 3, 0)]
    together = torch.cat(values).sort().values
    exchange = Exchange(3)
    places = torch.tensor([[0, 7, 41, 42]])

    def work(rank: int) -> Tensor:
        ordered = float_keys(values[rank]).sort().values
        return float_of_keys(at_places(ordered, torch.zeros(1, dtype=torch.long), places, exchange.total))

    for found in in_threads(work, 3):
        assert torch.equal(found[0], together[places[0]])
