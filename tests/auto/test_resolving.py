"""`auto` in a run: what is looked at, what is saved and printed, and what a resumed run keeps."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file

from tiny_run import KillAt, KilledError, build_tiny
from u2pl.auto.choices import value_text
from u2pl.auto.facts import classes_shown, facts_of, typical_size
from u2pl.auto.resolving import resolved
from u2pl.auto.rules import machine
from u2pl.commands.check import check
from u2pl.commands.evaluate import score_run
from u2pl.commands.train import train
from u2pl.config.overrides import load_config
from u2pl.config.schema import Config
from u2pl.data.files import CachedSample
from u2pl.data.source import DataSource
from u2pl.engine.machine import make_fabric
from u2pl.errors import InputError

CPU = torch.device("cpu")
OVERRIDES = (
    *("data.val=val", "data.labeled=2", "data.workers=0", "network.embedding_dim=8"),
    *("method.contrast.bank_size=32", "method.contrast.negatives=16", "train.accelerator=cpu", "train.precision=fp32"),
)


class Painted:
    """A sample without a header."""

    has_mask = True

    def __init__(self, name: str, height: int, width: int) -> None:
        self.name, self.size = name, (height, width)

    def image(self) -> torch.Tensor:
        return torch.zeros(3, *self.size, dtype=torch.uint8)

    def mask(self) -> torch.Tensor:
        """The background, and a class more in one image of four; 255 is no class."""
        mask = torch.zeros(self.size, dtype=torch.uint8)
        mask[0], mask[1] = 255, int(self.name) % 4 == 0
        return mask


@pytest.fixture
def photos(write_folder: Callable[..., Path]) -> Path:
    contents: dict[str, tuple[int, ...] | None] = {f"train/{name}": (0, 1, 2) for name in "abc"}
    return write_folder({**contents, "train/d": None, "train/e": None, "val/v": (0, 1)})


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of a moment: eight steps of a tiny network."""
    torch.set_num_threads(1)
    monkeypatch.setattr("u2pl.commands.checks.build_network", build_tiny)
    monkeypatch.setattr("u2pl.build.trained.build_network", build_tiny)
    monkeypatch.setattr(machine, "CPU", machine.CPU._replace(fewest=8, most=8))


def source_of(labeled: int, unlabeled: int) -> DataSource:
    samples = [Painted(f"{number * 7 % 1000:03}", 40 + number % 3, 60) for number in range(labeled + unlabeled)]
    return DataSource(("a", "b"), samples[:labeled], samples[labeled:], [])  # type: ignore[arg-type]


def test_masks_that_cannot_be_read_are_left_out_of_the_facts() -> None:
    class Broken(Painted):
        def mask(self) -> torch.Tensor:
            raise InputError("broken")

    whole = source_of(8, 0)
    # Named 000, 007, ... 049: all show the first class, 000 and 028 the second, which is uncommon.
    assert classes_shown(whole) == (10 / 8, 2 / 8)
    broken = [Broken("1", 4, 4), Broken("2", 4, 4)]
    assert classes_shown(replace(whole, labeled=[*whole.labeled, *broken])) == (10 / 8, 2 / 8)
    assert classes_shown(replace(whole, labeled=broken)) == classes_shown(replace(whole, labeled=[])) == (0, 0)


CHOSEN = "chosen by `auto`:\n"


def plain_console() -> Console:
    """A console that is no terminal: no line is broken."""
    return Console(file=io.StringIO(), width=80)


