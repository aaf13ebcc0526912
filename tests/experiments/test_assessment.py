"""`u2pl assess`: folds, the time it takes, what is compared, and that it goes on where it stopped."""

from __future__ import annotations

import html
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from u2pl.build import build_source
from u2pl.commands.run_folder import AREAS
from u2pl.config.overrides import load_config
from u2pl.engine.bootstrap import Gain, gain, whole_miou
from u2pl.errors import InputError
from u2pl.experiments import assessment, sizing
from u2pl.experiments.assessment import Assessment, areas_of, assess, groups_of
from u2pl.experiments.folds import classes_shown, folds_of, write_folds
from u2pl.experiments.sizing import Pace, steps_within

Folder = Callable[..., Path]
TINY = (
    *(
        "data.workers=0",
        "data.cache=false",
        "network.pretrained=false",
        "network.embedding_dim=8",
        "train.crop_size=32",
    ),
    *("train.batch_size=2", "train.accelerator=cpu", "train.precision=fp32", "method.contrast.bank_size=32"),
    *("method.contrast.keys_per_step=8", "method.contrast.negatives=16", "method.schedule.warmup=0.3"),
    *("method.reliability.min_confidence=0", "train.log_every=1"),
)


def shown(count: int, classes: int = 3) -> dict[str, frozenset[int]]:
    return {f"photo{chr(97 + n // 26)}{chr(97 + n % 26)}": frozenset({0, n % classes}) for n in range(count)}


