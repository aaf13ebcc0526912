"""Comparisons of tiny runs: what is trained, what is left alone, what goes on, and what is written."""

from __future__ import annotations

import json
import statistics
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import u2pl.commands.checks
from u2pl.commands.train import train
from u2pl.config.overrides import load_config
from u2pl.engine.evaluate import Scores
from u2pl.errors import InputError
from u2pl.experiments.running import _free_memory as free_memory
from u2pl.predictor import Predictor

Compare = Callable[..., Any]
GRID: dict[str, Any] = {"methods": ["supervised", "u2pl"], "labeled": ["2", "0.5"], "seeds": [0, 1], "all_labels": True}


class KilledError(Exception):
    """Stands for the kill."""


class KillAt:
    """A watcher that ends the so-many-th run at a report."""

    def __init__(self, *, run: int, step: int) -> None:
        self.run, self.at = run, step

    def begin(self, steps: int) -> None:
        self.run -= 1

    def step(self, done: int, losses: Mapping[str, float]) -> None:
        if self.run < 0 and done >= self.at:
            raise KilledError

    def evaluated(self, done: int, scores: Mapping[str, Scores]) -> None:
        pass


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def final_miou(folder: Path, network: str) -> float:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if f"{network}/miou" in line][-1][f"{network}/miou"]


@pytest.fixture(scope="module")
def finished(tiny_compare: Compare, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, str]:
    """Folder, records and output; not to be written to."""
    out = tmp_path_factory.mktemp("finished") / "all"
    return out, *tiny_compare(out, **GRID)


def test_every_combination_is_trained(finished: tuple[Path, Any, str]) -> None:
    out, records, _ = finished
    names = [f"{name}-{labeled}" for labeled in ("2", "0.5") for name in ("supervised", "u2pl")]
    expected = [f"{name}-{seed}" for seed in (0, 1) for name in (*names, "supervised_all_labels-1.0")]
    assert [Path(record.folder).name for record in records] == expected
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*expected, "results.json", "table.md", "plot.png", "report.html"]
    )
    for folder in (out / name for name in expected):
        files = {path.name for path in folder.iterdir()}
        assert {"config.yaml", "metrics.jsonl", "last.safetensors", "best.safetensors", "scores.json"} <= files
        assert "last.ckpt" not in files
        Predictor.from_run(folder)


def test_results_are_those_of_the_runs(finished: tuple[Path, Any, str]) -> None:
    out, _, _ = finished
    results = json.loads((out / "results.json").read_text())
    assert len(results) == 10
    for result in results:
        folder, teacher = Path(result["folder"]), result["method"] == "u2pl"
        config = load_config(folder / "config.yaml")
        assert (config.method.name, config.seed) == (result["method"], result["seed"])
        assert str(config.data.labeled) == result["labeled"]
        assert result["labeled_images"] == {"2": 2, "0.5": 4, "1.0": 8}[result["labeled"]]
        assert result["miou"] == final_miou(folder, "teacher" if teacher else "student")
        assert result["student_miou"] == final_miou(folder, "student")
        known = [value for value in result["iou"].values() if value is not None]
        assert len(result["iou"]) == 10
        assert result["miou"] == pytest.approx(sum(known) / len(known))
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        speeds = [line["steps_per_second"] for line in lines if "steps_per_second" in line]
        assert len(speeds) == 3
        assert result["ms_per_step"] == pytest.approx(1000 / sorted(speeds)[1])
        assert result["minutes"] == pytest.approx(sum(2 / speed for speed in speeds) / 60)
        assert result["training_parameters"] - result["parameters"] == 72 * teacher
        told = "all labels" in result["name"] or result["name"] == result["method"]
        assert told
        assert result["overrides"] == [f"method.name={result['method']}", f"data.labeled={result['labeled']}"]


