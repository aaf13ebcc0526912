"""Reports of trainings that take a moment: what the page says, and what is one line instead."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tiny_run import build_tiny
from u2pl.commands.finished_run import FinishedRun, read_run, read_runs
from u2pl.commands.report import REPORT, page_of, report, report_training
from u2pl.commands.run_folder import AREAS
from u2pl.commands.train import train
from u2pl.config.overrides import load_config
from u2pl.engine.bootstrap import gain, interval, miou, whole_miou
from u2pl.engine.checkpoint import read_description
from u2pl.engine.resume import saved_value
from u2pl.errors import InputError
from u2pl.experiments.comparison import compare
from u2pl.report.html.kept import KEPT

TINY = (
    *("data.train=8", "data.val=5", "data.labeled=3", "data.height=32", "data.width=48", "data.workers=0"),
    *("network.channels=16", "network.low_level_channels=8", "network.embedding_dim=8"),
    *("method.schedule.warmup=0.4", "method.contrast.bank_size=32", "method.contrast.keys_per_step=8"),
    *("train.steps=6", "train.batch_size=2", "train.crop_size=32", "train.lr=0.05", "train.optimizer=sgd"),
    *("train.log_every=2", "train.eval_every=3", "train.accelerator=cpu", "train.precision=fp32"),
)


@pytest.fixture(scope="module", autouse=True)
def tiny_network() -> Iterator[None]:
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("u2pl.commands.checks.build_network", build_tiny)
        patch.setattr("u2pl.build.trained.build_network", build_tiny)
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders ``u2pl`` and ``supervised`` of the same data; not to be written to."""
    root = tmp_path_factory.mktemp("runs")
    for name in ("u2pl", "supervised"):
        said: list[str] = []
        diagnosed = ["method.diagnose=true"] if name == "u2pl" else []
        train(load_config("scenes", [*TINY, f"method.name={name}", *diagnosed]), root / name, say=said.append)
        assert f"report in {root / name / REPORT}" in said
    return root


@pytest.fixture
def own(runs: Path, tmp_path: Path) -> Path:
    """A copy of the run ``u2pl``, for a test to spoil."""
    return Path(shutil.copytree(runs / "u2pl", tmp_path / "run"))


def test_a_training_ends_with_its_report(runs: Path) -> None:
    text = (runs / "u2pl" / REPORT).read_text()
    run = read_run(runs / "u2pl")
    assert run.areas is not None
    low, high = interval(run.areas)
    assert f"{whole_miou(run.areas):.1f} %" in text
    assert f"95 % interval {low:.1f} to {high:.1f}" in text
    assert "gain over its own warm-up, on labels only" in text
    assert "u2pl on scenes: 3 labeled, 5 unlabeled, 5 validation images, 10 classes" in text
    assert "pseudo-labels: entropy threshold gamma_t" in text
    assert text.count('class="open"') == 5


def test_the_kept_confusion_is_that_of_the_areas(runs: Path) -> None:
    kept = load_file(runs / "u2pl" / AREAS)
    hit = kept["confusion"].diagonal()
    union = kept["confusion"].sum(0) + kept["confusion"].sum(1) - hit
    assert torch.equal(kept["areas"].sum(dim=0), torch.stack((hit, union)))
    shown = page_of([read_run(runs / "u2pl")])
    assert shown.confusion is not None
    assert torch.equal(shown.confusion, kept["confusion"])
    assert shown.gallery_of == "All 5 validation images."


def test_the_interval_is_that_of_loops_over_draws() -> None:
    drawn = torch.Generator().manual_seed(3)
    union = torch.randint(1, 30, (6, 4), generator=drawn)
    areas = torch.stack((torch.minimum(torch.randint(0, 30, (6, 4), generator=drawn), union), union), dim=1)
    places = torch.randint(6, (2000, 6), generator=torch.Generator().manual_seed(0))
    scores = sorted(whole_miou(areas[each]) for each in places)
    low, high = interval(areas)
    assert scores[49] - 1e-9 <= low <= scores[50] + 1e-9
    assert scores[1949] - 1e-9 <= high <= scores[1950] + 1e-9
    assert miou(torch.ones(1, 6, dtype=torch.float64), areas).item() == whole_miou(areas)


