"""Depth, bands, orientation and pages of image files."""

import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageOps

from u2pl.data.files import FileSample
from u2pl.data.image_files import ImageReader, stored, upright
from u2pl.errors import InputError

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 4096, (6, 9, 3), dtype=np.uint16)
RANGE = ImageReader(value_range=(0, 4095))


def png16(path: Path, values: np.ndarray) -> Path:
    """A png of 16 bits a value, of 1 (gray), 2, 3 (RGB) or 4 channels; Pillow cannot write most of them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return path


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values -> uint8, one by one."""
    result = np.zeros(values.shape, np.uint8)
    for place in np.ndindex(values.shape):
        share = min(1.0, max(0.0, (float(values[place]) - low) / (high - low)))
        result[place] = round(share * 255)
    return result


def close(left: np.ndarray, right: np.ndarray) -> bool:
    return left.shape == right.shape and bool((np.abs(left.astype(int) - right.astype(int)) <= 1).all())


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_png_of_16_bits_is_scaled(tmp_path, channels):
    values = np.concatenate([DEEP, DEEP[..., :1]], axis=2)[..., :channels]
    pixels = RANGE.read(png16(tmp_path / "a.png", values))
    colours = values[..., : {1: 1, 3: 3, 4: 3}[channels]]
    assert close(pixels, np.broadcast_to(scaled(colours, 0, 4095), (6, 9, 3)))


def test_gray_with_opacity_of_16_bits_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"a\.png has gray and opacity of 16 bits"):
        RANGE.read(png16(tmp_path / "a.png", DEEP[..., :2]))


