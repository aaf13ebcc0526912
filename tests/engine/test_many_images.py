"""Many images: which are processed together, in which order they come back, and what threads share."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from u2pl.engine.inference import Segment
from u2pl.engine.many_images import batches, in_order, segment_many, twin
from u2pl.structures import SegmentationOutput

CPU, CUDA = torch.device("cpu"), torch.device("cuda")  # nothing here touches the latter
Image = tuple[str, tuple[int, int]]


class Noting(nn.Module):
    """A layer, and a note of the image that it works on, as some transformers keep."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 4, 3, padding=1)
        self.register_buffer("shift", torch.ones(1))
        self.note: Any = None

    def forward(self, image: Tensor) -> SegmentationOutput:
        self.note = image
        logits = self.layer(image) + self.shift
        assert self.note is image  # no other thread has written its own
        return SegmentationOutput(logits, logits)


@pytest.fixture
def cores() -> Iterator[None]:
    """Four threads, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("u2pl.engine.many_images.whole_pixels", lambda *_: 100)


def size(item: Image) -> tuple[int, int]:
    return item[1]


def named(sizes: Sequence[tuple[int, int]]) -> list[Image]:
    return [(f"{number}", size) for number, size in enumerate(sizes)]


def test_batches_are_of_one_size_and_lose_nothing() -> None:
    items = named([(2, 3), (3, 2), (2, 3), (9, 9), (3, 2), (2, 3)] * 9)
    made = list(batches(items, size=size, pixels=24))
    assert sorted(item for some in made for item in some) == sorted(items)
    for some in made:
        assert len({size(item) for item in some}) == 1
        assert len(some) == 1 or sum(h * w for _, (h, w) in some) <= 24
        assert [int(name) for name, _ in some] == sorted(int(name) for name, _ in some)
    lengths = [len(some) for some in made if size(some[0]) == (2, 3)]
    assert set(lengths[:-1]) == {4}
    assert [len(some) for some in made if size(some[0]) == (9, 9)] == [1] * 9  # larger than all that fits


def test_batches_have_a_largest_number_of_images() -> None:
    assert [len(some) for some in batches(named([(1, 1)] * 20), size=size, pixels=10**9)] == [8, 8, 4]


def test_few_images_wait_for_others_of_their_size() -> None:
    """An image of a rare size is not kept to the end."""
    given: list[Image] = []

    def items() -> Iterator[Image]:
        for item in named([(1, 1), *((2 + n, 3 + n) for n in range(60))]):
            given.append(item)
            yield item

    for done, some in enumerate(batches(items(), size=size, pixels=10**9), start=1):
        assert len(some) == 1
        assert some[0] == given[done - 1]  # the one that has waited longest
        assert len(given) - done < 16


def test_results_come_by_number() -> None:
    done = [([(1, "b"), (3, "d")], "BD"), ([(0, "a")], "A"), ([(4, "e")], "E"), ([(2, "c"), (5, "f")], "CF")]
    pairs = in_order(each for each in done)
    assert list(pairs) == [("a", "A"), ("b", "B"), ("c", "C"), ("d", "D"), ("e", "E"), ("f", "F")]
    early = in_order(each for each in [*done[:2], None])  # type: ignore[misc]
    assert [next(early), next(early)] == [("a", "A"), ("b", "B")]  # before the rest is there


def test_a_twin_has_modules_of_its_own_and_the_same_tensors() -> None:
    network = Noting().eval()
    other: Any = twin(network)
    assert other.layer is not network.layer
    assert other.layer.weight is network.layer.weight
    assert other.shift is network.shift
    assert not other.training


def classes(segment: Segment, some: Sequence[tuple[int, Tensor]]) -> list[Tensor]:
    with torch.no_grad():
        return [*segment(torch.stack([image for _, image in some])).argmax(dim=1)]


def test_threads_give_what_one_image_after_the_other_gives(cores: None, little_memory: None) -> None:
    network = Noting().eval()
    seen: list[tuple[int, int]] = []

    def noted(segment: Segment, some: Sequence[tuple[int, Tensor]]) -> list[Tensor]:
        seen.append((threading.get_ident(), torch.get_num_threads()))
        return classes(segment, some)

    def inference(of: nn.Module) -> Segment:
        return lambda image: of(image).logits

    images = [torch.rand(3, *shape) for shape in [(5, 5), (4, 9), (5, 5), (7, 7), (20, 20), (3, 5)] * 8]
    done = list(
        segment_many(
            noted,
            enumerate(images),
            network=network,
            inference=inference,
            size=lambda item: (item[1].shape[1], item[1].shape[2]),
            device=CPU,
        )
    )
    assert network.note is None  # threads have twins
    assert [some[0][0] for some, _ in done] == list(range(len(images)))
    for image, (some, found) in zip(images, done, strict=True):
        assert some[0][1] is image
        with torch.no_grad():
            assert torch.equal(found[0], network(image[None]).logits.argmax(dim=1)[0])
    here = threading.get_ident()
    assert {threads for ident, threads in seen if ident == here} == {4}  # 400 pixels do not fit beside others
    assert {threads for ident, threads in seen if ident != here} == {1, 2}  # 4 x 25 fit, 2 x 36 or 2 x 49
    assert len({ident for ident, _ in seen}) > 2
    assert torch.get_num_threads() == 4


def test_one_core_works_here_with_the_network_itself() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        network, here = Noting().eval(), set[int]()

        def work(segment: Segment, some: Sequence[int]) -> Segment:
            here.add(threading.get_ident())
            return segment

        done = list(segment_many(work, range(5), network=network, inference=_same, size=lambda _: (1, 1), device=CPU))
        assert done == [([number], network) for number in range(5)]
        assert here == {threading.get_ident()}
    finally:
        torch.set_num_threads(before)


def _same(network: Any) -> Any:
    return network


def test_a_batch_without_memory_is_done_one_by_one(little_memory: None) -> None:
    tried: list[int] = []

    def work(segment: Segment, some: Sequence[int]) -> int:
        tried.append(len(some))
        if len(some) > 1:
            raise torch.OutOfMemoryError("no memory")
        return -some[0]

    given: dict[str, Any] = {"network": Noting(), "inference": _same, "size": lambda _: (5, 5), "device": CUDA}
    assert list(segment_many(work, range(5), **given)) == [([n], -n) for n in range(5)]
    assert tried == [4, 1, 1, 1, 1, 1]

    def never(segment: Segment, some: Sequence[int]) -> int:
        raise torch.OutOfMemoryError(f"no memory for {len(some)}")

    with pytest.raises(torch.OutOfMemoryError, match="for 1"):
        list(segment_many(never, range(5), **given))

    def wrong(segment: Segment, some: Sequence[int]) -> int:
        raise RuntimeError(f"shapes of {len(some)}")

    with pytest.raises(RuntimeError, match="of 4"):
        list(segment_many(wrong, range(5), **given))


def test_an_image_without_memory_beside_others_is_done_alone(cores: None, little_memory: None) -> None:
    here = threading.get_ident()

    def work(segment: Segment, some: Sequence[int]) -> int:
        if some[0] == 3 and threading.get_ident() != here:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return -some[0]

    done = segment_many(work, range(9), network=Noting(), inference=_same, size=lambda _: (5, 5), device=CPU)
    assert list(done) == [([n], -n) for n in range(9)]


def test_threads_are_given_back_after_an_error(cores: None) -> None:
    def work(segment: Segment, some: Sequence[int]) -> int:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        list(segment_many(work, range(9), network=Noting(), inference=_same, size=lambda _: (5, 5), device=CPU))
    assert torch.get_num_threads() == 4
    fresh: list[int] = []
    thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert fresh == [4]  # not what the work of one image used