def test_the_gain_is_over_the_supervised_run_of_the_same_data(runs: Path) -> None:
    semi, plain = read_run(runs / "u2pl"), read_run(runs / "supervised")
    page = page_of([plain, semi])
    assert semi.areas is not None
    assert plain.areas is not None
    assert (page.run.name, page.other) == ("u2pl", "supervised")
    assert page.gain == gain(plain.areas, semi.areas)
    assert page.gain_over == "labels alone (supervised)"
    assert [row.gain for row in page.runs] == [None, page.gain]
    alone = page_of([semi])
    before = saved_value(runs / "u2pl", "supervised")
    assert alone.gain == gain(before, semi.areas)
    assert page_of([plain]).gain is None


def test_of_several_supervised_runs_the_one_of_the_same_seed_counts(runs: Path) -> None:
    def of_seed(name: str, seed: int) -> FinishedRun:
        run = read_run(runs / name)
        data = run.config.data.model_copy(update={"root": "/files"})  # labels are not drawn by the seed
        return replace(run, config=run.config.model_copy(update={"seed": seed, "data": data}), name=f"{name} {seed}")

    semi, plain, other = of_seed("u2pl", 1), of_seed("supervised", 1), of_seed("supervised", 0)
    assert semi.baseline([other, plain, semi]) is plain
    assert semi.baseline([other, semi]) is other
    assert plain.baseline([other, plain, semi]) is None


def test_labels_alone_of_other_settings_are_no_baseline(runs: Path) -> None:
    semi, plain = read_run(runs / "u2pl"), read_run(runs / "supervised")
    assert semi.config.method.diagnose  # a method's own settings may differ, and what no weight depends on

    def changed(name: str, **values: Any) -> FinishedRun:
        config = plain.config.with_values({key.replace("__", "."): value for key, value in values.items()})
        return replace(plain, config=config, name=name)

    elsewhere = changed(
        "elsewhere", data__workers=1, train__log_every=1, train__accelerator="auto", data__unlabeled="x"
    )
    far = changed("far", network__encoder="resnet50", train__steps=12, data__scale=0.5, train__lr=0.5, train__flip=0.1)
    near = changed("near", train__steps=12, network__encoder="resnet50")
    assert semi.baseline([far, elsewhere]) is elsewhere
    assert semi.baseline([semi, far, near]) is None
    page = page_of([semi, far, near], images=1)
    assert page.gain_over == "its own warm-up, on labels only"
    assert [row.gain for row in page.runs] == [None] * 3
    told = (
        "near is not compared as labels alone, because other settings differ, too: network.encoder=resnet50 (here "
        f"{semi.config.network.encoder}), train.steps=12 (here 6)"
    )
    assert page.notes[0] == told
    assert str(semi.not_over([far])).endswith(" and 1 more")
    assert page_of([semi, plain, far], images=1).notes == []


def test_alike_images_of_a_run_are_drawn_together(own: Path) -> None:
    tensors = load_file(own / AREAS)
    before = read_run(own)
    save_file(tensors | {"groups": torch.tensor([0, 1, 1, 2, 0])}, own / AREAS, metadata=metadata(own))
    run = read_run(own)
    assert (run.row().interval, run.row().groups) == (None, 3)
    since = run.gain_since_warmup()
    assert since is not None
    assert (since.low, since.groups) == (None, 3)
    assert before.row().interval is not None
    assert before.row().groups is None


def metadata(folder: Path) -> dict[str, str]:
    with safe_open(folder / AREAS, framework="pt") as file:
        return dict(file.metadata())


