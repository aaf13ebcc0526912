"""Strokes instead of whole masks: they are read, they train alone, and what they leave out trains nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from u2pl.commands.prepare import prepared
from u2pl.commands.train import train
from u2pl.config.overrides import load_config
from u2pl.predictor import Predictor

KEYS = (
    *("data.val=val", "data.workers=0", "network.name=smp", "network.architecture=FPN", "network.encoder=mobilenet_v2"),
    *("network.channels=32", "network.embedding_dim=8", "network.pretrained=false", "train.crop_size=64"),
    *("train.batch_size=2", "train.accelerator=cpu", "train.precision=fp32", "method.contrast.bank_size=64"),
    *("method.contrast.keys_per_step=16", "method.contrast.negatives=16", "method.reliability.min_confidence=0"),
    *("train.jitter=false", "train.eval_every=0"),
)


@pytest.fixture
def strokes(tmp_path: Path) -> Path:
    """Halves of red and green; training masks are a stroke through each half, validation masks are whole."""
    root = tmp_path / "photos"
    random = np.random.default_rng(0)
    for name in ("a", "b", "u", "v", "val/x"):
        border = int(random.integers(24, 40))
        image = random.integers(0, 60, (64, 64, 3)).astype(np.uint8)
        image[:, :border, 0] += 150
        image[:, border:, 1] += 150
        whole = np.zeros((64, 64), np.uint8)
        whole[:, border:] = 1
        mask = np.full((64, 64), 255, np.uint8)
        for column in (border // 2, (border + 64) // 2):
            mask[:, column - 2 : column + 2] = whole[:, column - 2 : column + 2]
        for kind, pixels in (("images", image), ("masks", whole if name.startswith("val") else mask)):
            if kind == "masks" and name in "uv":
                continue
            path = root / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (root / "classes.txt").write_text("red\ngreen\n")
    return root


def test_strokes_train_a_model_of_whole_masks(strokes: Path, tmp_path: Path) -> None:
    config = load_config("folder", [f"data.root={strokes}", *KEYS, "train.steps=60", "train.lr=0.003"])
    scores = train(config, tmp_path / "run", say=lambda line: None).scores
    assert scores["student"].miou > 65  # one class everywhere would have about 25
    assert Predictor.from_run(tmp_path / "run").classes == ("red", "green")


def test_check_tells_how_much_is_left_out(strokes: Path) -> None:
    config = load_config("folder", [f"data.root={strokes}", *KEYS])
    inspection = prepared(config, lambda line: None).inspection
    assert inspection.labeled_ignored == pytest.approx(1 - 8 / 64)
    assert inspection.val_ignored == 0
    assert inspection.errors == ()


def test_what_lies_beside_the_strokes_changes_nothing(strokes: Path, tmp_path: Path) -> None:
    """The same strokes on the same images train to the same weights, whatever colour marks the ignored pixels."""
    keys = [f"data.root={strokes}", *KEYS, "train.steps=3"]
    train(load_config("folder", keys), tmp_path / "one", say=lambda line: None)
    for path in (strokes / "masks").glob("*.png"):
        mask = np.array(Image.open(path))
        mask[mask == 255] = 77
        Image.fromarray(mask).save(path)
    values = "data.mask_values=0:red,1:green,77:ignore"
    train(load_config("folder", [*keys, values]), tmp_path / "other", say=lambda line: None)
    one, other = ((tmp_path / name / "last.safetensors").read_bytes()[-100_000:] for name in ("one", "other"))
    assert one == other
