"""A run that is sure of some pixels only, and the masks that a command draws with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file


def spread_run(run: Path, to: Path, *, std: float) -> Path:
    """A copy of a run whose weights differ more between classes, by this standard deviation."""
    shutil.copytree(run, to)
    path = to / "last.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata, state = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    last = max(name for name in state if name.startswith("classifier.") and name.endswith(".weight"))
    torch.manual_seed(0)
    state[last].normal_(std=std)
    save_file(state, path, metadata)
    return to


def masks_in(folder: Path) -> dict[str, np.ndarray]:
    """Values of all png files below a folder, by their names without suffix."""
    return {
        path.relative_to(folder).with_suffix("").as_posix(): np.array(Image.open(path))
        for path in sorted(folder.rglob("*.png"))
    }
