"""Pictures hold what they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from u2pl.report.pictures import colour_table, coloured, heat, overlay, save_image, save_mask, save_panels, trust

PALETTE = ((10, 20, 30), (200, 100, 0), (0, 0, 255))
MASK = torch.tensor([[0, 1, 2], [2, 255, 0]], dtype=torch.uint8)


def test_a_mask_is_saved_as_indices_with_the_colours_of_its_classes(tmp_path: Path) -> None:
    save_mask(tmp_path / "mask.png", MASK, PALETTE)
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.array(image), MASK.numpy())
        colours = np.array(image.convert("RGB"))
    assert colours[0].tolist() == [list(colour) for colour in PALETTE]
    assert colours[1, 1].tolist() == [255, 255, 255]  # ignored
    assert np.array_equal(colours, coloured(MASK, PALETTE).permute(1, 2, 0).numpy())
    assert colour_table(PALETTE).shape == (256, 3)


def test_an_overlay_mixes_image_and_colours_pixel_by_pixel() -> None:
    torch.manual_seed(0)
    image, mask = torch.randint(0, 256, (3, 150, 9), dtype=torch.uint8), torch.randint(0, 4, (150, 9)).byte()
    mask[mask == 3] = 255
    palette = ((200, 0, 7), (1, 255, 0), (90, 80, 255))
    expected = torch.lerp(image.float(), coloured(mask, palette).float(), 0.55).round().to(torch.uint8)
    assert torch.equal(overlay(image, mask, palette), expected)
    assert torch.equal(overlay(image.permute(1, 2, 0).contiguous().permute(2, 0, 1), mask, palette), expected)


def test_an_overlay_lies_between_image_and_colours() -> None:
    image = torch.full((3, 2, 3), 100, dtype=torch.uint8)
    assert torch.equal(overlay(image, MASK, PALETTE, strength=0.0), image)
    assert torch.equal(overlay(image, MASK, PALETTE, strength=1.0), coloured(MASK, PALETTE))
    assert overlay(image, MASK, PALETTE, strength=0.5)[:, 0, 1].tolist() == [150, 100, 50]


def test_heat_rises_from_black_to_white() -> None:
    picture = heat(torch.tensor([[0.0, 1.0, 2.0, 3.0, 9.0]]), largest=3.0)
    columns = picture[:, 0].T.tolist()
    assert columns == [[0, 0, 0], [255, 0, 0], [255, 255, 0], [255, 255, 255], [255, 255, 255]]


def test_trust_is_green_red_or_gray() -> None:
    picture = trust(torch.tensor([[True, False, False]]), torch.tensor([[False, True, False]]))
    (_, green, _), (red, *_), gray = picture[:, 0].T.tolist()
    assert green == 160
    assert red == 214
    assert gray == [128, 128, 128]


def test_images_and_panels_have_their_size(tmp_path: Path) -> None:
    image = torch.randint(0, 256, (3, 6, 8), dtype=torch.uint8)
    save_image(tmp_path / "image.png", image)
    with Image.open(tmp_path / "image.png") as saved:
        assert np.array_equal(np.array(saved), image.permute(1, 2, 0).numpy())
    save_panels(tmp_path / "sheet.png", [[image, image], [image, image]], ("a", "b"), zoom=2)
    with Image.open(tmp_path / "sheet.png") as sheet:
        width, height = sheet.size
        pixels = np.array(sheet)
    assert width >= 2 * 16
    assert height >= 2 * 12
    corner = image.permute(1, 2, 0).numpy().repeat(2, 0).repeat(2, 1)
    assert np.array_equal(pixels[height - 12 :, width - 16 :], corner)  # the last picture ends the sheet
