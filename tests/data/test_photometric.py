"""Photometric jitter, of samples as they are read and of mixed images on a device."""

import torch
from torchvision.transforms import v2

from u2pl.data.photometric import Photometric

NEVER = {"jitter_probability": 0.0, "gray_probability": 0.0, "blur_probability": 0.0}


def test_parts_in_their_order_with_their_defaults() -> None:
    image = torch.randint(0, 256, (3, 20, 24), dtype=torch.uint8)
    parts = [
        v2.RandomApply([v2.ColorJitter(0.5, 0.5, 0.5, 0.25)], p=0.8),
        v2.RandomGrayscale(0.2),
        v2.RandomApply([v2.GaussianBlur(9, (0.1, 2.0))], p=0.5),
    ]
    for seed in range(10):
        torch.manual_seed(seed)
        found = Photometric()(image)
        torch.manual_seed(seed)
        expected = image
        for part in parts:
            expected = part(expected)
        assert torch.equal(found, expected)


def test_nothing_changes_where_nothing_is_asked_for() -> None:
    image = torch.rand(3, 9, 9)
    assert torch.equal(Photometric(**NEVER)(image), image)


def test_a_float_image_changes_as_its_bytes_do() -> None:
    image = torch.randint(0, 256, (3, 20, 24), dtype=torch.uint8)
    for seed in range(5):
        torch.manual_seed(seed)
        as_bytes = Photometric()(image)
        torch.manual_seed(seed)
        as_float = Photometric()(image / 255)
        assert as_float.dtype == torch.float32
        assert 0 <= as_float.min() <= as_float.max() <= 1
        assert torch.allclose(as_float, as_bytes / 255, atol=4 / 255)


def test_no_device_is_waited_for() -> None:
    """Tensors of the meta device have no values: whatever would read one back fails."""
    always = dict.fromkeys(NEVER, 1.0)
    for _ in range(5):  # each draws another order of brightness, contrast, saturation and hue
        assert Photometric(**always)(torch.empty(3, 16, 16, device="meta")).shape == (3, 16, 16)