@pytest.mark.parametrize("kind", ["u2", "i4", "f4"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_tiff_of_any_depth_is_scaled(tmp_path, kind, planar, compression):
    path = tmp_path / "a.tif"
    values = DEEP.astype(kind)
    stored_as = np.moveaxis(values, -1, 0) if planar == "separate" else values
    tifffile.imwrite(path, stored_as, photometric="rgb", planarconfig=planar, compression=compression)
    assert close(RANGE.read(path), scaled(values, 0, 4095))


def test_values_that_are_no_numbers_are_black(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[np.nan, 1.0, np.inf]], dtype=np.float32))
    assert ImageReader(value_range=(0, 1)).read(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_more_than_8_bits_are_refused_without_a_range(tmp_path, name):
    path = tmp_path / name
    if name == "a.png":
        png16(path, DEEP)
    else:
        tifffile.imwrite(path, DEEP, photometric="rgb")
    with pytest.raises(
        InputError, match=rf"{name} has more than 8 bits a value .* such as data\.value_range=\[0,{DEEP.max()}\]"
    ):
        ImageReader().read(path)


@pytest.mark.parametrize("count", [4, 5, 13])
def test_bands_are_named_or_refused(tmp_path, count):
    values = RNG.integers(0, 256, (6, 9, count), dtype=np.uint8)
    path = tmp_path / "a.tif"
    extra = ["unspecified"] * (count - 3)
    tifffile.imwrite(path, values, photometric="rgb", planarconfig="contig", extrasamples=extra)
    with pytest.raises(InputError, match=rf"has {count} bands; name those of red, green and blue"):
        ImageReader().read(path)
    assert (ImageReader(bands=(3, 1, 0)).read(path) == values[..., [3, 1, 0]]).all()
    assert (ImageReader(bands=(2,)).read(path) == values[..., [2, 2, 2]]).all()
    with pytest.raises(InputError, match=rf"has {count} bands, counted from 0; data\.bands names band {count}"):
        ImageReader(bands=(count,)).read(path)
    assert stored(path).size == (6, 9)


def test_opacity_is_no_band(tmp_path):
    values = RNG.integers(0, 256, (6, 9, 4), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extrasamples=["unassalpha"])
    Image.fromarray(values).save(tmp_path / "a.png")
    for name in ("a.tif", "a.png"):
        assert (ImageReader().read(tmp_path / name) == values[..., :3]).all()


def test_inks_are_bands_in_a_tiff_and_a_photograph_in_a_jpeg(tmp_path):
    inks = Image.new("RGB", (9, 6), (200, 40, 40)).convert("CMYK")
    inks.save(tmp_path / "a.tif")
    inks.save(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="4 bands"):
        ImageReader().read(tmp_path / "a.tif")
    assert close(ImageReader().read(tmp_path / "a.jpg") // 4, np.full((6, 9, 3), (200, 40, 40)) // 4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_images_are_upright_as_viewers_show_them(tmp_path, orientation, name):
    pixels = np.kron(RNG.integers(0, 2, (3, 5, 1), dtype=np.uint8) * 255, np.ones((16, 16, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / name, exif=exif, **({} if name == "a.tif" else {"quality": 100}))
    with Image.open(tmp_path / name) as file:
        shown = np.array(ImageOps.exif_transpose(file.convert("RGB") if name == "a.tif" else file).convert("RGB"))
    assert (upright(pixels, orientation) == (shown > 127) * 255).all()
    sample = FileSample("a", tmp_path / name, None, 2)
    assert (np.array(sample.image().permute(1, 2, 0) > 127) * 255 == upright(pixels, orientation)).all()
    assert sample.image_size() == sample.image().shape[-2:]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("drawn", ["upright", "stored"])
def test_a_mask_is_drawn_on_the_upright_image_or_is_turned_with_it(tmp_path, orientation, drawn):
    labels = RNG.integers(0, 2, (3, 5), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.repeat(labels[..., None] * 255, 3, 2)).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(labels if drawn == "stored" else upright(labels, orientation)).save(tmp_path / "m.png")
    sample = FileSample("a", tmp_path / "a.png", tmp_path / "m.png", 2)
    assert torch.equal(sample.mask() * 255, sample.image()[0])
    assert len(sample.notes()) == (drawn == "stored")


def test_pages_are_refused_and_smaller_copies_are_not(tmp_path):
    pages = RNG.integers(0, 256, (3, 6, 9), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", pages, photometric="minisblack")
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as file:
        file.write(pages[0], photometric="minisblack", subifds=0)
        file.write(pages[0][::2, ::2], photometric="minisblack", subfiletype=1)
    frames = [Image.fromarray(page) for page in pages]
    frames[0].save(tmp_path / "film.webp", save_all=True, append_images=frames[1:], lossless=True)
    for name in ("stack.tif", "film.webp"):
        with pytest.raises(InputError, match=f"{name} holds 3 pages"):
            ImageReader().read(tmp_path / name)
    assert (ImageReader().read(tmp_path / "pyramid.tif")[..., 0] == pages[0]).all()


def test_no_other_program_is_started(tmp_path, monkeypatch):
    """EPS would be drawn by Ghostscript."""
    path = tmp_path / "a.jpg"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(InputError, match=r"a\.jpg is no JPEG, PNG, TIFF, BMP, WebP or GIF file"):
        ImageReader().read(path)


def test_an_image_above_the_limit_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    Image.new("RGB", (9, 6)).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", DEEP, photometric="rgb")
    for name in ("a.png", "a.tif"):
        with pytest.raises(InputError, match=rf"{name} has more than 40 pixels"):
            RANGE.read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "deep.png", "deep.tif", "bands.tif"])
def test_damaged_files_end_in_their_pixels_or_in_one_line(tmp_path, name):
    path, reader = tmp_path / name, ImageReader(bands=(0,), value_range=(0, 4095))
    if name == "deep.png":
        png16(path, DEEP)
    elif name in ("deep.tif", "bands.tif"):
        tifffile.imwrite(path, DEEP if name == "deep.tif" else np.tile(DEEP, 2), photometric="rgb", compression="zlib")
    else:
        Image.fromarray(DEEP.astype(np.uint8)).save(path)
    whole, told = path.read_bytes(), []
    for trial in range(120):
        data = bytearray(whole)
        for place in RNG.integers(0, len(data), 1 + trial % 5):
            data[place] = RNG.integers(0, 256)
        path.write_bytes(data[: RNG.integers(1, len(data))] if trial % 3 == 0 else data)
        try:
            assert reader.read(path).shape[2] == 3
            stored(path)
        except InputError as error:
            told.append(str(error))
    assert told
    assert all(name in line and "\n" not in line for line in told)


def photograph(path: Path, mode: str = "RGB", size: tuple[int, int] = (203, 150), orientation: int = 1) -> Image.Image:
    """Smooth colours with noise, saved as a JPEG; returned as it is decoded, upright."""
    y, x = np.mgrid[: size[1], : size[0]]
    waves = np.stack([128 + 90 * np.sin(x / 17 + band) * np.cos(y / (11 + band)) for band in range(3)], axis=-1)
    image = Image.fromarray((waves + RNG.normal(0, 8, waves.shape)).clip(0, 255).astype(np.uint8)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, quality=90, exif=exif)
    return ImageOps.exif_transpose(Image.open(path)).convert("RGB")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("scale", [0.5, 0.3, 0.25, 0.2, 0.1])
def test_a_small_copy_of_a_jpeg_is_like_that_of_all_its_pixels(tmp_path, mode, orientation, scale):
    whole = photograph(tmp_path / "a.jpg", mode, orientation=orientation)
    sample = FileSample("a", tmp_path / "a.jpg", None, 2, scale=scale)
    image = sample.image()
    height, width = round(whole.height * scale), round(whole.width * scale)
    assert image.shape == (3, height, width)
    assert sample.image_size() == (height, width)
    expected = np.array(whole.resize((width, height), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(image.permute(1, 2, 0).numpy() - expected).mean() < 1.5
    if scale > 0.25:
        assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize(("scale", "part"), [(1.0, 1), (0.3, 1), (0.25, 2), (0.13, 2), (0.125, 4), (0.05, 8)])
def test_a_jpeg_is_decoded_at_twice_the_size_that_it_gets(tmp_path, monkeypatch, scale, part):
    photograph(tmp_path / "a.jpg", size=(320, 240))
    decoded = []
    convert = Image.Image.convert
    monkeypatch.setattr(Image.Image, "convert", lambda self, mode: decoded.append(self.size) or convert(self, mode))
    pixels = ImageReader().read(tmp_path / "a.jpg", scale=scale)
    assert decoded == [(320 // part, 240 // part)]
    assert pixels.shape == ((240, 320, 3) if part == 1 else (round(240 * scale), round(320 * scale), 3))


def test_real_photographs_decoded_small_look_the_same(real_data):
    for path in sorted((real_data / "voc_animals" / "JPEGImages").glob("*.jpg"))[::300]:
        whole = Image.open(path).convert("RGB")
        image = FileSample("a", path, None, 2, scale=0.25).image().permute(1, 2, 0).numpy()
        expected = np.array(whole.resize(image.shape[1::-1], Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(image - expected).mean() < 1.5
