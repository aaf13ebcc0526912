import pickle
from dataclasses import dataclass, fields, replace

import pytest
import torch
from torch import Tensor

from u2pl.data.batches import Batches, Evaluation, step_seed
from u2pl.data.loading import loader
from u2pl.data.transforms import LabeledTransform, UnlabeledTransform
from u2pl.errors import InputError
from u2pl.structures import Crops, Jitter


@dataclass(frozen=True)
class Numbered:
    """A sample of noise made from its number; the mask is the number. ``masked=False`` forbids reading the mask."""

    number: int
    masked: bool = True
    broken: bool = False

    @property
    def name(self) -> str:
        return str(self.number)

    @property
    def has_mask(self) -> bool:
        return self.masked

    def image(self) -> Tensor:
        if self.broken:
            raise InputError(f"image {self.number}.png cannot be read")
        generator = torch.Generator().manual_seed(self.number)
        return torch.randint(256, (3, 20, 24), dtype=torch.uint8, generator=generator)

    def mask(self) -> Tensor:
        assert self.masked, "the mask of an unlabeled image was read"
        return torch.full((20, 24), self.number, dtype=torch.uint8)


def batches(**options) -> Batches:
    defaults = {
        "labeled": [Numbered(i) for i in range(7)],
        "unlabeled": [Numbered(100 + i, masked=False) for i in range(11)],
        "labeled_transform": LabeledTransform(crop_size=16),
        "unlabeled_transform": UnlabeledTransform(crop_size=16),
        "batch_size": 3,
        "steps": 12,
        "seed": 5,
    }
    return Batches(**defaults | options)


def same(first: Crops, second: Crops) -> bool:
    pairs = [(getattr(first, field.name), getattr(second, field.name)) for field in fields(Crops)]
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def test_priors_follow_their_images():
    priors = {str(100 + i): torch.tensor([0.0, -float(i)]) for i in range(11)}
    drawn = batches(priors=priors)
    for step in (0, 5):
        batch, plain = drawn[step], batches()[step]
        assert batch.prior[:, 1].tolist() == [-float(index) for index in drawn.indices(step)[1]]
        assert plain.prior is None
        assert torch.equal(batch.strong_jitter, plain.strong_jitter)


def test_shapes():
    batch = batches(unlabeled_batch_size=2)[0]
    assert (batch.image.shape, batch.image.dtype) == ((3, 3, 16, 16), torch.uint8)
    assert (batch.label.shape, batch.label.dtype) == ((3, 16, 16), torch.uint8)
    assert (batch.unlabeled.shape, batch.unlabeled.dtype) == ((2, 3, 16, 16), torch.uint8)
    assert (batch.image_jitter, batch.strong_jitter.shape) == (None, (2, 29))
    assert (batch.valid.shape, batch.valid.dtype) == ((2, 16, 16), torch.bool)
    assert len(batches()) == 12


def test_without_unlabeled_the_labeled_half_is_unchanged():
    alone = batches(unlabeled=None, unlabeled_transform=None)[4]
    assert alone.unlabeled is alone.strong_jitter is alone.valid is None
    both = batches()[4]
    assert torch.equal(alone.image, both.image)
    assert torch.equal(alone.label, both.label)


@pytest.mark.parametrize("strong_views", [1, 2])
def test_the_truth_changes_nothing_else(strong_views):
    transform = UnlabeledTransform(crop_size=16, strong_views=strong_views)
    unlabeled = [Numbered(100 + i, masked=i % 2 == 0) for i in range(11)]
    plain = batches(unlabeled=unlabeled, unlabeled_transform=transform)
    knowing = batches(unlabeled=unlabeled, unlabeled_transform=transform, truth=True)
    for step in range(3):
        batch = knowing[step]
        assert plain[step].truth is None
        assert (batch.truth.shape, batch.truth.dtype) == ((3, 16, 16), torch.uint8)
        assert same(replace(batch, truth=None), plain[step])
        for truth, valid, index in zip(batch.truth, batch.valid, knowing.indices(step)[1], strict=True):
            assert (truth[~valid] == 255).all()
            assert set(truth[valid].tolist()) == {100 + index if index % 2 == 0 else 255}
    assert batches(unlabeled=None, truth=True)[0].truth is None


