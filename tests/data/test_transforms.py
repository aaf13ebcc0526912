import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from u2pl.data.transforms import MEAN_RGB, LabeledTransform, UnlabeledTransform, _nearest

COLOURS = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.uint8)


def blobs(height: int = 60, width: int = 80) -> tuple[torch.Tensor, torch.Tensor]:
    """An image whose colour tells the class, (3, H, W) uint8, and its mask (H, W) uint8."""
    cells = np.random.default_rng(0).integers(0, 3, (height // 10, width // 10), dtype=np.uint8)
    mask = torch.from_numpy(np.kron(cells, np.ones((10, 10), dtype=np.uint8)))
    return COLOURS[mask.long()].permute(2, 0, 1).contiguous(), mask


def smooth(height: int = 60, width: int = 80) -> torch.Tensor:
    """(3, H, W) uint8: red grows to the right, green grows downwards."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack((x * 3, y * 4, torch.full_like(x, 60))).to(torch.uint8)


@pytest.mark.parametrize("crop", [32, (24, 48), 200])
def test_shapes_and_types(crop):
    height, width = (crop, crop) if isinstance(crop, int) else crop
    image, mask = LabeledTransform(crop_size=crop)(*blobs())
    assert type(image) is torch.Tensor
    assert type(mask) is torch.Tensor
    assert (image.shape, image.dtype) == ((3, height, width), torch.uint8)
    assert (mask.shape, mask.dtype) == ((height, width), torch.uint8)


@pytest.mark.parametrize("scale", [(0.5, 2.0), (0.5, 0.5), (1.0, 1.0), (2.0, 2.0), (1.37, 1.37)])
def test_image_and_mask_move_alike(scale):
    transform = LabeledTransform(crop_size=50, scale=scale)
    for seed in range(20):
        torch.manual_seed(seed)
        image, mask = transform(*blobs())
        pure = (image.amax(0) > 230) & (mask != 255)  # away from the blended borders of blobs
        assert pure.float().mean() > 0.2
        assert torch.equal(image.argmax(0)[pure], mask[pure].long())
        # Blended pixels lie on both sides of a border alike: a shift by half a pixel would show as a majority.
        inside = mask != 255
        assert (image.argmax(0)[inside] == mask[inside]).float().mean() > 0.97


def test_enlarged_masks_are_centred_on_the_image():
    """A border in the middle stays in the middle; torchvision's own resizing of masks would shift it."""
    mask = torch.zeros(30, 30, dtype=torch.uint8)
    mask[:, 15:] = 1
    image = (mask * 255).expand(3, 30, 30).contiguous()
    image, mask = LabeledTransform(crop_size=46, scale=(46 / 30, 46 / 30), flip=0)(image, mask)
    assert torch.equal(mask, (image[0] > 127).byte())


def test_mask_holds_no_invented_class():
    mask = torch.zeros(60, 80, dtype=torch.uint8)
    mask[:, 40:] = 2
    for seed in range(10):
        torch.manual_seed(seed)
        _, out = LabeledTransform(crop_size=40)(blobs()[0], mask)
        assert set(out.unique().tolist()) <= {0, 2, 255}


def test_padding_is_ignored_and_gray():
    image, mask = LabeledTransform(crop_size=(50, 70), scale=(0.5, 0.5), flip=0)(*blobs())
    assert (mask[:30, :40] != 255).all()
    assert (mask[30:] == 255).all()
    assert (mask[:, 40:] == 255).all()
    assert (image[:, 30:] == torch.tensor(MEAN_RGB)[:, None, None]).all()
    assert (image[:, :, 40:] == torch.tensor(MEAN_RGB)[:, None, None]).all()


def test_crop_first_equals_resizing_the_whole_image():
    torch.manual_seed(0)
    source = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 60, 60), dtype=np.uint8))
    image, _ = LabeledTransform(crop_size=30, scale=(0.5, 0.5), flip=0)(source, torch.zeros(60, 60, dtype=torch.uint8))
    whole = Image.fromarray(source.permute(1, 2, 0).numpy()).resize((30, 30), Image.Resampling.BILINEAR)
    assert (image.int() - torch.from_numpy(np.array(whole)).permute(2, 0, 1)).abs().max() <= 1


def test_scale_and_place_cover_their_ranges():
    transform = LabeledTransform(crop_size=20, flip=0)
    source, mask = smooth(), torch.zeros(60, 80, dtype=torch.uint8)
    factors, lefts, tops = [], [], []
    for seed in range(200):
        torch.manual_seed(seed)
        image, _ = transform(source, mask)
        step = (int(image[0, 10, 17]) - int(image[0, 10, 2])) / 15 / 3  # source pixels per pixel
        factors.append(1 / step)
        lefts.append(float(image[0, 10, 0]) / 3)
        tops.append(float(image[1, 0, 10]) / 4)
    assert 0.45 < min(factors) < 0.6
    assert 1.8 < max(factors) < 2.2
    assert min(lefts) < 3
    assert max(lefts) > 55
    assert min(tops) < 3
    assert max(tops) > 40


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0.0), (1.0, 1.0), (0.5, 0.5)])
def test_flip(probability, share):
    transform = LabeledTransform(crop_size=(60, 80), scale=(1, 1), flip=probability)
    source, mask = smooth(), torch.zeros(60, 80, dtype=torch.uint8)
    torch.manual_seed(0)
    flipped = [bool(image[0, 0, 0] > image[0, 0, -1]) for image, _ in (transform(source, mask) for _ in range(100))]
    assert abs(np.mean(flipped) - share) < 0.12


