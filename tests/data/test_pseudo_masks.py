"""Pseudo-masks as samples: what is read, what is refused, and how batches draw them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from u2pl.data.batches import Batches
from u2pl.data.files import CachedSample, cached
from u2pl.data.fingerprint import difference, fingerprint
from u2pl.data.inspection import structure_errors
from u2pl.data.pseudo_masks import mask_path, with_pseudo_masks
from u2pl.data.rare_classes import RareClassSampling, pixel_counts
from u2pl.data.readers.folder import folder
from u2pl.data.scenes.reader import scenes
from u2pl.data.source import DataSource
from u2pl.data.transforms import LabeledTransform
from u2pl.errors import InputError
from u2pl.report.pictures import save_mask

CONTENTS = {"a": (0, 1, 2), "b": (2, 1), "more/c": None, "more/d": None, "e": None}


@pytest.fixture
def source(write_folder: Callable[..., Path]) -> DataSource:
    return folder(root=write_folder(CONTENTS))


def save(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_mask(path, torch.as_tensor(values).to(torch.uint8), ((1, 2, 3), (4, 5, 6), (7, 8, 9)))


def save_all(source: DataSource, masks: Path) -> None:
    for number, sample in enumerate(source.unlabeled):
        size = sample.image().shape[-2:]
        save(mask_path(masks, sample), np.random.default_rng(number).choice([0, 1, 2, 255], size))


@pytest.mark.parametrize("keep", [False, True])
def test_unlabeled_images_get_the_masks_of_the_folder(source: DataSource, tmp_path: Path, keep: bool) -> None:
    save_all(source, tmp_path / "masks")
    found = with_pseudo_masks(source, tmp_path / "masks")
    assert (found.labeled, found.unlabeled, found.val) == (source.labeled, source.unlabeled, source.val)
    found = cached(found) if keep else found
    assert [sample.name for sample in found.pseudo] == [sample.name for sample in source.unlabeled]
    assert [isinstance(sample, CachedSample) for sample in found.pseudo] == [keep] * 3
    for number, (sample, plain) in enumerate(zip(found.pseudo, source.unlabeled, strict=True)):
        again = pickle.loads(pickle.dumps(sample))
        assert torch.equal(again.image(), plain.image())
        stored = np.random.default_rng(number).choice([0, 1, 2, 255], (12, 16)).astype(np.uint8)
        assert again.mask().dtype == torch.uint8
        assert np.array_equal(again.mask().numpy(), stored)
        assert again.has_mask
        assert not plain.has_mask
        assert again.image_size() == (12, 16)


def test_every_unlabeled_image_needs_a_mask(source: DataSource, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    with pytest.raises(InputError, match=r"^data.pseudo_masks: there is no folder .*masks; give what"):
        with_pseudo_masks(source, masks)
    save_all(source, masks)
    (masks / "more" / "d.png").unlink()
    with pytest.raises(InputError, match=r"has no mask of 1 image \(more/d\)"):
        with_pseudo_masks(source, masks)
    with pytest.raises(InputError, match="there is no unlabeled image"):
        with_pseudo_masks(DataSource(source.classes, source.labeled, [], []), masks)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.zeros((12, 15)), r"is 15x12 but its image e is 16x12"),
        (np.full((12, 16), 3), r"holds 3, but there are 3 classes"),
        (np.full((12, 16), 254), r"holds 254, but"),
        (None, r"pseudo-mask .*e.png is no JPEG, PNG"),
    ],
)
def test_a_mask_that_does_not_fit_is_one_line(source: DataSource, tmp_path: Path, values: Any, says: str) -> None:
    masks = tmp_path / "masks"
    save_all(source, masks)
    (masks / "e.png").write_bytes(b"no png") if values is None else save(masks / "e.png", values)
    with pytest.raises(InputError, match=says) as caught:
        with_pseudo_masks(source, masks).pseudo[0].mask()
    assert "\n" not in str(caught.value)
    assert "e.png" in str(caught.value)


def test_a_resumed_run_notices_other_pseudo_labels(source: DataSource, tmp_path: Path) -> None:
    save_all(source, tmp_path)
    found = with_pseudo_masks(source, tmp_path)
    assert difference(fingerprint(found), fingerprint(found)) is None
    assert difference(fingerprint(source), fingerprint(found)) == ("there were 0 pseudo-labeled images and are now 3")
    assert difference(fingerprint(found), fingerprint(source)) == ("there were 3 pseudo-labeled images and are now 0")
    assert "pseudo-labeled" not in fingerprint(source)  # as in earlier versions


def test_pseudo_masks_are_labels_enough(source: DataSource, tmp_path: Path) -> None:
    save_all(source, tmp_path)
    none = DataSource(source.classes, [], source.unlabeled, [])
    assert structure_errors(none, False) == ["there is no labeled image; add a mask for at least one training image"]
    assert structure_errors(with_pseudo_masks(none, tmp_path), False) == []


def batches(labeled: int, pseudo: int, **options: Any) -> Batches:
    pool = scenes(train=max(labeled, 1) + pseudo, labeled=max(labeled, 1), val=1, height=32, width=32, seed=0)
    settings: dict[str, Any] = {"batch_size": 4, "steps": 100, "seed": 3, **options}
    return Batches(
        labeled=pool.labeled[:labeled],
        unlabeled=None,
        pseudo=pool.unlabeled,
        labeled_transform=LabeledTransform(crop_size=32, scale=(1.0, 1.0), flip=0.5),
        **settings,
    )


@pytest.mark.parametrize("batch_size", [2, 4, 6])
def test_half_of_each_batch_is_pseudo_labeled(batch_size: int) -> None:
    drawn = batches(3, 11, batch_size=batch_size)
    for step in range(20):
        indices, _ = drawn.indices(step)
        assert sum(index >= 3 for index in indices) == batch_size // 2
        assert len(indices) == batch_size


@pytest.mark.parametrize(("batch_size", "share", "ranks"), [(1, 0.5, 1), (3, 0.5, 2), (5, 0.3, 3), (4, 0.9, 1)])
def test_over_all_steps_and_ranks_the_share_is_exact_and_each_sample_comes_in_turn(
    batch_size: int, share: float, ranks: int
) -> None:
    labeled, pseudo, steps = 4, 7, 30
    options: dict[str, Any] = {"batch_size": batch_size, "pseudo_share": share, "world_size": ranks}
    of_rank = [batches(labeled, pseudo, rank=rank, **options) for rank in range(ranks)]
    order = [index for step in range(steps) for drawn in of_rank for index in drawn.indices(step)[0]]
    assert len(order) == steps * ranks * batch_size
    true, false = ([index for index in order if (index < labeled) is own] for own in (True, False))
    assert len(false) == int(len(order) * share + 1e-9)
    for indices, first, count in ((true, 0, labeled), (false, labeled, pseudo)):
        for epoch in range(len(indices) // count):  # every sample is drawn once before any is drawn again
            part = indices[epoch * count : (epoch + 1) * count]
            assert sorted(part) == list(range(first, first + count))


def test_the_crops_are_those_of_labels_and_pseudo_masks(source: DataSource, tmp_path: Path) -> None:
    save_all(source, tmp_path)
    found = with_pseudo_masks(source, tmp_path)
    transform = LabeledTransform(crop_size=(12, 16), scale=(1.0, 1.0), flip=0.0)
    drawn = Batches(
        labeled=found.labeled, unlabeled=None, pseudo=found.pseudo, labeled_transform=transform, batch_size=4,
        steps=5, seed=0,
    )  # fmt: skip
    samples = [*found.labeled, *found.pseudo]
    for step in range(5):
        crops: Any = drawn[step]
        for place, index in enumerate(drawn.indices(step)[0]):
            assert torch.equal(crops.image[place], samples[index].image())
            assert torch.equal(crops.label[place], samples[index].mask())


def test_without_labels_all_places_are_for_pseudo_masks() -> None:
    drawn = batches(0, 5)
    assert len(drawn.indices(0)[0]) == 4
    assert {index for step in range(5) for index in drawn.indices(step)[0]} == set(range(5))
    with pytest.raises(InputError, match="there is no labeled image"):
        batches(0, 0)


def test_draws_by_class_are_for_labels_only() -> None:
    pool = scenes(train=6, labeled=6, val=1, height=32, width=32, seed=0)
    rare = RareClassSampling(pixel_counts(pool.labeled[:3]))
    drawn = batches(3, 5, rare_classes=rare, batch_size=1)
    kinds = [index >= 3 for step in range(8) for index in drawn.indices(step)[0]]
    assert kinds == [False, True] * 4