def test_a_batch_is_a_function_of_seed_step_and_rank():
    first, second = batches(), batches()
    forwards = [first[step] for step in range(12)]
    torch.manual_seed(123)
    for step in (7, 3, 11, 0, 7):
        assert same(second[step], forwards[step])
    assert not same(forwards[0], forwards[1])
    assert not same(batches(seed=6)[0], forwards[0])
    assert not same(batches(world_size=2, rank=0)[0], batches(world_size=2, rank=1)[0])


def test_transforms_differ_between_steps_and_ranks():
    """With a single image only the crop can differ."""
    one = {"labeled": [Numbered(1)], "unlabeled": None, "batch_size": 1}
    images = [batches(**one)[step].image for step in range(3)] + [batches(**one, rank=1, world_size=2)[0].image]
    assert all(not torch.equal(images[i], images[j]) for i in range(4) for j in range(i))


def test_the_global_generator_does_not_notice():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    batches()[3]
    first = torch.rand(1)
    list(loader(batches(steps=1)))
    assert torch.equal(torch.cat((first, torch.rand(1))), expected)


@pytest.mark.parametrize("world_size", [1, 2])
def test_every_sample_appears_once_per_epoch(world_size):
    ranks = [batches(rank=rank, world_size=world_size, steps=77) for rank in range(world_size)]
    drawn = [[rank.indices(step) for rank in ranks] for step in range(77)]
    for part, count in ((0, 7), (1, 11)):
        order = [index for step in drawn for rank in step for index in rank[part]]
        epochs = [order[i : i + count] for i in range(0, len(order) - count + 1, count)]
        assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) > len(epochs) // 2  # reshuffled


def test_an_epoch_is_shuffled_once_and_does_not_travel(monkeypatch):
    drawn = []
    randperm = torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda count, **options: drawn.append(count) or randperm(count, **options))
    many = batches(labeled=[Numbered(0)] * 1000, unlabeled=[Numbered(100)] * 3000, seed=71)
    order = [many.indices(step) for step in range(12)]
    assert drawn == [1000, 3000]
    assert [many.indices(step) for step in range(12)] == order
    assert len(pickle.dumps(many)) < 20_000


def test_ranks_are_disjoint_within_an_epoch():
    ranks = [batches(labeled=[Numbered(i) for i in range(12)], rank=rank, world_size=4) for rank in range(4)]
    drawn = [index for rank in ranks for index in rank.indices(0)[0]]
    assert sorted(drawn) == list(range(12))


def test_lists_of_equal_length_are_shuffled_independently():
    drawn = batches(unlabeled=[Numbered(100 + i) for i in range(7)], batch_size=7)
    labeled, unlabeled = drawn.indices(0)
    assert labeled != unlabeled


def test_labels_belong_to_the_indices():
    drawn = batches(labeled_transform=LabeledTransform(crop_size=16, scale=(1, 1)))
    for step in range(3):
        assert drawn[step].label[:, 0, 0].tolist() == drawn.indices(step)[0]


def test_batch_larger_than_the_list():
    drawn = batches(labeled=[Numbered(0), Numbered(1)], batch_size=5)
    assert sorted(drawn.indices(0)[0] + drawn.indices(1)[0]) == [0] * 5 + [1] * 5


def test_workers_deliver_the_same_batches_in_order():
    expected = batches()
    got = list(loader(batches(), start=8, workers=2))
    assert len(got) == 4
    assert all(same(batch, expected[8 + i]) for i, batch in enumerate(got))


@pytest.mark.parametrize("workers", [0, 1])
def test_input_error_is_raised_by_the_loader_as_it_was(workers):
    broken = batches(labeled=[Numbered(i, broken=i == 3) for i in range(7)], steps=3)
    assert any(isinstance(broken[step], InputError) for step in range(3))
    with pytest.raises(InputError) as caught:
        list(loader(broken, workers=workers))
    assert str(caught.value) == "image 3.png cannot be read"


@pytest.mark.parametrize("missing", [{"labeled": []}, {"unlabeled": []}])
def test_empty_lists_are_refused(missing):
    with pytest.raises(InputError, match="there is no"):
        batches(**missing)