@pytest.mark.parametrize("crop", [50, (30, 90), 130])
def test_a_crop_is_that_of_torchvision(crop):
    """The random numbers, the window and each pixel: where jitter is off, runs go on as they began."""
    source, mask = blobs()
    source = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 60, 80), dtype=np.uint8))
    height, width = (crop, crop) if isinstance(crop, int) else crop
    for seed in range(30):
        torch.manual_seed(seed)
        image, label = LabeledTransform(crop_size=crop)(source, mask)
        torch.manual_seed(seed)
        factor = torch.empty(()).uniform_(0.5, 2).item()
        sides = []
        for side, out in ((60, height), (80, width)):
            length = min(side, max(1, round(out / factor)))
            whole = round(side * factor) <= out
            start = 0 if whole else int(torch.randint(side - length + 1, ()))
            sides.append((0, side, round(side * factor)) if whole else (start, length, out))
        (top, rows, out_rows), (left, columns, out_columns) = sides
        part = source[:, top : top + rows, left : left + columns].contiguous()
        expected = F.resize(part, [out_rows, out_columns], antialias=True)
        expected = F.pad(expected, [0, 0, width - out_columns, height - out_rows], fill=list(MEAN_RGB))
        nearest = InterpolationMode.NEAREST_EXACT
        marks = F.resize(mask[None, top : top + rows, left : left + columns], [out_rows, out_columns], nearest)
        marks = F.pad(marks, [0, 0, width - out_columns, height - out_rows], fill=255)[0]
        if torch.rand(1) < 0.5:
            expected, marks = expected.flip(-1), marks.flip(-1)
        assert torch.equal(image, expected)
        assert torch.equal(label, marks)


def test_nearest_pixels_of_a_mask_are_those_of_torch():
    for length, size in torch.randint(1, 250, (300, 2), generator=torch.Generator().manual_seed(0)).tolist():
        mask = torch.arange(length, dtype=torch.uint8)[None, None, None]
        expected = torch.nn.functional.interpolate(mask, (1, size), mode="nearest-exact")[0, 0, 0]
        assert torch.equal(torch.from_numpy(_nearest(length, size)), expected.long())


def test_the_layout_in_memory_does_not_change_a_crop():
    """Files are read with the channels of a pixel side by side; scenes are drawn channel by channel."""
    image, mask = blobs()
    beside = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    for seed in range(10):
        torch.manual_seed(seed)
        first = LabeledTransform(crop_size=40)(image, mask)[0]
        torch.manual_seed(seed)
        second = LabeledTransform(crop_size=40)(beside, mask)[0]
        assert torch.equal(first, second)
        assert first.permute(1, 2, 0).is_contiguous()


def test_valid_is_false_on_padding_only():
    crop, valid = UnlabeledTransform(crop_size=(50, 70), scale=(0.5, 0.5), flip=0)(blobs()[0])
    assert (crop.shape, crop.dtype) == ((3, 50, 70), torch.uint8)
    assert (valid.shape, valid.dtype) == ((50, 70), torch.bool)
    assert valid[:30, :40].all()
    assert int(valid.sum()) == 30 * 40
    _, flipped = UnlabeledTransform(crop_size=(50, 70), scale=(0.5, 0.5), flip=1)(blobs()[0])
    assert torch.equal(flipped, valid.flip(-1))


@pytest.mark.parametrize("seed", range(5))
def test_the_truth_lies_on_the_pixels_it_is_of(seed):
    image, mask = blobs()
    torch.manual_seed(seed)
    expected = LabeledTransform(crop_size=(50, 70))(image, mask)
    torch.manual_seed(seed)
    weak, valid, truth = UnlabeledTransform(crop_size=(50, 70))(image, mask)
    assert torch.equal(weak, expected[0])
    assert torch.equal(truth, expected[1])
    assert (truth.dtype, truth.shape) == (torch.uint8, (50, 70))
    assert (truth[~valid] == 255).all()
    after = torch.get_rng_state()
    torch.manual_seed(seed)
    views = UnlabeledTransform(crop_size=(50, 70))(image)
    assert torch.equal(after, torch.get_rng_state())
    assert torch.equal(views[0], weak)
    assert torch.equal(views[-1], valid)


def test_source_is_left_alone():
    image, mask = blobs()
    before = image.clone(), mask.clone()
    LabeledTransform(crop_size=40)(image, mask)
    UnlabeledTransform(crop_size=40)(image)
    assert torch.equal(image, before[0])
    assert torch.equal(mask, before[1])


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3)])
def test_odd_sizes(size):
    image = torch.zeros(3, *size, dtype=torch.uint8)
    out, mask = LabeledTransform(crop_size=32)(image, torch.zeros(size, dtype=torch.uint8))
    assert out.shape == (3, 32, 32)
    assert (mask == 0).any()