def text_of(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def chosen_in(text: str) -> dict[str, str]:
    """Values by key in the table of choices."""
    head, *rows = text.partition(CHOSEN)[2].splitlines()
    assert head.split() == ["setting", "value", "because"]
    cells = [re.split(r" {2,}", row) for row in rows]
    return {row[0]: row[1] for row in cells if len(row) > 1}


def numbers(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def test_facts_of_a_data_set_and_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("u2pl.auto.facts.missing_compiler", lambda device: f"none for {device}")
    facts = facts_of(source_of(4, 5), device=CPU, processes=3)
    assert (facts.labeled, facts.unlabeled, facts.images, facts.val, facts.classes) == (4, 5, 9, 0, 2)
    assert (facts.height, facts.width, facts.device, facts.processes) == (41, 60, "cpu", 3)
    assert (facts.shown, facts.uncommon) == (1.25, 0.25)
    assert facts.memory == facts.host_memory > 2**28
    assert facts.cores >= 1
    assert facts.uncompilable == "none for cpu"


def test_the_typical_size_is_the_same_however_many_are_labeled() -> None:
    sizes = {typical_size([*source.labeled, *source.unlabeled]) for source in (source_of(1, 999), source_of(700, 300))}
    assert sizes == {(41, 60)}
    assert typical_size([Painted(str(number), 10 + number, 7) for number in range(2)]) == (10, 7)  # type: ignore[misc]
    looked: list[int] = []

    class Counted(Painted):
        def image_size(self) -> tuple[int, int]:
            looked.append(1)
            return self.size

    assert typical_size([Counted(f"{number:04}", number, 7) for number in range(1, 1001)]) == (496, 7)  # type: ignore[misc]
    assert len(looked) == 200
    with pytest.raises(InputError, match="there is no image to train on"):
        typical_size([])


def test_images_stay_in_memory_where_that_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    fabric = make_fabric(accelerator="cpu", devices=1, nodes=1, precision="fp32")
    for share, cache in ((0.25, True), (0.0, False)):
        monkeypatch.setattr(machine, "CACHE_SHARE", share)
        config, source, _ = resolved(load_config("folder"), source_of(2, 2), fabric)
        assert config.data.cache is cache
        assert isinstance(source.labeled[0], CachedSample) is cache
    assert resolved(Config(), source_of(2, 2), fabric).choices == ()


@pytest.mark.usefixtures("tiny")
def test_a_run_saves_numbers_and_says_why(photos: Path, tmp_path: Path) -> None:
    said: list[str] = []
    config, console = load_config("folder", [f"data.root={photos}", *OVERRIDES, "train.lr=0.02"]), plain_console()
    train(config, tmp_path / "run", say=said.append, console=console)
    saved = load_config(tmp_path / "run" / "config.yaml")
    assert saved.auto_keys() == []
    assert not any("auto" in str(value) for key, value in saved.train if key not in ("accelerator",))
    assert (saved.train.steps, saved.train.lr, saved.train.crop_size) == (8, 0.02, 32)
    keys, contrast = saved.method.negative_keys, saved.method.contrast
    assert contrast is not None
    assert (contrast.keys_per_step, keys.low_rank, keys.high_rank) == (16, 1, 3)
    told = set(config.auto_keys()) - {"method.threshold"}  # u2pl has none
    assert chosen_in(text_of(console)) == {key: value_text(saved.value(key)) for key in told}
    reasons = (tmp_path / "run" / "choices.txt").read_text().splitlines()
    assert all(line.startswith("auto: ") for line in reasons)
    for key in config.auto_keys():
        assert any(f" {key} {value_text(saved.value(key))}" in line for line in reasons), key
    assert not any("train.lr " in line for line in reasons)
    assert "8 steps" in said[-1]
    scores = score_run(tmp_path / "run")
    assert 0 <= scores.miou <= 100
    with pytest.raises(InputError, match=r"^data\.workers: auto is chosen in training only"):
        score_run(tmp_path / "run", ["data.workers=auto"])


@pytest.mark.usefixtures("tiny")
def test_a_resumed_run_keeps_what_was_chosen(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("folder", [f"data.root={photos}", *OVERRIDES, "train.save_every=2", "train.log_every=1"])
    train(config, tmp_path / "whole", say=lambda line: None)
    with pytest.raises(KilledError):
        train(config, tmp_path / "cut", say=lambda line: None, watchers=(KillAt(5),))
    before = numbers(tmp_path / "cut" / "config.yaml")
    monkeypatch.setattr(machine, "CPU", machine.CPU._replace(fewest=99, most=99, crop=64, bank=10))
    monkeypatch.setattr(machine, "CACHE_SHARE", 0.0)  # the machine has less memory now
    reasons = (tmp_path / "cut" / "choices.txt").read_text()
    console = plain_console()
    train(config, tmp_path / "cut", resume=True, say=lambda line: None, console=console)
    assert chosen_in(text_of(console)) == {"data.cache": "false"}
    assert (tmp_path / "cut" / "choices.txt").read_text() == reasons == (tmp_path / "whole" / "choices.txt").read_text()
    assert numbers(tmp_path / "cut" / "config.yaml") == before == numbers(tmp_path / "whole" / "config.yaml")
    whole, cut = (load_file(tmp_path / folder / "last.safetensors") for folder in ("whole", "cut"))
    assert all(torch.equal(whole[key], cut[key]) for key in whole)
    set_now = load_config("folder", [f"data.root={photos}", *OVERRIDES, "train.steps=9"])
    with pytest.raises(InputError, match=r"^train\.save_every|^train\.steps: is 9 now but 8"):
        train(set_now, tmp_path / "cut", resume=True, say=lambda line: None)


def test_check_says_what_training_would_do(photos: Path) -> None:
    console = plain_console()
    overrides = [f"data.root={photos}", *OVERRIDES, "train.steps=7"]
    assert check("folder", overrides, console)
    text = text_of(console)
    found = chosen_in(text)
    assert found["train.crop_size"] == "32"
    assert found["train.scale_range"] == "[0.75, 1.5]"
    assert found["train.eval_every"] == "1"
    assert found.keys() <= set(load_config("folder", overrides).auto_keys())
    assert "images of 12x16, at most 256 on cpu" in text
    assert "4 validations in 7 steps" in text
    assert text.index(CHOSEN) < text.index("ready to train")
    reason = "4 validations in 7 steps; each of 2 labels is seen about 28 times"
    assert reason not in text
    verbose = plain_console()
    assert check("folder", overrides, verbose, verbose=True)
    assert reason in text_of(verbose)
    (photos / "images" / "train" / "a.png").write_bytes(b"no image")
    broken = plain_console()
    assert not check("folder", [f"data.root={photos}", "data.val=val"], broken)
    assert CHOSEN not in text_of(broken)


@pytest.mark.usefixtures("tiny")
def test_supervised_training_without_unlabeled_images(photos: Path, tmp_path: Path) -> None:
    for name in "de":
        Image.new("L", (16, 12)).save(photos / "masks" / "train" / f"{name}.png")
    overrides = [*OVERRIDES, "data.labeled=null", "method.name=supervised"]
    train(load_config("folder", [f"data.root={photos}", *overrides]), tmp_path / "run", say=lambda line: None)
    assert load_config(tmp_path / "run" / "config.yaml").auto_keys() == []