@pytest.mark.parametrize(("images", "number"), [(9, 3), (10, 3), (2, 2), (50, 5)])
def test_each_image_is_held_out_once(images: int, number: int) -> None:
    known = shown(images)
    folds = folds_of(known, number, seed=1)
    assert len(folds) == number
    assert sorted(name for fold in folds for name in fold.val) == sorted(known)
    for fold in folds:
        assert set(fold.labeled) == set(known) - set(fold.val)
        assert set(fold.half) <= set(fold.labeled)
        assert len(fold.half) == max(1, len(fold.labeled) // 2)
        assert abs(len(fold.val) - images / number) < 1
    assert folds_of(dict(reversed(known.items())), number, seed=1) == folds
    if images > 9:
        assert folds_of(known, number, seed=2) != folds


def test_frames_and_groups_are_not_divided() -> None:
    frames = {f"clip/{30 * number:05}": frozenset({0}) for number in range(30)}
    for fold in folds_of(frames, 3, seed=0):
        places = sorted(int(Path(name).name) // 30 for name in fold.val)
        assert sum(place + 1 not in places for place in places) <= 4
        assert 9 <= len(places) <= 12
    known = shown(12)
    groups = {name: f"p{number // 3}" for number, name in enumerate(known)}
    for fold in folds_of(known, 2, seed=0, groups=groups):
        assert not {groups[name] for name in fold.val} & {groups[name] for name in fold.labeled}


def test_folds_of_unequal_groups_are_about_equal() -> None:
    sizes = {"a": 5, "b": 4, "c": 3, "d": 3, "e": 2, "f": 1}
    groups = {f"{name}{number}x": name for name, size in sizes.items() for number in range(size)}
    folds = folds_of(dict.fromkeys(groups, frozenset({0})), 3, seed=0, groups=groups)
    assert [len(fold.val) for fold in folds] == [6, 6, 6]


def test_half_of_the_labels_shows_all_classes_and_depends_on_the_seed() -> None:
    known = {f"{letter}x": frozenset({0} if letter < "l" else {0, 1}) for letter in "abcdefghijkl"}
    groups = {name: str(place % 2) for place, name in enumerate(known)}
    halves = set()
    for seed in range(4):
        for fold in folds_of(known, 2, seed=seed, groups=groups):
            assert ("lx" in fold.half) == ("lx" in fold.labeled)
            halves.add((fold.labeled, fold.half))
    assert len(halves) > 4


def test_the_groups_of_all_folds_are_in_the_order_of_their_images() -> None:
    told = dict(zip(shown(9), "aabbccdde", strict=True))
    folds = folds_of(shown(9), 3, seed=0, groups=told)
    numbers = groups_of(folds, told).tolist()
    by_name = dict(zip((name for fold in folds for name in fold.val), numbers, strict=True))
    assert len(set(numbers)) == len({(told[name], number) for name, number in by_name.items()}) == 5
    frames = folds_of({f"f{n}": frozenset({0}) for n in range(36)}, 3, seed=0)
    assert len(set(groups_of(frames, None).tolist())) == 12


def test_ignored_pixels_are_no_class_of_a_fold(write_folder: Folder) -> None:
    root = write_folder({"a": (0, 255), "b": (2, 1), "c": (255,)})
    data = build_source(load_config("folder", [f"data.root={root}", "data.val=none"]).data, seed=0)
    assert classes_shown(data.labeled, 3) == {"a": frozenset({0}), "b": frozenset({1, 2}), "c": frozenset()}


def test_the_files_of_folds_list_their_names(tmp_path: Path) -> None:
    folds = folds_of(shown(9), 3, seed=0)
    files = write_folds(folds, tmp_path)
    for fold, paths in zip(folds, files, strict=True):
        for name in ("labeled", "half", "val"):
            assert tuple(paths[name].read_text().split()) == getattr(fold, name)
    assert len({path for paths in files for path in paths.values()}) == 9
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"^--out .*file: cannot write there"):
        write_folds(folds, tmp_path / "file")


@pytest.mark.parametrize(
    ("images", "number", "groups", "says"),
    [
        (5, 1, None, "--folds 1: give at least 2"),
        (5, 6, None, "--folds 6: there are 5 labeled images; label more"),
        (6, 3, 2, "--folds 3: there are 2 groups of images"),
    ],
)
def test_fewer_images_than_folds(images: int, number: int, groups: int | None, says: str) -> None:
    known = shown(images)
    told = None if groups is None else {name: str(place % groups) for place, name in enumerate(known)}
    with pytest.raises(InputError, match=says):
        folds_of(known, number, seed=0, groups=told)


def test_steps_fill_the_time() -> None:
    said: list[str] = []
    plain, method = Pace(0.1, 5.0), Pace(0.3, 8.0)
    steps = steps_within(900, plain, method, folds=3, most=10_000, say=said.append)
    spent = 3 * (steps * (0.1 + 0.1 + 0.3 + 0.02) + 5 + 5 + 8)
    assert 880 < spent <= 900
    assert said == [f"{steps} steps for each of 9 runs: about {spent / 60:.0f} minutes"]
    assert steps_within(900, plain, method, folds=3, most=200, say=said.append) == 200
    assert steps_within(1, plain, method, folds=3, most=200, say=said.append) == 60
    assert "the least" in said[-1]
    assert steps_within(1, plain, method, folds=3, most=20, say=said.append) == 20
    assert "the least" in said[-1]
    assert steps_within(60, Pace(0.1, 0), Pace(0.1, 0), folds=3, most=20, say=said.append) == 20
    assert "the least" not in said[-1]  # it is short, and as long as a training would be


def test_the_pace_is_that_of_a_run_without_its_report(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def train(config: Any, out: Path, *, watchers: Any, reports: bool = True, **_: Any) -> None:
        asked.append(reports)
        watchers[0].step(12, {"steps_per_second": 4.0})

    monkeypatch.setattr(sizing, "train", train)
    clock = iter((10.0, 18.0))
    monkeypatch.setattr(sizing.time, "perf_counter", lambda: next(clock))
    assert sizing.pace_of("folder", [f"data.root={photos}", "data.val=val", *TINY]) == Pace(0.25, 5.0)
    assert asked == [False]


def result(found: Gain, doubled: float = 2.4) -> Assessment:
    by_class = {
        "car": (1.0, 9.0, Gain(8.0, 1, 9, 5)),
        "sky": (1.0, 2.0, Gain(1.0, 0, 2, 5)),
        "dog": (2.0, 5.0, Gain(3.0, 0, 4, 5)),
    }
    return Assessment("u2pl", 90, 24, 16, 30.0, 32.4, 35.5, found, by_class, doubled)


@pytest.mark.parametrize(
    ("found", "doubled", "says"),
    [
        (
            Gain(3.1, 1.2, 4.8, 24),
            2.4,
            "unlabeled images add 3.1 mIoU, between +1.2 and +4.8, mostly on car and dog; twice the labels would add "
            "about 2.4",
        ),
        (
            Gain(-2.0, -3.0, -1.0, 24),
            2.4,
            "unlabeled images cost 2.0 mIoU, between -3.0 and -1.0: train supervised; twice the labels would add about "
            "2.4",
        ),
        (
            Gain(0.4, -0.2, 1.0, 24),
            -1.0,
            "unlabeled images make no clear difference: +0.4 mIoU, between -0.2 and +1.0; twice the labels would add "
            "little",
        ),
        (
            Gain(3.1, None, None, 24, 3),
            2.4,
            "unlabeled images: +3.1 mIoU; the 24 labeled images are of 3 groups, too few to say whether that is "
            "chance, so label more groups; twice the labels would add about 2.4",
        ),
    ],
)
def test_the_sentence(found: Gain, doubled: float, says: str) -> None:
    assert result(found, doubled).sentence() == says


@pytest.fixture
def photos(write_folder: Folder) -> Path:
    labeled: dict[str, Any] = {f"{name}x": (0, 1 + number % 2) for number, name in enumerate("abcdef")}
    return write_folder({**labeled, "u": None, "v": None, "val/z": (0, 1)})


@pytest.fixture
def run(photos: Path) -> Callable[..., tuple[Assessment, str]]:
    def call(out: Path, *overrides: str, **options: Any) -> tuple[Assessment, str]:
        console = Console(file=io.StringIO(), width=200)
        found = assess(
            "folder", [f"data.root={photos}", *TINY, *overrides], out=out, console=console, folds=2, **options
        )
        return found, console.file.getvalue()  # type: ignore[attr-defined]

    return call


def test_it_compares_each_image_once_and_goes_on(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    found, _ = run(out, "train.steps=4")
    assert (found.images, found.labeled, found.steps) == (7, 4, 4)  # images/val is divided as well
    trials = sorted((out / "runs").iterdir())
    assert len(trials) == 6
    plain = torch.cat([_areas(out, "labels_alone", fold) for fold in (1, 2)])
    semi = torch.cat([_areas(out, "u2pl", fold) for fold in (1, 2)])
    assert found.gain == gain(plain, semi)
    assert found.supervised == whole_miou(plain)
    assert found.doubled == pytest.approx(
        whole_miou(plain) - whole_miou(torch.cat([_areas(out, "half_of_the_labels", fold) for fold in (1, 2)]))
    )
    assert json.loads((out / "assessment.json").read_text())["sentence"] == found.sentence()
    assert (out / "assessment.png").stat().st_size > 5000
    page = (out / "report.html").read_text()
    assert "Assessment in out; shown in detail: u2pl-fold_1" in page
    assert html.escape(found.sentence()) in page
    before = {path: path.read_bytes() for path in out.rglob("last.safetensors")}
    shutil.rmtree(out / "runs" / "u2pl-fold_2")  # as if it had been stopped before
    again, printed = run(out, "train.steps=4")
    assert again == found
    assert printed.count("run ") == 1
    assert {path: path.read_bytes() for path in out.rglob("last.safetensors")} == before


def _areas(out: Path, name: str, fold: int) -> torch.Tensor:
    from safetensors.torch import load_file

    return load_file(out / "runs" / f"{name}-fold_{fold}" / AREAS)["areas"]


def test_the_time_decides_the_steps_once(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paces = [Pace(1.0, 0.0), Pace(2.0, 0.0)]
    monkeypatch.setattr(assessment, "pace_of", lambda *_: paces.pop(0))
    monkeypatch.setattr("u2pl.experiments.sizing._FEWEST", 4)
    groups = tmp_path / "groups.csv"
    groups.write_text("image,group\nax,1\nbx,1\ncx,2\ndx,2\nex,3\nfx,3\nval/z,4\n")
    found, printed = run(tmp_path / "out", f"data.groups={groups}", minutes=0.7)
    assert found.steps == 4
    assert "4 steps for each of 6 runs" in printed
    assert (found.gain.groups, found.gain.low) == (4, None)
    assert all(each.groups == 4 for _, _, each in found.by_class.values())
    assert (
        "images are of 4 groups, too few" in json.loads((tmp_path / "out" / "assessment.json").read_text())["sentence"]
    )
    again, printed = run(tmp_path / "out", f"data.groups={groups}", minutes=99)  # nothing is measured again
    assert again == found


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("method.name=supervised",), "method.name: supervised uses no unlabeled images"),
        (("data.labeled=1",), "--folds 2: there are 1 labeled images"),
        (("data.labeled=3",), "data: 3 labeled images say nothing about others; label at least 4"),
        (("train.devices=2",), r"train\.devices: u2pl assess trains with one process"),
        (("data.groups=nothing.csv",), "nothing.csv"),
        (("train.steps=4", "method.mixing.name=ael", "method.name=fixmatch"), "ael needs mean_teacher or u2pl"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    run: Callable[..., Any], tmp_path: Path, overrides: tuple[str, ...], says: str
) -> None:
    with pytest.raises(InputError, match=says) as error:
        run(tmp_path / "out", *overrides)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("minutes", [0, -3, float("nan"), float("inf")])
def test_a_time_that_is_none(run: Callable[..., Any], tmp_path: Path, minutes: float) -> None:
    with pytest.raises(InputError, match=r"^--minutes .*: give a number above 0$"):
        run(tmp_path / "out", "train.steps=4", minutes=minutes)
    assert not (tmp_path / "out").exists()


def test_other_steps_than_it_began_with(run: Callable[..., Any], tmp_path: Path) -> None:
    found, _ = run(tmp_path / "out", "train.steps=4")
    with pytest.raises(InputError, match=r"^train\.steps: is 5 now but 4 in this assessment"):
        run(tmp_path / "out", "train.steps=5")
    assert run(tmp_path / "out")[0] == found  # and what was trained stays


def test_another_assessment_is_not_mixed_in(run: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "plan.json").write_text(json.dumps({"folds": 5, "seed": 0, "images": [], "steps": 4}))
    with pytest.raises(InputError, match="holds an assessment with other folds"):
        run(out)
    (out / "plan.json").write_text("{")
    with pytest.raises(InputError, match=r"plan\.json cannot be read"):
        run(out)
    with pytest.raises(InputError, match=r"data\.name: scenes"):
        assess("scenes", out=tmp_path / "other", console=Console(file=io.StringIO()))
    assert not (tmp_path / "other").exists()
    with pytest.raises(InputError, match="cannot be read"):
        areas_of([type("Trial", (), {"folder": tmp_path})()])  # type: ignore[list-item]