@pytest.mark.parametrize(
    ("method", "points"),
    [
        ("u2pl", [(10, 0.18), (100, 0)]),
        ("weak_u2pl", [(30, 0.14), (100, 0)]),  # tags train only their classifier before
        ("supervised", []),
        ("fixmatch", []),
    ],
)
def test_alpha_falls_from_the_end_of_the_warmup(method: str, points: list[tuple[int, float]]) -> None:
    keys = [f"method.name={method}", "train.steps=100", "method.schedule.warmup=0.1", "method.cam.warmup=0.3"]
    config = load_config("scenes", [*keys, "method.reliability.alpha=0.2"])
    run = FinishedRun(Path(), config, {}, (), (), None, None, None, "run")
    assert [step for step, _ in run.alphas()] == [step for step, _ in points]
    assert [alpha for _, alpha in run.alphas()] == pytest.approx([alpha for _, alpha in points])


def test_runs_of_other_data_are_not_compared_as_if_of_the_same(runs: Path, tmp_path: Path) -> None:
    other = [*TINY, "data.labeled=4", "method.name=supervised"]
    train(load_config("scenes", other), tmp_path / "other", say=lambda line: None, reports=False)
    assert not (tmp_path / "other" / REPORT).exists()
    page = page_of([read_run(runs / "u2pl"), read_run(tmp_path / "other")])
    assert page.runs[0].gain is None
    assert page.other == "other"
    assert page.gain_over == "its own warm-up, on labels only"


def test_the_file_lies_in_the_folder_or_around_several(own: Path, runs: Path) -> None:
    (own / REPORT).unlink()
    assert report([own], images=2) == own / REPORT
    assert "2 of 5 validation images" in (own / REPORT).read_text()
    other = shutil.copytree(runs / "supervised", own.parent / "plain")
    path = report([own, other, own])
    assert path == own.parent / REPORT
    assert path.read_text().count('<th scope="row">plain</th>') == 1


def test_runs_of_one_name_are_told_apart(own: Path, runs: Path) -> None:
    other = Path(shutil.copytree(runs / "supervised", own.parent / "again" / "run"))
    page = page_of(read_runs([own, other, own / ".." / "run"]))
    assert [row.name for row in page.runs] == [str(own), str(other)]
    assert page.other == str(other)
    assert page.bars[0].other == page.runs[1].iou[page.classes[0]]


def test_a_comparison_ends_with_one_report(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    settings = [each for each in TINY if "warmup" not in each]
    compare("scenes", settings, out=tmp_path / "both", methods=["supervised", "u2pl"], console=console)
    text = (tmp_path / "both" / REPORT).read_text()
    assert "Comparison in both; shown in detail: u2pl" in text
    assert "gain over labels alone (supervised" in text
    assert f"report in {tmp_path / 'both' / REPORT}" in console.file.getvalue()  # type: ignore[attr-defined]
    assert [path.parent.name for path in tmp_path.rglob(REPORT)] == ["both"]


def refused(folder: Path, **options: object) -> str:
    """The one line that a report of this folder is."""
    before = sorted(os.listdir(folder)) if folder.is_dir() else None
    with pytest.raises(InputError) as caught:
        report([folder], **options)  # type: ignore[arg-type]
    if before is not None:
        assert sorted(os.listdir(folder)) == before
    return str(caught.value)


def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path, own: Path) -> None:
    assert "no run folder" in refused(tmp_path / "nothing") + refused(tmp_path)
    (own / "config.yaml").write_text("version: 3\nservices: {web: {image: x}}\n")
    assert "version" in refused(own)


def test_an_unfinished_run_is_one_line(own: Path) -> None:
    text = (own / "config.yaml").read_text().replace("steps: 6", "steps: 60")
    (own / "config.yaml").write_text(text)
    assert "is not finished: 6 of 60 steps" in refused(own)
    (own / "last.safetensors").unlink()
    assert "has no last.safetensors" in refused(own)


