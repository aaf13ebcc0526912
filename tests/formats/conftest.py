"""Masks that every format meets."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def scene() -> np.ndarray:
    """A mask with a hole, a part in a hole, several components, and ignored pixels."""
    mask = np.zeros((40, 60), dtype=np.uint8)
    mask[5:30, 5:40] = 1
    mask[10:25, 10:30] = 0
    mask[14:20, 15:22] = 2
    mask[16:18, 17:19] = 255
    mask[33:36, 45:55] = 2
    mask[38:, 50:] = 255
    mask[0, 0] = 2
    return mask
