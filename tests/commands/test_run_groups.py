"""The groups of the validation images, on their way from the data set into the files of a run."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import load_file

from u2pl.commands.overview import print_overview
from u2pl.commands.run_folder import AREAS, groups_of, save_areas
from u2pl.commands.train import run_of
from u2pl.config.overrides import load_config
from u2pl.data.inspection import inspect
from u2pl.data.readers.folder import folder
from u2pl.data.source import DataSource
from u2pl.engine.evaluate import Scores
from u2pl.engine.scoring import judge

NONE = DataSource(("a", "b"), [], [], [])


def test_a_run_knows_and_keeps_the_groups(tmp_path: Path) -> None:
    source = replace(NONE, val_groups=(0, 1, 1, 2, 0))
    groups = groups_of(source)
    assert groups is not None
    assert groups.tolist() == [0, 1, 1, 2, 0]
    assert groups_of(NONE) is groups_of(replace(NONE, val_groups=(0, 1, 2))) is None
    before, after = torch.tensor([[3, 3], [9, 9]]).expand(5, 2, 2), torch.tensor([[4, 4], [9, 9]]).expand(5, 2, 2)
    scores = {"teacher": Scores(50.0, {}, 50.0, areas=after)}
    save_areas(tmp_path, scores, {}, groups)
    assert torch.equal(load_file(tmp_path / AREAS)["groups"], groups)
    said: list[str] = []
    run = run_of(load_config("scenes", ["train.steps=10"]), tmp_path, source, (), say=said.append)
    judge(run, {"supervised": before}, scores)
    assert said[0].endswith("the 5 validation images are of 3 groups, too few to say whether that is chance")


def test_a_draw_of_validation_images_is_no_warning(write_folder: Callable[..., Path]) -> None:
    root = write_folder({f"{letter}x": (0, 1, 2) for letter in "abcdef"} | {"u": None})
    source = folder(root=root, val="2")
    inspection = inspect(source, semi_supervised=True)
    assert inspection.problems == []
    console = Console(file=io.StringIO(), width=200)
    print_overview(console, load_config("folder", [f"data.root={root}"]), inspection, source.classes)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert "val: 2 of 6 labeled images are drawn for validation" in lines
