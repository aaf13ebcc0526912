import hashlib
import pickle

import numpy as np
import pytest
import torch

from u2pl.data.scenes.light import DOMAINS
from u2pl.data.scenes.reader import scenes
from u2pl.data.scenes.shapes import CLASSES as OBJECTS
from u2pl.data.scenes.shapes import SHAPES
from u2pl.errors import InputError

OTHERS = DOMAINS[1:]
#: Mean of red, green, blue and number of pixels of building, road and car, of four scenes of the first version.
DAY = (
    (106.9, 118.0, 121.4, 2526, 3624, 1083),
    (87.5, 98.5, 108.5, 3889, 3080, 0),
    (122.1, 113.1, 116.2, 4540, 2667, 617),
    (107.2, 124.5, 125.0, 2054, 2809, 384),
)


def digest(samples) -> str:
    parts = [part.numpy().tobytes() for sample in samples for part in (sample.image(), sample.mask())]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_day_is_what_it_has_always_been():
    """Published numbers were measured on these very scenes; libraries may round a pixel otherwise."""
    source = scenes(train=6, val=3, seed=2)
    for sample, expected in zip((*source.labeled[:2], *source.val[:2]), DAY, strict=True):
        counts = torch.bincount(sample.mask().flatten(), minlength=256)[[1, 2, 7]]
        seen = [*sample.image().float().mean(dim=(1, 2)).tolist(), *counts.tolist()]
        assert seen == pytest.approx(expected, rel=0.003, abs=3)
    assert source == scenes(train=6, val=3, seed=2, domain="day", kind="street")
    assert [sample.name for sample in source.labeled[:2]] == ["train_2_0000", "train_2_0001"]


@pytest.mark.parametrize("domain", OTHERS)
def test_the_validation_streets_are_the_same_in_each_light(domain):
    day, other = (scenes(train=1, val=8, domain=each).val for each in ("day", domain))
    for first, second in zip(day, other, strict=True):
        assert torch.equal(first.mask(), second.mask())
        assert not torch.equal(first.image(), second.image())
        assert first.name != second.name


@pytest.mark.parametrize("domain", OTHERS)
def test_the_training_streets_are_others(domain):
    day, other = (scenes(train=12, val=1, domain=each).labeled for each in ("day", domain))
    masks = [sample.mask() for sample in (*day, *other)]
    assert all(not torch.equal(masks[i], masks[j]) for i in range(len(masks)) for j in range(i))


@pytest.mark.parametrize(("domain", "kind"), [*((each, "street") for each in OTHERS), ("day", "objects")])
def test_a_scene_is_a_function_of_seed_and_index(domain, kind):
    options = {"train": 4, "val": 2, "domain": domain, "kind": kind}
    first, again, other = (scenes(**options, seed=seed) for seed in (0, 0, 1))
    assert digest(first.labeled) == digest(again.labeled) != digest(other.labeled)
    assert first.val == other.val
    assert len({digest([sample]) for sample in (*first.labeled, *first.val)}) == 6
    assert digest([pickle.loads(pickle.dumps(first.labeled[3]))]) == digest([first.labeled[3]])


@pytest.mark.parametrize(("domain", "kind"), [("night", "street"), ("fog", "street"), ("day", "objects")])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (130, 200)])
def test_every_size_can_be_painted(domain, kind, height, width):
    for sample in scenes(labeled=None, train=6, height=height, width=width, domain=domain, kind=kind).labeled:
        assert sample.image().shape == (3, height, width)
        assert sample.mask().shape == (height, width)
        assert sample.image().dtype == sample.mask().dtype == torch.uint8


def test_night_is_dark_and_fog_is_flat():
    light = {}
    for domain in DOMAINS:
        images = torch.stack([sample.image() for sample in scenes(train=40, val=1, domain=domain).labeled]).float()
        light[domain] = (images.mean().item(), images.std(dim=(1, 2, 3)).mean().item())
    assert light["night"][0] < 0.6 * light["day"][0]
    assert light["fog"][0] > light["day"][0]
    assert light["fog"][1] < 0.8 * light["day"][1]


def test_objects_are_one_to_three_before_a_background():
    source = scenes(train=150, val=1, kind="objects")
    assert source.classes == OBJECTS
    assert len(source.palette) == len(OBJECTS) == 7
    counts = np.bincount(torch.stack([sample.mask() for sample in source.labeled]).numpy().ravel(), minlength=256)
    assert counts[7:].sum() == 0
    shares = counts[:7] / counts.sum()
    assert 0.6 < shares[0] < 0.95
    assert shares[1:].min() > 0.01
    shown = [frozenset(np.unique(sample.mask())) - {0} for sample in source.labeled]
    assert {len(each) for each in shown} == {1, 2, 3}


def test_objects_of_a_class_differ_in_colour_and_size():
    sizes = {index: [] for index in range(1, 7)}
    colours = {index: [] for index in range(1, 7)}
    for sample in scenes(train=120, val=1, kind="objects").labeled:
        image, mask = sample.image().float(), sample.mask()
        for index in set(mask.unique().tolist()) - {0}:
            sizes[index].append(int((mask == index).sum()))
            colours[index].append(image[:, mask == index].mean(dim=1))
    for index, each in sizes.items():
        assert np.std(each) > 0.3 * np.mean(each)
        assert torch.stack(colours[index]).std(dim=0).min() > 20


def test_shapes_stay_within_their_square_and_differ():
    y, x = np.mgrid[-1.3:1.3:130j, -1.3:1.3:130j]
    seen = []
    for shape, _ in SHAPES:
        inside, tone = shape(x, y, np.random.default_rng(0))
        assert inside.dtype == bool
        assert 0.05 < inside.mean() < 0.6
        assert not inside[(np.abs(x) > 1.2) | (np.abs(y) > 1.2)].any()
        assert tone[inside].min() >= 0
        assert tone[inside].max() <= 1
        assert tone[inside].std() > 0.1
        seen.append(inside)
    overlaps = [(a & b).sum() / (a | b).sum() for i, a in enumerate(seen) for b in seen[:i]]
    assert max(overlaps) < 0.85


def test_tags_follow_from_masks():
    source = scenes(train=12, val=1, kind="objects", labeled=0, tags="masks")
    assert len(source.unlabeled) == 12
    for sample in source.unlabeled:
        assert sample.tags == set(np.unique(sample.mask()).tolist())


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"domain": "dusk"}, "data.domain"),
        ({"kind": "portrait"}, "data.kind"),
        ({"kind": "objects", "domain": "night"}, "data.domain"),
    ],
)
def test_bad_values_name_their_key_in_one_line(options, key):
    with pytest.raises(InputError, match=rf"^{key}: "):
        scenes(**options)
