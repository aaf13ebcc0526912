import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from u2pl.data.files import INVALID, CachedSample, FileSample, cached
from u2pl.data.source import DataSource
from u2pl.errors import InputError

VALUES = np.array([[0, 1, 2, 255], [2, 2, 1, 0], [255, 0, 0, 1]], dtype=np.uint8)


def sample_of(folder: Path, mask: Image.Image, num_classes: int = 3, **options) -> FileSample:
    """A sample whose mask is ``mask`` and whose image has the mask's size."""
    pixels = np.random.default_rng(0).integers(0, 256, (mask.height, mask.width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    mask_path = folder / ("a_mask.tif" if mask.mode == "I" else "a_mask.png")  # png has no 32 bits
    mask.save(mask_path)
    return FileSample("a", folder / "a.png", mask_path, num_classes, **options)


def refused(function, *names: str) -> str:
    """The message of the InputError that is raised, which is one line and holds all names."""
    with pytest.raises(InputError) as caught:
        function()
    message = str(caught.value)
    assert "\n" not in message
    for name in names:
        assert name in message
    return message


def write_gray_png(path: Path, values: np.ndarray, bits: int) -> None:
    """A gray png of 2 or 4 bits per pixel, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    per_byte = 8 // bits
    packed = sum(values[:, i::per_byte].astype(int) << (8 - bits * (i + 1)) for i in range(per_byte)).astype(np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def test_image_is_rgb_uint8_as_stored(tmp_path):
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = FileSample("a", tmp_path / "a.png", None, 2).image()
    assert image.dtype == torch.uint8
    assert torch.equal(image, torch.from_numpy(pixels).permute(2, 0, 1))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_images_of_other_modes_become_rgb(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new("RGB", (5, 4), (204, 204, 204)).convert(mode).save(path)
    image = FileSample("a", path, None, 2).image()
    assert image.shape == (3, 4, 5)
    assert (image.float() - 204).abs().max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_gray_masks_of_any_depth(tmp_path, dtype):
    mask = sample_of(tmp_path, Image.fromarray(VALUES.astype(dtype))).mask()
    assert mask.dtype == torch.uint8
    assert np.array_equal(mask.numpy(), VALUES)


def test_palette_masks_are_indices_not_luminance(tmp_path):
    mask = Image.fromarray(VALUES).convert("P")
    mask.putpalette([90, 80, 70, 10, 20, 30, 1, 2, 3] + [0] * 759)
    mask.putdata(VALUES.ravel().tolist())
    assert np.array_equal(sample_of(tmp_path, mask).mask().numpy(), VALUES)


def test_one_bit_mask(tmp_path):
    binary = (VALUES == 2).astype(np.uint8)
    mask = sample_of(tmp_path, Image.fromarray(binary * 255).convert("1")).mask()
    assert np.array_equal(mask.numpy(), binary)


@pytest.mark.parametrize("bits", [2, 4])
def test_gray_masks_of_few_bits_are_not_stretched(tmp_path, bits):
    values = np.arange(16, dtype=np.uint8).reshape(2, 8) % 2**bits
    sample = sample_of(tmp_path, Image.fromarray(values), num_classes=16)
    write_gray_png(sample.mask_path, values, bits)
    assert np.array_equal(sample.mask().numpy(), values)


def test_rgb_mask_is_refused(tmp_path):
    colour = Image.new("RGB", (4, 3), (128, 64, 128))
    refused(sample_of(tmp_path, colour).mask, "a_mask.png", "#804080 (12 pixels)", "set data.mask_values")


@pytest.mark.parametrize(("dtype", "value"), [(np.uint8, 7), (np.uint16, 3000), (np.int32, 70000)])
def test_value_outside_the_classes_is_refused(tmp_path, dtype, value):
    values = VALUES.astype(dtype)
    values[1, 1] = value
    sample = sample_of(tmp_path, Image.fromarray(values))
    refused(sample.mask, "a_mask.", f"value {value}", "3 classes")
    refused(sample.mask_values, "a_mask.", f"value {value}", "3 classes")


def test_first_value_after_the_classes_is_refused(tmp_path):
    refused(sample_of(tmp_path, Image.fromarray(VALUES), num_classes=2).mask, "value 2", "2 classes")


def test_lookup(tmp_path):
    lookup = (1, 255, 0, *[INVALID] * 252, 255)
    sample = sample_of(tmp_path, Image.fromarray(VALUES), num_classes=2, lookup=lookup)
    expected = np.array([[1, 255, 0, 255], [0, 0, 255, 1], [255, 1, 1, 255]])
    assert np.array_equal(sample.mask().numpy(), expected)
    assert sample.mask_values() == {0, 1}
    bad = sample_of(tmp_path, Image.fromarray(VALUES + (VALUES == 2)), num_classes=2, lookup=lookup)
    refused(bad.mask, "a_mask.png", "value 3", "3 classes")


def test_size_mismatch_names_both_sizes(tmp_path):
    sample = sample_of(tmp_path, Image.fromarray(VALUES))
    Image.new("RGB", (9, 3)).save(sample.image_path)
    refused(sample.mask, "a_mask.png", "4x3", "a.png", "9x3")


def test_truncated_files_are_named(tmp_path):
    sample = sample_of(tmp_path, Image.fromarray(np.random.default_rng(0).integers(0, 3, (64, 64), dtype=np.uint8)))
    for path in (sample.mask_path, sample.image_path):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(sample.image, "image", "a.png")
    refused(sample.mask, "mask", "a_mask.png")


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n\0\0"])
def test_unreadable_image_is_named(tmp_path, content):
    (tmp_path / "bad.png").write_bytes(content)
    sample = FileSample("bad", tmp_path / "bad.png", None, 2)
    refused(sample.image, "bad.png")
    refused(sample.image_size, "bad.png")


def test_missing_files_are_named(tmp_path):
    sample = sample_of(tmp_path, Image.fromarray(VALUES))
    sample.mask_path.unlink()
    refused(sample.mask, "a_mask.png", "missing")
    sample.image_path.unlink()
    refused(sample.image, "a.png", "missing")
    refused(FileSample("a", sample.image_path, None, 2).mask, "a.png", "no mask")


def test_has_mask(tmp_path):
    assert FileSample("a", tmp_path / "a.png", tmp_path / "b.png", 2).has_mask
    assert not FileSample("a", tmp_path / "a.png", None, 2).has_mask


def test_scale_resizes_image_and_mask_alike(tmp_path):
    values = np.zeros((40, 60), dtype=np.uint8)
    values[:, 20:] = 1
    values[20:, 40:] = 2
    mask = Image.fromarray(values)
    sample = sample_of(tmp_path, mask, scale=0.5)
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)
    Image.fromarray(colours[values]).save(sample.image_path)
    assert sample.image().shape == (3, 20, 30)
    assert sample.image_size() == (20, 30)
    assert torch.equal(sample.image().argmax(0), sample.mask().long())
    assert set(sample.mask().unique().tolist()) == {0, 1, 2}


@pytest.mark.parametrize("scale", [0.3, 1.7])
def test_scaled_mask_holds_no_invented_value(tmp_path, scale):
    values = np.zeros((40, 60), dtype=np.uint8)
    values[:, 25:] = 255
    sample = sample_of(tmp_path, Image.fromarray(values), num_classes=255, scale=scale)
    assert sample.mask().unique().tolist() == [0, 255]


def test_scaled_image_is_antialiased(tmp_path):
    stripes = np.zeros((32, 32, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    image = FileSample("a", tmp_path / "a.png", None, 2, scale=0.25).image()
    assert (image.float() - 127.5).abs().max() < 40


def test_image_size_reads_the_header_only(tmp_path):
    sample = sample_of(tmp_path, Image.fromarray(np.zeros((300, 200), dtype=np.uint8)))
    sample.image_path.write_bytes(sample.image_path.read_bytes()[:400])
    assert sample.image_size() == (300, 200)


def test_mask_values_leave_out_ignored_pixels(tmp_path):
    assert sample_of(tmp_path, Image.fromarray(VALUES)).mask_values() == {0, 1, 2}


def test_sample_survives_pickling(tmp_path):
    sample = sample_of(tmp_path, Image.fromarray(VALUES), scale=0.5)
    assert pickle.loads(pickle.dumps(sample)) == sample


def test_cached_sample_reads_once_and_travels_light(tmp_path):
    mask = Image.fromarray(VALUES)
    source = DataSource(("a", "b", "c"), [sample_of(tmp_path, mask)], [], [], notes=("kept",))
    kept = cached(source)
    assert kept.notes == ("kept",)
    sample = kept.labeled[0]
    image, values = sample.image(), sample.mask()
    assert torch.equal(image, source.labeled[0].image())
    assert torch.equal(values, source.labeled[0].mask())
    travelled = pickle.loads(pickle.dumps(sample))
    source.labeled[0].image_path.unlink()
    assert sample.image().data_ptr() == image.data_ptr()
    assert sample.mask().data_ptr() == values.data_ptr()
    assert image.permute(1, 2, 0).is_contiguous()
    assert (sample.name, sample.has_mask) == ("a", True)
    with pytest.raises(InputError):
        travelled.image()


def test_cached_sample_knows_its_size_from_the_header(tmp_path):
    sample = CachedSample(sample_of(tmp_path, Image.fromarray(VALUES)))
    assert sample.image_size() == (3, 4)
    assert sample.store.get(0) is None


@pytest.mark.parametrize("factor", [2, 3, 0.5])
def test_masks_of_another_size_are_refused_or_resized_by_the_nearest_pixel(tmp_path, factor):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 3, (6, 8), dtype=np.uint8)
    height, width = round(6 * factor), round(8 * factor)
    Image.fromarray(small).save(tmp_path / "m.png")
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(tmp_path / "a.png")
    refused(
        FileSample("a", tmp_path / "a.png", tmp_path / "m.png", 3).mask,
        f"8x6 but its image a.png is {width}x{height}",
        "set data.resize_masks=true",
    )
    mask = FileSample("a", tmp_path / "a.png", tmp_path / "m.png", 3, resize_mask=True).mask()
    for y in range(height):
        for x in range(width):
            assert mask[y, x] == small[int((y + 0.5) / factor), int((x + 0.5) / factor)]


def test_a_mask_of_another_shape_is_no_smaller_copy(tmp_path):
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / "m.png")
    Image.fromarray(np.zeros((6, 12, 3), np.uint8)).save(tmp_path / "a.png")
    refused(FileSample("a", tmp_path / "a.png", tmp_path / "m.png", 3).mask, "give both the same size")


def test_many_values_that_are_no_classes_are_listed_with_their_pixels(tmp_path):
    blurred = np.array([[0, 1, 2, 17], [17, 17, 240, 255]], dtype=np.uint8)
    refused(
        sample_of(tmp_path, Image.fromarray(blurred), num_classes=2).mask,
        "holds values 2 (1 pixel), 17 (3 pixels), 240 (1 pixel), but there are 2 classes",
        "data.mask_values",
    )
