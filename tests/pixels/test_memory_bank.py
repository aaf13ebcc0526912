from collections import deque

import pytest
import torch

from u2pl.pixels.memory_bank import MemoryBank

CAPACITY = (5, 8, 4)


def push_at_random(bank: MemoryBank, queues: list[deque[tuple[float, ...]]], rounds: int, share: float = 0.6) -> None:
    for _ in range(rounds):
        keys, keep = torch.randn(len(bank), 4, 2), torch.rand(len(bank), 4) < share
        bank.push(keys, keep)
        for c, queue in enumerate(queues):
            queue.extend(tuple(keys[c, k].tolist()) for k in range(4) if keep[c, k])


def held(bank: MemoryBank) -> list[set[tuple[float, ...]]]:
    return [{tuple(key) for key in of_class.tolist()} for of_class in bank.draw(max(CAPACITY))]


def new_queues() -> list[deque[tuple[float, ...]]]:
    return [deque(maxlen=size) for size in CAPACITY]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.2, 0.6, 1.0])
def test_holds_what_a_list_of_queues_holds(seed: int, share: float) -> None:
    torch.manual_seed(seed)
    bank, queues = MemoryBank(CAPACITY, 2), new_queues()
    for _ in range(12):
        push_at_random(bank, queues, 1, share)
        assert bank.fill.tolist() == [len(queue) for queue in queues]
        for queue, keys in zip(queues, held(bank), strict=True):
            if queue:
                assert keys == set(queue)


def test_a_class_without_keys_stays_empty() -> None:
    bank = MemoryBank(CAPACITY, 2)
    assert len(bank) == 3
    assert bank.fill.tolist() == [0, 0, 0]
    keep = torch.tensor([[True] * 4, [False] * 4, [False, False, True, False]])
    for _ in range(5):
        bank.push(torch.ones(3, 4, 2) * torch.arange(1, 4).view(3, 1, 1), keep)
    assert bank.fill.tolist() == [5, 0, 4]
    drawn = bank.draw(6)
    assert drawn.shape == (3, 6, 2)
    assert (drawn[0] == 1).all()
    assert (drawn[2] == 3).all()


def test_a_draw_repeats_no_key_and_reaches_all() -> None:
    torch.manual_seed(0)
    bank, queues = MemoryBank(CAPACITY, 2), new_queues()
    push_at_random(bank, queues, 10)
    reached: list[set[tuple[float, ...]]] = [set(), set(), set()]
    for _ in range(60):
        for c, keys in enumerate(bank.draw(3).tolist()):
            assert len({tuple(key) for key in keys}) == 3
            reached[c] |= {tuple(key) for key in keys}
    assert reached == [set(queue) for queue in queues]


def test_too_many_keys_for_one_push() -> None:
    bank = MemoryBank(CAPACITY, 2)
    bank.push(torch.randn(3, 4, 2), torch.ones(3, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="5 keys do not fit a queue of 4"):
        bank.push(torch.randn(3, 5, 2), torch.zeros(3, 5, dtype=torch.bool))


def test_a_saved_bank_goes_on_as_the_one_that_was_saved() -> None:
    torch.manual_seed(1)
    bank, queues = MemoryBank(CAPACITY, 2), new_queues()
    push_at_random(bank, queues, 3)
    copy = MemoryBank(CAPACITY, 2)
    copy.load_state_dict({name: value.clone() for name, value in bank.state_dict().items()})
    assert copy.fill.tolist() == bank.fill.tolist()
    for _ in range(4):
        keys, keep = torch.randn(3, 4, 2), torch.rand(3, 4) < 0.5
        for one in (bank, copy):
            one.push(keys, keep)
        torch.manual_seed(2)
        expected = bank.draw(3)
        torch.manual_seed(2)
        assert torch.equal(copy.draw(3), expected)


def test_the_truth_of_a_key_stays_with_it() -> None:
    torch.manual_seed(3)
    bank, queues = MemoryBank(CAPACITY, 2, keep_truth=True), new_queues()
    assert bank.truth is not None
    for step in range(9):
        keys, keep, truth = torch.randn(3, 4, 2), torch.rand(3, 4) < 0.6, torch.randint(0, 255, (3, 4))
        bank.push(keys, keep, truth if step != 5 else None)  # a push that does not know writes over what was known
        truth = truth if step != 5 else torch.full_like(truth, 255)
        for c, queue in enumerate(queues):
            queue.extend((*keys[c, k].tolist(), float(truth[c, k])) for k in range(4) if keep[c, k])
        for start, queue in zip(bank.start.tolist(), queues, strict=True):
            rows = slice(start, start + len(queue))
            held_now = torch.cat((bank.keys[rows], bank.truth[rows].unsqueeze(1).float()), dim=1).tolist()
            assert {tuple(row) for row in held_now} == set(queue)


def test_a_bank_keeps_the_truth_only_if_asked_and_draws_the_same() -> None:
    plain, knowing = MemoryBank(CAPACITY, 2), MemoryBank(CAPACITY, 2, keep_truth=True)
    assert set(knowing.state_dict()) - set(plain.state_dict()) == {"truth"}
    torch.manual_seed(0)
    for bank in (plain, knowing):
        generator = torch.Generator().manual_seed(4)
        for _ in range(5):
            keys = torch.randn(3, 4, 2, generator=generator)
            bank.push(keys, torch.rand(3, 4, generator=generator) < 0.5, torch.randint(0, 9, (3, 4)))
    assert torch.equal(plain.keys, knowing.keys)
    torch.manual_seed(1)
    expected = plain.draw(3)
    torch.manual_seed(1)
    assert torch.equal(knowing.draw(3), expected)
    again = MemoryBank(CAPACITY, 2, keep_truth=True)
    again.load_state_dict(knowing.state_dict())
    assert torch.equal(again.truth, knowing.truth)


def test_keys_are_written_in_place_and_without_a_graph() -> None:
    bank = MemoryBank(CAPACITY, 2)
    storage = bank.keys.data_ptr()
    for _ in range(6):
        keys = torch.randn(3, 4, 2, requires_grad=True, dtype=torch.bfloat16)
        bank.push(keys, torch.rand(3, 4) > 0.3)
    assert bank.keys.data_ptr() == storage
    assert bank.keys.dtype == torch.float32
    assert not bank.keys.requires_grad
    before = bank.draw(2)
    kept = before.clone()
    bank.push(torch.randn(3, 4, 2), torch.ones(3, 4, dtype=torch.bool))
    assert torch.equal(before, kept)  # a draw is a copy, safe from later pushes