def test_jitter_is_drawn_for_each_image_and_view_and_moves_no_crop():
    geometry = {"crop_size": 16}
    plain = batches(unlabeled_transform=UnlabeledTransform(**geometry, photometric=False), unlabeled_batch_size=2)[3]
    assert plain.image_jitter is plain.strong_jitter is None
    jittered = batches(
        labeled_transform=LabeledTransform(**geometry, jitter=True),
        unlabeled_transform=UnlabeledTransform(**geometry, strong_views=2),
        unlabeled_batch_size=2,
    )
    crops = jittered[3]
    assert (crops.image_jitter.shape, crops.strong_jitter.shape, crops.strong_views) == ((3, 29), (4, 29), 2)
    drawn = torch.cat([jittered[step].strong_jitter for step in range(12)])
    assert len(drawn.unique(dim=0)) > 40
    labeled = Jitter(torch.cat([jittered[step].image_jitter for step in range(12)]))
    assert not labeled.gray.any()
    assert (labeled.kernel[:, 4] == 1).all()
    assert labeled.hue.count_nonzero() > 20
    for name in ("image", "label", "unlabeled", "valid"):
        assert torch.equal(getattr(crops, name), getattr(plain, name))


def test_steps_end():
    with pytest.raises(IndexError):
        batches()[12]


def test_evaluation_gives_whole_images():
    evaluation = Evaluation([Numbered(4), Numbered(9), Numbered(2, broken=True), Numbered(6)])
    assert len(evaluation) == 4
    image, mask = evaluation[1]
    assert torch.equal(image, Numbered(9).image())
    assert (mask.dtype, mask.shape, mask.unique().tolist()) == (torch.uint8, (20, 24), [9])
    assert isinstance(evaluation[2], InputError)
    shared = [mask[0, 0].item() for _, mask in loader(evaluation, start=1, stride=2)]
    assert shared == [9, 6]
    with pytest.raises(InputError, match=r"2\.png"):
        list(loader(evaluation, stride=2))


def test_step_seed_is_stable_and_sensitive():
    assert step_seed(0, 1, 2) == 4727102316523150270
    assert len({step_seed(*numbers) for numbers in ((0,), (0, 0), (0, 1), (1, 0), (0, 1, 2), (0, 12), (0, 2, 1))}) == 7
    assert all(0 <= step_seed(0, i) < 2**63 for i in range(100))


def two_domains(**options) -> Batches:
    """Seven labeled samples of the source, three of the target."""
    return batches(labeled=[Numbered(i) for i in range(10)], target_labeled=3, **options)


@pytest.mark.parametrize(("batch_size", "world_size"), [(1, 1), (3, 1), (4, 1), (1, 2), (2, 2), (3, 2), (8, 1)])
def test_source_and_target_take_turns(batch_size, world_size):
    """Two sequences, dealt out one by one: each domain's samples all appear once before any appears again."""
    steps = 42
    ranks = [
        two_domains(batch_size=batch_size, world_size=world_size, rank=rank, steps=steps) for rank in range(world_size)
    ]
    dealt = [index for step in range(steps) for rank in ranks for index in rank.indices(step)[0]]
    source, target = dealt[::2], dealt[1::2]
    for drawn, known in ((source, range(7)), (target, range(7, 10))):
        for first in range(0, len(drawn) - len(known) + 1, len(known)):
            assert sorted(drawn[first : first + len(known)]) == [*known]
    assert len({tuple(target[first : first + 3]) for first in range(0, 18, 3)}) > 1  # another order in each epoch
    if batch_size % 2 == 0:
        for step in range(steps):
            for rank in ranks:
                assert sum(index >= 7 for index in rank.indices(step)[0]) == batch_size // 2


def test_source_and_target_of_equal_length_are_shuffled_independently():
    labeled, _ = batches(labeled=[Numbered(i) for i in range(14)], target_labeled=7, batch_size=14).indices(0)
    assert labeled[::2] != [index - 7 for index in labeled[1::2]]


def test_labels_of_two_domains_are_a_function_of_seed_and_step():
    forwards = [two_domains().indices(step) for step in range(12)]
    backwards = two_domains()
    assert [backwards.indices(step) for step in reversed(range(12))] == forwards[::-1]
    assert two_domains(seed=6).indices(0) != forwards[0]
    assert [unlabeled for _, unlabeled in forwards] == [batches().indices(step)[1] for step in range(12)]


@pytest.mark.parametrize("target_labeled", [0, 7])
def test_labels_of_one_domain_are_one_sequence(target_labeled):
    """Of the source alone, or of the target alone."""
    drawn = batches(target_labeled=target_labeled)
    assert [drawn.indices(step) for step in range(12)] == [batches().indices(step) for step in range(12)]
