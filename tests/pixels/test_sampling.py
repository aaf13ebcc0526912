import pytest
import torch

from u2pl.pixels.sampling import draw_members, stratified


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("number", [1, 5, 16])
def test_stratified_stays_inside_and_does_not_repeat(seed: int, number: int) -> None:
    torch.manual_seed(seed)
    count = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 9, 15, 16, 17, 20, 31, 33, 1000, 300_000])
    for _ in range(20):
        index = stratified(count, number)
        assert index.shape == (len(count), number)
        for size, row in zip(count.tolist(), index.tolist(), strict=True):
            if size == 0:
                assert set(row) == {0}
                continue
            assert min(row) >= 0
            assert max(row) < size
            assert len(set(row)) == min(size, number)


@pytest.mark.parametrize(("size", "number"), [(3, 2), (7, 3), (10, 4), (16, 5), (12, 6)])
def test_every_element_of_a_large_set_is_as_likely(size: int, number: int) -> None:
    torch.manual_seed(0)
    rounds = 6000
    index = stratified(torch.full((rounds,), size), number)
    seen = torch.bincount(index.flatten(), minlength=size).double()
    expected = rounds * number / size
    chi_square = ((seen - expected) ** 2 / expected).sum().item()
    assert chi_square < size - 1 + 5 * (2 * (size - 1)) ** 0.5


def test_every_pair_of_elements_can_meet() -> None:
    torch.manual_seed(0)
    index = stratified(torch.full((4000,), 9), 3)
    pairs = {tuple(sorted(pair)) for row in index.tolist() for pair in (row[:2], row[1:], row[::2])}
    assert len(pairs) == 36


def test_a_small_set_is_gone_through_evenly() -> None:
    index = stratified(torch.tensor([3]), 8)
    assert sorted(torch.bincount(index[0], minlength=3).tolist()) == [2, 3, 3]
    for size in range(1, 9):
        first = stratified(torch.tensor([size]), 8)[0, :size]
        assert sorted(first.tolist()) == list(range(size))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
def test_members_belong_to_their_set(seed: int, share: float) -> None:
    torch.manual_seed(seed)
    mask = torch.rand(6, 40) < share
    mask[2] = False
    index, count = draw_members(mask, 7)
    assert index.shape == (6, 7)
    for row in range(6):
        members = {place for place in range(40) if mask[row, place]}
        drawn = index[row].tolist()
        assert count[row] == len(members)
        if members:
            assert set(drawn) <= members
            assert len(set(drawn)) == min(7, len(members))


def test_an_empty_set_gives_an_index_that_can_be_read() -> None:
    index, count = draw_members(torch.zeros(3, 9, dtype=torch.bool), 4)
    assert count.tolist() == [0, 0, 0]
    assert ((index >= 0) & (index < 9)).all()


def test_members_at_both_ends_are_found() -> None:
    mask = torch.zeros(1, 10, dtype=torch.bool)
    mask[0, 0] = mask[0, 9] = True
    index, count = draw_members(mask, 2)
    assert sorted(index[0].tolist()) == [0, 9]
    assert count.tolist() == [2]


def test_members_are_drawn_evenly() -> None:
    torch.manual_seed(0)
    mask = torch.zeros(3000, 30, dtype=torch.bool)
    members = [0, 4, 5, 11, 18, 28, 29]
    mask[:, members] = True
    index, _ = draw_members(mask, 3)
    seen = torch.bincount(index.flatten(), minlength=30)
    assert int(seen.sum()) == int(seen[members].sum())
    assert seen[members].tolist() == pytest.approx([3000 * 3 / 7] * 7, rel=0.12)


def test_draws_repeat_under_a_seed_only() -> None:
    mask = torch.ones(2, 100, dtype=torch.bool)
    torch.manual_seed(3)
    first, second = draw_members(mask, 9)[0], draw_members(mask, 9)[0]
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    torch.manual_seed(3)
    assert torch.equal(draw_members(mask, 9)[0], first)