def test_the_table_against_hand_computation(finished: tuple[Path, Any, str]) -> None:
    out, _, printed = finished
    results = json.loads((out / "results.json").read_text())

    def cell(name: str, labeled: str) -> str:
        values = [r["miou"] for r in results if (r["name"], r["labeled"]) == (name, labeled)]
        return f"{sum(values) / 2:.2f} ± {abs(values[0] - values[1]) / 2**0.5:.2f}"

    def pace(name: str) -> str:
        return f"{statistics.median(r['ms_per_step'] for r in results if r['name'] == name):.0f}"

    full = "supervised, all labels"
    table, note = (out / "table.md").read_text(encoding="utf-8").split("\n\n")
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()] == [
        ["method", "2 labels", "4 labels (0.5)", "all 8 labels", "parameters", "ms/step"],
        ["---", "---:", "---:", "---:", "---:", "---:"],
        ["supervised", cell("supervised", "2"), cell("supervised", "0.5"), "-", "0.0 M", pace("supervised")],
        ["u2pl", cell("u2pl", "2"), cell("u2pl", "0.5"), "-", "0.0 M", pace("u2pl")],
        [full, "-", "-", cell(full, "1.0"), "0.0 M", pace(full)],
    ]
    assert "mean ± standard deviation of the sample, seeds 0, 1" in note
    assert cell("u2pl", "2") in printed
    assert len({cell(name, labeled) for name in ("supervised", "u2pl") for labeled in ("2", "0.5")}) == 4


def test_the_plot_can_be_opened(finished: tuple[Path, Any, str]) -> None:
    with Image.open(finished[0] / "plot.png") as image:
        image.load()
        assert (image.format, image.size) == ("PNG", (1200, 675))
        assert len(image.convert("RGB").getcolors(1 << 24) or ()) > 100