def test_a_run_whose_last_checkpoint_was_removed_is_finished(own: Path) -> None:
    state = torch.load(own / "last.ckpt", weights_only=True)
    torch.save({**state, "step": 3}, own / "previous.ckpt")
    (own / "last.ckpt").unlink()
    assert report([own]) == own / REPORT


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.jsonl", "{"),
        ("metrics.jsonl", "[1]"),
        ("metrics.jsonl", '{"step": 1, "loss/supervised": "x"}'),
        ("metrics.jsonl", '{"step": 1, "loss/supervised": [1]}'),
        ("metrics.jsonl", '{"loss": 1}'),
        (AREAS, "no tensors"),
        ("last.safetensors", "no tensors"),
    ],
)
def test_a_damaged_file_is_one_line_that_names_it(own: Path, name: str, content: str) -> None:
    (own / name).write_text(content)
    assert name in refused(own)


@pytest.mark.parametrize(
    ("changed", "data"),
    [
        ({"areas": torch.ones(5, 2, 4, dtype=torch.long)}, None),
        ({"areas": torch.ones(5, dtype=torch.long)}, None),
        ({"areas": torch.ones(5, 2, 10)}, None),
        ({"areas": None}, None),
        ({"confusion": torch.ones(4, 4, dtype=torch.long)}, None),
        ({"groups": torch.ones(4, dtype=torch.long)}, None),
        ({"groups": torch.ones(5)}, None),
        ({}, "[]"),
        ({}, '{"classes": [], "labeled": [3, ""]}'),
        ({}, '{"labeled": [3], "unlabeled": [5, ""], "val": [5, ""]}'),
    ],
)
def test_scores_of_another_run_are_one_line(own: Path, changed: dict[str, torch.Tensor], data: str | None) -> None:
    tensors = {name: each for name, each in (load_file(own / AREAS) | changed).items() if each is not None}
    save_file(tensors, own / AREAS, metadata=None if data is None else {"data": data})
    assert f"{AREAS} is damaged" in refused(own)


@pytest.mark.parametrize("key", ["", "classes", "palette", "network", "weights"])
def test_weights_that_are_not_those_of_the_run_are_one_line(own: Path, key: str) -> None:
    path = own / "last.safetensors"
    told = read_description(path)
    spoiled: Any = {"": [], "palette": {**told, "palette": ["red"] * 10}, "weights": told}
    spoiled |= {"classes": {**told, "classes": told["classes"][:3]}, "network": {**told, "network": "deeplab"}}
    save_file({"a": torch.ones(2)}, path, metadata={"u2pl": json.dumps(spoiled[key])})
    assert (AREAS if key == "classes" else "last.safetensors") in refused(own)


def test_numbers_that_are_not_finite_leave_the_charts(own: Path) -> None:
    with (own / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "loss/supervised": NaN, "loss/unsupervised": Infinity}\n')
    report([own], images=1)
    assert not re.search(r"\b(nan|inf)\b", re.sub(r'"data:[^"]*"', "", (own / REPORT).read_text()))


def test_images_of_ignored_pixels_are_no_worst_ones(tmp_path: Path) -> None:
    root, out = tmp_path / "set", tmp_path / "run"
    files_run(root, out)
    Image.new("L", (48, 32), 255).save(root / "masks" / "val" / "1.png")
    page = page_of([read_run(out)])
    assert page.gallery is not None
    assert sorted(card.name for card in page.gallery.cards) == ["val/0", "val/2", "val/3"]
    assert page.gallery_of.startswith("3 of 4 validation images")


