"""``u2pl evaluate`` with another protocol than that of the run, on its data and on folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from u2pl.engine.checkpoint import read_description, save_weights
from u2pl.predictor import Predictor

Command = Callable[..., Any]
WAY = ("evaluation.protocol=sliding", "evaluation.window=20", "evaluation.scales=[0.75,1.0]", "evaluation.flip=true")


@pytest.fixture(scope="module")
def run(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, its network changed into one that predicts every class somewhere: three steps taught it one."""
    folder = tmp_path_factory.mktemp("varied")
    shutil.copy(run_folder / "config.yaml", folder)
    network, weights = Predictor.from_run(run_folder).network, "last.safetensors"
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                spread = parameter[0].numel() ** -0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    save_weights(folder / weights, network, read_description(run_folder / weights))
    return folder


def folders(files: Path) -> tuple[Any, ...]:
    return ("--images", files / "images" / "val", "--masks", files / "masks" / "val")


def evaluate(u2pl: Command, *arguments: Any) -> dict[str, Any]:
    shown = u2pl("evaluate", *arguments, "--json")
    assert (shown.code, shown.err) == (0, "")
    return json.loads(shown.out)


def watched(u2pl: Command, *arguments: Any) -> tuple[dict[str, Any], list[tuple[int, ...]]]:
    """Scores, and the shapes of what the network saw for them."""
    seen: list[tuple[int, ...]] = []
    load = Predictor.load.__func__  # type: ignore[attr-defined]

    def hooked(cls: type[Predictor], *given: Any, **options: Any) -> Predictor:
        predictor = load(cls, *given, **options)

        def note(module: nn.Module, inputs: Any) -> None:
            seen.append(tuple(inputs[0].shape))

        predictor.network.register_forward_pre_hook(note)
        return predictor

    with mock.patch.object(Predictor, "load", classmethod(hooked)):
        return evaluate(u2pl, *arguments), seen


def test_a_protocol_can_be_chosen_and_is_the_same_on_folders(u2pl: Command, run: Path, files: Path) -> None:
    scores, seen = watched(u2pl, run, *WAY)
    assert {shape[-2:] for shape in seen} == {(20, 20)}
    assert scores != evaluate(u2pl, run)
    assert watched(u2pl, run, *WAY, *folders(files)) == (scores, seen)
    one = evaluate(u2pl, run, "evaluation.protocol=sliding")  # an image that fits into a window is seen whole
    assert one == evaluate(u2pl, run)


def test_full_size_masks_with_the_network_at_the_scale_it_was_trained_at(u2pl: Command, run: Path, files: Path) -> None:
    """The run is of half size: ``evaluation.scales`` keeps the network there when ``data.scale`` does not."""
    sizes = []
    for mask in sorted((files / "masks" / "val").rglob("*.png")):
        with Image.open(mask) as file:
            sizes.append(np.array(file).shape)
    full = {(1, 3, *size) for size in sizes}
    half = {(1, 3, height // 2, width // 2) for height, width in sizes}
    at_half, seen = watched(u2pl, run)
    assert set(seen) == half
    at_full, seen = watched(u2pl, run, "data.scale=1")
    assert set(seen) == full
    between, seen = watched(u2pl, run, "data.scale=1", "evaluation.scales=[0.5]")
    assert set(seen) == half
    assert len({scores["pixel_accuracy"] for scores in (at_half, at_full, between)}) == 3
    for scale, scores in (("data.scale=1", at_full), ("data.scale=0.5", at_half)):
        assert evaluate(u2pl, run, scale, *folders(files)) == scores


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("evaluation.scales=[1.0,0]", "evaluation.scales: should be greater than or equal to 0.01, not 0"),
        ("evaluation.scales=[-0.5]", "evaluation.scales: should be greater than or equal to 0.01, not -0.5"),
        ("evaluation.scales=[9]", "evaluation.scales: should be less than or equal to 4, not 9"),
        ("evaluation.scales=[.inf]", "evaluation.scales"),
        ("evaluation.scales=[]", "evaluation.scales"),
        ("evaluation.scales=2", "evaluation.scales: should be a valid list, not 2"),
        ("evaluation.window=8", "evaluation.window: should be greater than or equal to 16, not 8"),
        ("evaluation.overlap=1", "evaluation.overlap: should be less than or equal to 0.95, not 1"),
        ("evaluation.overlap=-0.1", "evaluation.overlap: should be greater than or equal to 0"),
        ("evaluation.protocol=tiled", "evaluation.protocol: should be 'auto', 'whole' or 'sliding', not 'tiled'"),
        ("evaluation.windows=32", "unknown key evaluation.windows (did you mean window?)"),
    ],
)
def test_nonsense_is_one_line(u2pl: Command, run: Path, override: str, told: str) -> None:
    shown = u2pl("evaluate", run, override)
    assert (shown.code, shown.out, shown.err.count("\n")) == (2, "", 1)
    assert told in shown.err


def test_masks_of_0_and_255_are_no_classes(u2pl: Command, run_folder: Path, files: Path, tmp_path: Path) -> None:
    """They would leave one class, and a score of nothing."""
    for name in ("v", "sub/w"):
        with Image.open(files / "masks" / "val" / f"{name}.png") as mask:
            binary = np.where(np.arange(mask.width) % 2, 255, 0)[None].repeat(mask.height, axis=0)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(binary.astype(np.uint8)).save(tmp_path / f"{name}.png")
    given = ("evaluate", run_folder, "--images", files / "images" / "val", "--masks", tmp_path)
    refused = u2pl(*given)
    assert refused.code == 2
    assert "0 and 255 only" in refused.err
    assert refused.err.count("\n") == 1
    told = u2pl(*given, "data.mask_values=0:sky,255:road", "--json")
    assert (told.code, told.err) == (0, "")
