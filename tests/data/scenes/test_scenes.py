import pickle
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from u2pl.data.scenes.reader import SceneSample, scenes
from u2pl.errors import InputError


def digest(sample: SceneSample) -> int:
    return int(sample.image().long().sum()) * 1_000_003 + int(sample.mask().long().sum())


def test_samples_have_the_promised_shapes_and_types():
    source = scenes(labeled=2, train=5, val=3, height=64, width=80)
    assert (len(source.labeled), len(source.unlabeled), len(source.val)) == (2, 3, 3)
    assert len(source.palette) == len(source.classes) == 10
    for sample in (*source.labeled, *source.unlabeled, *source.val):
        image, mask = sample.image(), sample.mask()
        assert image.shape == (3, 64, 80)
        assert mask.shape == (64, 80)
        assert image.dtype == mask.dtype == torch.uint8
        assert sample.has_mask
        assert set(mask.unique().tolist()) <= {*range(10), 255}


def test_a_scene_is_a_function_of_seed_and_index():
    first, again, other = (scenes(labeled=2, train=2, seed=seed).labeled for seed in (0, 0, 1))
    assert torch.equal(first[0].image(), again[0].image())
    assert torch.equal(first[0].mask(), again[0].mask())
    assert not torch.equal(first[0].mask(), first[1].mask())
    assert not torch.equal(first[0].mask(), other[0].mask())


def test_painting_again_gives_the_same_scene_and_leaves_the_global_generator_alone():
    from u2pl.data.scenes.reader import _paint

    sample = scenes(train=20).val[0]
    np.random.seed(3)
    image, mask = _paint(sample)
    state = np.random.get_state()[1]
    np.random.seed(3)
    assert np.array_equal(state, np.random.get_state()[1])
    assert np.array_equal(image, sample.image().numpy())
    assert np.array_equal(mask, sample.mask().numpy())


def test_another_process_paints_the_same_scene():
    sample = scenes(labeled=12, seed=5).unlabeled[7]
    code = (
        "from u2pl.data.scenes.reader import scenes; s = scenes(labeled=12, seed=5).unlabeled[7]; "
        "print(int(s.image().long().sum()) * 1_000_003 + int(s.mask().long().sum()))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(output) == digest(sample)


def test_changing_a_tensor_does_not_change_the_sample():
    sample = scenes().labeled[0]
    before = digest(sample)
    sample.image().zero_()
    sample.mask().zero_()
    assert digest(sample) == before


def test_splits_are_disjoint():
    source = scenes(labeled=5, train=30, val=10)
    samples = (*source.labeled, *source.unlabeled, *source.val)
    assert len({sample.name for sample in samples}) == 40
    assert len({digest(sample) for sample in samples}) == 40


def test_validation_is_the_same_for_every_seed():
    first, other = scenes(seed=0), scenes(seed=1)
    assert first.val == other.val
    assert first.labeled != other.labeled


@pytest.mark.parametrize(
    ("labeled", "count"), [(12, 12), (1, 1), (0.1, 5), (0.001, 1), (1.0, 50), (None, 50), (50, 50)]
)
def test_labeled_is_a_count_a_fraction_or_everything(labeled, count):
    source = scenes(labeled=labeled, train=50)
    assert len(source.labeled) == count
    assert len(source.unlabeled) == 50 - count
    assert source.labeled == scenes(labeled=None, train=50).labeled[:count]


def test_classes_are_all_there_and_of_very_unequal_frequency():
    counts = np.zeros(256, dtype=np.int64)
    for sample in scenes(labeled=None, train=100).labeled:
        counts += np.bincount(sample.mask().numpy().ravel(), minlength=256)
    share = counts[:10] / counts[:10].sum()
    assert share.min() > 0.001
    assert share.min() < 0.01
    assert share.max() > 0.2
    assert 0 < counts[255] < 0.05 * counts.sum()


def test_samples_are_picklable_and_small():
    sample = scenes(labeled=12).unlabeled[3]
    data = pickle.dumps(sample)
    assert len(data) < 500
    assert torch.equal(pickle.loads(data).image(), sample.image())


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"labeled": 501}, "data.labeled"),
        ({"labeled": 0}, "data.labeled"),
        ({"labeled": -3}, "data.labeled"),
        ({"labeled": 0.0}, "data.labeled"),
        ({"labeled": 1.5}, "data.labeled"),
        ({"labeled": float("nan")}, "data.labeled"),
        ({"labeled": True}, "data.labeled"),
        ({"labeled": "12"}, "data.labeled"),
        ({"train": 0}, "data.train"),
        ({"train": 2.5}, "data.train"),
        ({"val": -1}, "data.val"),
        ({"height": 8}, "data.height"),
        ({"width": 31}, "data.width"),
        ({"seed": -1}, "data.seed"),
    ],
)
def test_bad_values_name_their_key_in_one_line(arguments, key):
    with pytest.raises(InputError, match=rf"^{key}: ") as error:
        scenes(**arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (200, 64), (180, 300)])
def test_every_size_can_be_painted(height, width):
    for sample in scenes(labeled=None, train=12, height=height, width=width).labeled:
        assert sample.image().shape == (3, height, width)
        assert sample.mask().shape == (height, width)


def test_painting_is_fast_enough_to_need_no_files():
    samples = scenes(seed=77).labeled[:20]
    start = time.perf_counter()
    for sample in samples:
        sample.image()
        sample.mask()
    assert (time.perf_counter() - start) / len(samples) < 0.2