def test_files_of_others_are_not_replaced(own: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes.html"
    notes.write_text("<p>mine</p>")
    assert "did not write it" in refused(own, out=notes)
    assert notes.read_text() == "<p>mine</p>"
    assert "is a folder" in refused(own, out=own)
    assert "is missing" in refused(own, out=tmp_path / "no" / "r.html")
    assert "--images 0" in refused(own, images=0)
    said: list[str] = []
    (own / REPORT).write_text("mine")
    report_training(own, page_source(own), said.append)
    assert len(said) == 1
    assert "is not written" in said[0]
    assert (own / REPORT).read_text() == "mine"


def page_source(folder: Path):  # type: ignore[no-untyped-def]
    from u2pl.build import build_source

    config = read_run(folder).config
    return build_source(config.data, seed=config.seed)


def test_a_report_that_fails_does_not_fail_the_training(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(page: object) -> str:
        raise ZeroDivisionError("all\nwrong")

    monkeypatch.setattr("u2pl.commands.report.render", broken)
    said: list[str] = []
    report_training(own, page_source(own), said.append)
    assert said == ["report.html is not written: all wrong"]


def files_run(root: Path, out: Path) -> None:
    """Train on a folder of files."""
    for split, number in (("train", 4), ("val", 4)):
        for index in range(number):
            for kind in ("images", "masks"):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
            Image.effect_noise((48, 32), 60 + index).convert("RGB").save(root / "images" / split / f"{index}.png")
            mask = Image.new("L", (48, 32), 0)
            mask.paste(1, (0, 0, 20 + index, 32))
            mask.save(root / "masks" / split / f"{index}.png")
    (root / "classes.txt").write_text('<img src=x onerror=alert(1)>\na "quoted" name\n')
    settings = [each for each in TINY if not each.startswith(("data.train", "data.val", "data.h", "data.wi"))]
    settings = [each for each in settings if not each.startswith("data.labeled")]
    data = ["data.name=folder", f"data.root={root}", "data.val=val", "data.labeled=2"]
    train(load_config("scenes", [*settings, *data]), out, say=lambda line: None)


def test_kept_pictures_serve_when_the_images_are_gone(tmp_path: Path) -> None:
    root, out = tmp_path / "set", tmp_path / "run"
    files_run(root, out)
    text = (out / REPORT).read_text()
    assert "<img src=x" not in text
    assert text.count('class="open"') == 4
    (root / "images" / "val" / "2.png").write_bytes(b"no image")
    found = page_of([read_run(out)])
    assert found.gallery is not None
    assert len(found.gallery.cards) == 3
    assert found.notes[0].startswith("Images that cannot be read: 1. The first: ")
    (root / "images" / "val" / "2.png").unlink()
    shutil.rmtree(root / "images")
    assert report([out]) == out / REPORT
    text = (out / REPORT).read_text()
    assert "The pictures are small ones, kept at the end of the training:" in text
    assert "<img src=x" not in text
    assert text.count('class="open"') == 4
    assert 'id="calibration-title"' in text
    for spoilt in (b"no archive", None):
        (out / KEPT).unlink() if spoilt is None else (out / KEPT).write_bytes(spoilt)
        assert report([out]) == out / REPORT
        text = (out / REPORT).read_text()
        assert "There is no gallery and no calibration:" in text
        assert ("is damaged" if spoilt else "gallery.zip is missing") in text
        assert 'id="confusion-title"' in text
        assert 'class="open"' not in text


def test_a_run_of_an_earlier_version_gets_a_report_too(own: Path) -> None:
    (own / AREAS).unlink()
    (own / "choices.txt").write_text("auto: train.steps 6: <b>because</b>\n")
    page = page_of([read_run(own)])
    assert page.run.interval is None
    last = [json.loads(line) for line in (own / "metrics.jsonl").read_text().splitlines()]
    assert page.run.miou == [line["teacher/miou"] for line in last if "teacher/miou" in line][-1]
    assert page.confusion_of == "Counted over 5 images."
    report([own])
    assert "&lt;b&gt;because&lt;/b&gt;" in (own / REPORT).read_text()
