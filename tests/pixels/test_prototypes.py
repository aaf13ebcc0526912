"""Prototypes and denoising against loops over classes and pixels."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from u2pl.pixels import Prototypes, PrototypicalDenoising

C, D = 4, 3


def random_step(absent: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
    count = torch.randint(1, 6, (C,)).float()
    count[list(absent)] = 0
    return torch.randn(C, D) * count.unsqueeze(1), count


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("momentum", [0.999, 0.6, 0.0])
def test_against_a_loop(seed: int, momentum: float) -> None:
    torch.manual_seed(seed)
    prototypes = Prototypes(C, D, momentum=momentum)
    value: list[list[float] | None] = [None] * C
    seen = [0] * C
    for step in range(6):
        total, count = random_step(absent=(1, step % 3))  # class 1 never comes
        prototypes.update(total, count)
        for c in range(C):
            if count[c] == 0:
                continue
            seen[c] += 1
            m = min(1 - 1 / seen[c], momentum)
            centre = (total[c] / count[c]).tolist()
            old = value[c] or [0.0] * D
            value[c] = [m * a + (1 - m) * b for a, b in zip(old, centre, strict=True)]
        assert prototypes.updates.tolist() == seen
        assert prototypes.known.tolist() == [each is not None for each in value]
        for c in range(C):
            assert prototypes.value[c].tolist() == pytest.approx(value[c] or [0.0] * D, abs=1e-5)


def test_an_absent_class_keeps_its_prototype_and_a_step_that_overflowed_changes_none() -> None:
    torch.manual_seed(0)
    prototypes = Prototypes(C, D)
    prototypes.update(*random_step())
    before = prototypes.value.clone()
    prototypes.update(torch.zeros(C, D), torch.zeros(C))
    assert torch.equal(prototypes.value, before)
    total, count = random_step()
    total[2, 0], total[3, 1] = torch.inf, torch.nan
    prototypes.update(total, count)
    assert torch.equal(prototypes.value[2:], before[2:])
    assert not torch.equal(prototypes.value[:2], before[:2])
    assert prototypes.updates.tolist() == [2, 2, 1, 1]


def test_processes_share_sums_and_counts() -> None:
    """The prototype is the centre of the pixels of both processes, not the mean of their centres."""
    torch.manual_seed(1)
    (mine, few), (others, many) = random_step(absent=(0,)), random_step(absent=(3,))
    shared = Prototypes(C, D, reduce=lambda both: both + torch.cat((others, many.unsqueeze(1)), dim=1))
    shared.update(mine, few)
    torch.testing.assert_close(shared.value, (mine + others) / (few + many).unsqueeze(1))


def loop_weight(prototypes: Prototypes, embedding: Tensor, temperature: float) -> Tensor:
    weight = torch.zeros(len(embedding), C, *embedding.shape[-2:])
    known = [c for c in range(C) if prototypes.updates[c] > 0]
    for b, y, x in product(range(len(embedding)), range(embedding.shape[2]), range(embedding.shape[3])):
        z = F.normalize(embedding[b, :, y, x], dim=0)
        nearness = {}
        for c in known:
            distance = (z - F.normalize(prototypes.value[c], dim=0)).norm().item()
            nearness[c] = math.exp(-distance / temperature)
        for c in range(C):
            weight[b, c, y, x] = nearness[c] / sum(nearness.values()) if c in known else 1 / max(1, len(known))
    return weight


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("temperature", [1.0, 0.2])
@pytest.mark.parametrize("absent", [(), (1,), (0, 1, 3), (0, 1, 2, 3)])
@pytest.mark.parametrize("batch", [1, 2])
def test_weights_against_a_loop(seed: int, temperature: float, absent: tuple[int, ...], batch: int) -> None:
    torch.manual_seed(seed)
    prototypes = Prototypes(C, D)
    prototypes.update(*random_step(absent))
    embedding = torch.randn(batch, D, 3, 2)
    denoising = PrototypicalDenoising(prototypes, temperature)
    expected = loop_weight(prototypes, embedding, temperature)
    torch.testing.assert_close(denoising.weight(embedding), expected, rtol=1e-4, atol=1e-5)

    logits = torch.randn(batch, C, 5, 3)  # corner to corner, as the network's own scores are resized
    denoised = denoising(logits, embedding).softmax(dim=1)
    for b, y, x in product(range(batch), range(5), range(3)):
        row, column = y / 2, x / 2
        top, left = min(int(row), 1), min(int(column), 0)
        down, right = row - top, column - left
        w = (1 - down) * ((1 - right) * expected[b, :, top, left] + right * expected[b, :, top, left + 1])
        w += down * ((1 - right) * expected[b, :, top + 1, left] + right * expected[b, :, top + 1, left + 1])
        p = logits[b, :, y, x].softmax(dim=0) * w
        torch.testing.assert_close(denoised[b, :, y, x], p / p.sum(), rtol=1e-4, atol=1e-5)


def test_without_a_prototype_and_at_equal_distances_nothing_changes() -> None:
    torch.manual_seed(0)
    prototypes = Prototypes(C, D)
    logits, embedding = torch.randn(2, C, 4, 4), torch.randn(2, D, 2, 2)
    denoising = PrototypicalDenoising(prototypes)
    torch.testing.assert_close(denoising(logits, embedding), logits)
    prototypes.update(torch.ones(C, D), torch.tensor([1.0, 1, 0, 1]))
    torch.testing.assert_close(denoising(logits, embedding).softmax(dim=1), logits.softmax(dim=1))


def test_the_class_of_the_nearest_prototype_gains() -> None:
    prototypes = Prototypes(3, 3)
    prototypes.update(torch.eye(3), torch.ones(3))
    embedding = torch.tensor([0.0, 5.0, 0.1]).view(1, 3, 1, 1)
    logits = torch.tensor([1.0, 0.5, 0.5]).view(1, 3, 1, 1)
    sharp = PrototypicalDenoising(prototypes, temperature=0.01)
    assert sharp(logits, embedding).isfinite().all()
    assert sharp(logits, embedding).argmax().item() == 1
    assert PrototypicalDenoising(prototypes)(logits, embedding).argmax().item() == 1
    assert PrototypicalDenoising(prototypes, temperature=10.0)(logits, embedding).argmax().item() == 0


def test_half_precision_embeddings_are_compared_in_single_precision() -> None:
    torch.manual_seed(0)
    prototypes = Prototypes(C, D)
    prototypes.update(*random_step())
    embedding = torch.randn(1, D, 3, 3).bfloat16()
    denoising = PrototypicalDenoising(prototypes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weight = denoising.weight(embedding)
    torch.testing.assert_close(weight, denoising.weight(embedding.float()))
