"""Suggestions from runs of every kind, through Python."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import resnet18

from u2pl.build import build_source
from u2pl.commands import segmenting
from u2pl.commands.suggest import Suggested, suggest
from u2pl.commands.train import train
from u2pl.config.overrides import load_config, load_saved
from u2pl.data.files import FileSample
from u2pl.data.scenes.reader import scenes as drawn
from u2pl.errors import InputError
from u2pl.labelling.looks import Looks
from u2pl.labelling.tags import tags_of
from u2pl.predictor import Predictor

SHORT = (
    *("train.steps=2", "train.batch_size=2", "train.crop_size=48", "train.accelerator=cpu", "train.precision=fp32"),
    *("train.eval_every=0", "data.workers=0", "network.name=deeplabv3plus", "network.encoder=resnet18"),
    *("network.channels=8", "network.low_level_channels=8", "network.embedding_dim=8", "network.pretrained=false"),
    *("method.contrast.bank_size=64", "method.contrast.keys_per_step=8"),
)
SCENES = ("data.train=8", "data.height=48", "data.width=64")


def quiet(line: str) -> None:
    pass


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def trained(preset: str, out: Path, *overrides: str) -> Path:
    return train(load_config(preset, [*SHORT, *overrides]), out, say=quiet).folder


def suggestions(run: Path, out: Path, **options: Any) -> Suggested:
    return suggest(run, out, say=quiet, device="cpu", **options)


def scenes(root: Path, **options: str) -> Path:
    """Drawn scenes as files; the first three have masks, the others do not."""
    source = drawn(labeled=8, train=8, val=2, height=48, width=64, **options)  # type: ignore[arg-type]
    for part, samples in (("train", source.labeled), ("val", source.val)):
        for number, sample in enumerate(samples):
            path = root / "images" / part / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(sample.image().permute(1, 2, 0).numpy()).save(path)
            if part == "val" or number < 3:
                (root / "masks" / part).mkdir(parents=True, exist_ok=True)
                Image.fromarray(sample.mask().numpy()).save(root / "masks" / part / f"{number}.png")
    (root / "classes.txt").write_text("\n".join(source.classes))
    return root


def test_drawn_images_are_no_files(tmp_path: Path) -> None:
    run = trained("scenes", tmp_path / "run", *SCENES, "data.labeled=3", "method.name=supervised")
    with pytest.raises(InputError, match="are drawn by u2pl, no files; give --images DIR"):
        suggestions(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_target_of_two_domains(tmp_path: Path) -> None:
    source, target = scenes(tmp_path / "source"), scenes(tmp_path / "target", domain="night")
    keys = (f"data.source.root={source}", f"data.target.root={target}", "method.name=supervised")
    run = trained(
        "domain", tmp_path / "run", *keys, "data.source.name=folder", "data.target.name=folder", "data.target.val=val"
    )
    done = suggestions(run, tmp_path / "out", count=3)
    unlabeled = build_source(load_saved(run / "config.yaml").data, seed=0).unlabeled
    assert done.images == len(unlabeled)
    assert all(path.is_relative_to(target) for path in done.paths)
    assert {path.parent.name for path in (tmp_path / "out" / "drafts").rglob("*.png")} == {"train"}


def test_a_cached_run_and_what_the_api_returns(tmp_path: Path) -> None:
    root = scenes(tmp_path / "set")
    run = trained("folder", tmp_path / "run", f"data.root={root}", "data.val=val", "data.cache=true", "data.scale=0.5")
    told: list[tuple[str, int, int]] = []
    done = suggestions(run, tmp_path / "out", count=2, progress=lambda *report: told.append(report))
    assert (done.images, done.failed, len(done.paths)) == (5, [], 2)
    with (tmp_path / "out" / "suggested.csv").open() as file:
        assert [row["image"] for row in csv.DictReader(file)] == [str(path) for path in done.paths]
    with Image.open(tmp_path / "out" / "drafts" / "train" / f"{done.paths[0].stem}.png") as draft:
        assert draft.size == (64, 48)
    counts = {name: [report[1:] for report in told if report[0] == name] for name, *_ in told}
    assert counts == {
        "looking at images": [(n, 8) for n in range(9)],
        "drafting masks": [(n, 2) for n in range(3)],
    }
    before = [each.entropy for each in done.ranking.suggestions]
    told.clear()
    other = suggestions(
        run,
        tmp_path / "out",
        overrides=["evaluation.flip=true"],
        count=2,
        progress=lambda *report: told.append(report),
    )
    assert next(report for report in told if report[0] == "looking at images") == ("looking at images", 0, 8)
    assert [each.entropy for each in other.ranking.suggestions] != before


def test_the_run_is_told_how_to_read_other_files(tmp_path: Path) -> None:
    root = scenes(tmp_path / "set")
    run = trained("folder", tmp_path / "run", f"data.root={root}", "data.val=val", "method.name=supervised")
    (tmp_path / "deep").mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 4096, (48, 64), dtype=np.uint16)
        Image.fromarray(pixels).save(tmp_path / "deep" / f"{number}.png")
    with pytest.raises(InputError, match=r"such as data\.value_range="):
        suggestions(run, tmp_path / "out", images=tmp_path / "deep")
    done = suggestions(run, tmp_path / "out", images=tmp_path / "deep", overrides=["data.value_range=[0,4095]"])
    assert done.images == 2


@pytest.mark.slow
def test_tags_are_of_the_image_prior(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(resnet18().state_dict(), tmp_path / "resnet18.safetensors")
    root = scenes(tmp_path / "set", kind="objects")
    prior = ("method.image_prior.sharpness=2", f"network.weights={tmp_path / 'resnet18.safetensors'}")
    run = trained("folder", tmp_path / "run", f"data.root={root}", "data.val=val", "method.name=mean_teacher", *prior)
    predictor = Predictor.from_run(run)
    assert predictor.image_prior is not None
    predictor.image_prior.told[1:] = True  # three labels do not tell many classes apart
    done = suggestions(run, tmp_path / "out", count=5, tags=True)
    own = Predictor.from_run(run)
    with (tmp_path / "out" / "tags.csv").open() as file:
        rows = {row["image"]: row["tags"] for row in csv.DictReader(file)}
    for path, each in zip(done.paths, done.ranking.suggestions, strict=True):
        image = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
        expected = tags_of(image, each.classes, own.image_prior)
        assert rows[f"train/{path.stem}"] == ";".join(own.classes[index] for index in expected)


@pytest.mark.slow
def test_photographs(real_data: Path, tmp_path: Path) -> None:
    """Of a short training on CamVid: the ranking covers several sequences, and scores fall."""
    root, paths = tmp_path / "set", sorted((real_data / "camvid" / "images" / "train").iterdir())[::30]
    for number, path in enumerate(paths):
        for kind, name in (("images", path.name), ("masks", f"{path.stem}.png")):
            if kind == "images" or number < 4:
                (root / kind).mkdir(parents=True, exist_ok=True)
                shutil.copy(real_data / "camvid" / kind / "train" / name, root / kind / name)
    shutil.copy(real_data / "camvid" / "classes.txt", root)
    keys = (f"data.root={root}", "data.val=none", "data.scale=0.25", "train.steps=8", "method.name=supervised")
    run = trained("folder", tmp_path / "run", *keys)
    done = suggestions(run, tmp_path / "out", count=99)
    assert done.images == len(paths) - 4
    scores = [each.score for each in done.ranking.suggestions]
    assert scores == sorted(scores, reverse=True)
    assert 0.05 < sum(each.unreliable for each in done.ranking.suggestions) / done.images <= 0.2


def test_few_images_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read ahead within the bound that `u2pl predict` has, whatever the number of images."""
    root = scenes(tmp_path / "set")
    run = trained("folder", tmp_path / "run", f"data.root={root}", "data.val=val", "method.name=supervised")
    monkeypatch.setattr(segmenting, "_PIXELS", 48 * 64)
    read, add = FileSample.image, Looks.add
    held = [0, 0]  # now, and at most

    def reading(self: FileSample) -> torch.Tensor:
        held[0] += 1
        held[1] = max(held)
        return read(self)

    def adding(self: Looks, *arguments: Any) -> None:
        held[0] -= 1
        add(self, *arguments)

    monkeypatch.setattr(FileSample, "image", reading)
    monkeypatch.setattr(Looks, "add", adding)
    suggestions(run, tmp_path / "out", count=1)
    assert held[1] <= 3