def test_what_is_finished_is_not_trained_again(
    finished: tuple[Path, Any, str], tiny_compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, records, printed = finished
    before = contents(out)
    monkeypatch.delattr("u2pl.experiments.running.train")
    again, shown = tiny_compare(out, **GRID)
    assert again == records
    assert contents(out) == before
    assert shown.strip() in printed
    fewer, _ = tiny_compare(out, **{**GRID, "methods": ["u2pl"], "all_labels": False, "seeds": [1]})
    assert fewer == [record for record in records if record.method == "u2pl" and record.seed == 1]


def test_a_stopped_comparison_shows_what_it_has_and_goes_on_exactly(
    finished: tuple[Path, Any, str], tiny_compare: Compare, tmp_path: Path
) -> None:
    overrides = ("train.save_every=2",)
    options = {**GRID, "labeled": ["2"], "seeds": [0]}
    with pytest.raises(KilledError):
        tiny_compare(tmp_path, *overrides, **options, watchers=(KillAt(run=1, step=4),))
    assert "| supervised | " in (tmp_path / "table.md").read_text()
    assert "| u2pl | - | - | 0.0 M | - |" in (tmp_path / "table.md").read_text()
    assert len(json.loads((tmp_path / "results.json").read_text())) == 1
    assert torch.load(tmp_path / "u2pl-2-0" / "last.ckpt", weights_only=True)["step"] == 2
    done = contents(tmp_path / "supervised-2-0")

    records, printed = tiny_compare(tmp_path, *overrides, **options)
    assert "run 2 of 3: u2pl-2-0" in printed
    assert "supervised-2-0" not in printed
    assert contents(tmp_path / "supervised-2-0") == done
    assert len(records) == 3
    for record in records:
        whole = finished[0] / Path(record.folder).name
        assert (Path(record.folder) / "last.safetensors").read_bytes() == (whole / "last.safetensors").read_bytes()
        assert (Path(record.folder) / "scores.json").read_text() == (whole / "scores.json").read_text()


def test_a_run_killed_between_its_last_step_and_its_scores_only_answers(tiny_compare: Compare, tmp_path: Path) -> None:
    options: dict[str, Any] = {"methods": ["u2pl"], "keep_checkpoints": True}
    first, _ = tiny_compare(tmp_path, **options)
    folder = tmp_path / "u2pl-3-0"
    assert (folder / "last.ckpt").exists()
    (folder / "scores.json").unlink()
    weights, journal = (folder / "last.safetensors").read_bytes(), (folder / "metrics.jsonl").read_bytes()
    again, _ = tiny_compare(tmp_path, **options, watchers=(KillAt(run=0, step=1),))
    assert again == first
    assert ((folder / "last.safetensors").read_bytes(), (folder / "metrics.jsonl").read_bytes()) == (weights, journal)
    options["keep_checkpoints"] = False  # a kill before the checkpoint was deleted is made up for
    assert tiny_compare(tmp_path, **options)[0] == first
    assert not (folder / "last.ckpt").exists()


def test_a_run_is_what_train_would_have_made(
    tiny_compare: Compare, tiny_overrides: tuple[str, ...], tmp_path: Path
) -> None:
    variants = {"ours": ("method.name=u2pl", "method.reliability.min_confidence=0.2")}
    (record,), _ = tiny_compare(tmp_path / "out", variants=variants, labeled=["2"])
    assert (record.name, record.method, Path(record.folder).name) == ("ours", "u2pl", "ours-2-0")
    alone = tmp_path / "alone"
    overrides = [*tiny_overrides, *variants["ours"], "data.labeled=2"]
    trained = train(load_config("scenes", overrides), alone, say=lambda line: None)
    assert record.miou == trained.scores["teacher"].miou
    assert (alone / "config.yaml").read_text() == (Path(record.folder) / "config.yaml").read_text()
    assert (alone / "last.safetensors").read_bytes() == (Path(record.folder) / "last.safetensors").read_bytes()


def test_a_run_that_fails_does_not_keep_the_others(tiny_compare: Compare, tmp_path: Path) -> None:
    variants = {
        "wild": ("method.name=supervised", "train.lr=1e6", "train.momentum=0.99"),
        "tame": ("method.name=supervised",),
    }
    with pytest.raises(InputError, match=r"^1 of 2 runs failed: wild-3-0: training diverged") as caught:
        tiny_compare(tmp_path, variants=variants)
    assert "\n" not in str(caught.value)
    assert [r["name"] for r in json.loads((tmp_path / "results.json").read_text())] == ["tame"]
    assert "| wild | - |" in (tmp_path / "table.md").read_text()
    assert not (tmp_path / "wild-3-0" / "scores.json").exists()


def test_a_run_leaves_nothing_in_memory(tiny_compare: Compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[weakref.ref[Any]] = []
    alive: list[int] = []
    build = u2pl.commands.checks.build_network

    def watched(config: Any, num_classes: int) -> Any:
        alive.append(sum(network() is not None for network in built))
        network = build(config, num_classes)
        built.append(weakref.ref(network))
        return network

    monkeypatch.setattr("u2pl.commands.checks.build_network", watched)
    monkeypatch.setattr("u2pl.experiments.running._free_memory", free_memory)
    tiny_compare(tmp_path, methods=["supervised", "u2pl"])
    assert len(built) == 8  # both to be looked at, then both to be trained, each first without memory
    assert alive[4:] == [0, 0, 0, 0]


def test_another_configuration_is_refused_before_anything_is_trained(tiny_compare: Compare, tmp_path: Path) -> None:
    tiny_compare(tmp_path, methods=["supervised"])
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"^supervised: train\.lr: is 0\.5 now but 0\.05 in .*supervised-3-0"):
        tiny_compare(tmp_path, "train.lr=0.5", methods=["u2pl", "supervised"])
    assert contents(tmp_path) == before


def test_a_dry_run_lists_and_trains_nothing(tiny_compare: Compare, tmp_path: Path) -> None:
    out = tmp_path / "out"
    records, printed = tiny_compare(out, **GRID, dry_run=True)
    assert records == []
    assert not out.exists()
    lines = [line for line in printed.splitlines() if "new" in line]
    assert len(lines) == 10
    assert "10 runs in" in printed
    assert lines[0].replace("│", "").split() == ["supervised-2-0", "2", "6", "new"]


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        ({}, "nothing to compare; give --methods or --variant"),
        ({"methods": ["u2pl", "fixmach"]}, "fixmach: method.name: should be"),
        ({"methods": ["u2pl"], "labeled": ["2", "99"]}, "u2pl: data.labeled: 99"),
        ({"methods": ["u2pl"], "labeled": ["2", "nowhere.txt"]}, "u2pl: data.labeled: 'nowhere.txt'"),
        ({"methods": ["u2pl"], "variants": {"u2pl": ("train.lr=1",)}}, "--variant u2pl: is also the name"),
        ({"variants": {"a": ("train.lr=1", "seed=3")}}, "--variant a: seed=3: give --seeds or --labeled"),
        ({"variants": {"a": ("data.labeled=3",)}}, "--variant a: data.labeled=3: give --seeds or --labeled"),
        ({"methods": ["supervised"], "variants": {"a": ("train.stpes=1",)}}, "a: unknown key train.stpes"),
    ],
)
def test_bad_input_shows_before_anything_is_trained(
    tiny_compare: Compare, tmp_path: Path, options: dict[str, Any], fragment: str
) -> None:
    with pytest.raises(InputError) as caught:
        tiny_compare(tmp_path / "out", **options)
    assert fragment in str(caught.value)
    assert not (tmp_path / "out").exists()
