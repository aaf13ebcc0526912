"""Tables and plots of comparisons and ablations whose scores are made up."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from u2pl.config.schema import Config
from u2pl.experiments.ablation_plot import height_of, plot_ablation
from u2pl.experiments.ablation_table import ablation_grid
from u2pl.experiments.comparison_plot import plot_comparison
from u2pl.experiments.comparison_table import comparison_grid
from u2pl.experiments.records import Record
from u2pl.experiments.trials import Setting, Trial
from u2pl.report.grid import Grid, show_grid

Rows = list[list[str]]


def trial(name: str, labeled: str, images: int, seed: int, **options: Any) -> Trial:
    folder = Path(f"{name}-{labeled}-{seed}")
    sizes = {"parameters": 40_460_000, "training_parameters": 40_460_000, **options}
    config = {"config": Config(), "asked": Config(), "overrides": ()}
    return Trial(name=name, labeled=labeled, seed=seed, folder=folder, images=images, **config, **sizes)


def records_of(trials: Sequence[Trial], scores: Sequence[float | None], ms: Sequence[float] = (100.0,)) -> Any:
    return {
        each.folder: Record(
            name=each.name,
            method="u2pl",
            labeled=each.labeled,
            labeled_images=each.images,
            seed=each.seed,
            miou=score,
            iou={},
            student_miou=0.0,
            parameters=0,
            training_parameters=0,
            ms_per_step=ms[index % len(ms)],
            minutes=0.0,
            folder="",
            overrides=[],
        )
        for index, (each, score) in enumerate(zip(trials, scores, strict=True))
        if score is not None
    }


def cells(grid: Grid) -> Rows:
    table = grid.markdown().split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures in place of files."""
    figures: list[Figure] = []
    for module in ("comparison_plot", "ablation_plot"):
        monkeypatch.setattr(f"u2pl.experiments.{module}.save", lambda figure, path: figures.append(figure))
    return figures


def test_cells_that_are_missing_or_partial() -> None:
    trials = [trial(name, str(n), n, seed) for name in ("a", "b|c") for n in (10, 1) for seed in (0, 1, 2)]
    scores = [50.0, 51.0, 53.5, None, 4.0, None, None, None, None, 7.0, None, 9.0]
    grid = comparison_grid(trials, records_of(trials, scores, ms=[10.0, 20.0, 90.0, 1.0, 40.0]))
    assert cells(grid) == [
        ["method", "10 labels", "1 label", "parameters", "ms/step"],
        ["---", "---:", "---:", "---:", "---:"],
        ["a", "51.50 ± 1.80", "4.00 (1 of 3)", "40.5 M", "30"],  # the median of 10, 20, 90, 40
        ["b\\|c", "-", "8.00 ± 1.41 (2 of 3)", "40.5 M", "30"],  # of 40 and 20
    ]
    assert "seeds 0, 1, 2" in grid.note


def test_a_line_of_other_labels() -> None:
    """As the upper bound of a domain adaptation, which has the labels of the target."""
    trials = [trial("source only", "all", 200, 0), trial("upper bound", "all", 400, 0)]
    assert cells(comparison_grid(trials, records_of(trials, [29.6, 45.2])))[0][1] == "200 or 400 labels"


def test_one_seed_has_no_deviation() -> None:
    trials = [trial("a", "splits/92/labeled.txt", 92, 3), trial("a", "all", 1464, 3)]
    grid = comparison_grid(trials, records_of(trials, [50.0, None]))
    assert cells(grid)[0] == ["method", "92 labels (splits/92/labeled.txt)", "1464 labels", "parameters", "ms/step"]
    assert cells(grid)[2] == ["a", "50.00", "-", "40.5 M", "100"]
    assert "±" not in grid.note
    assert ", seed 3;" in grid.note


def test_heads_that_only_train_have_a_column() -> None:
    trials = [trial("a", "10", 10, 0), trial("b", "10", 10, 0, training_parameters=43_110_000)]
    grid = comparison_grid(trials, {})
    assert [row[2:] for row in cells(grid)] == [
        ["parameters", "in training", "ms/step"],
        ["---:", "---:", "---:"],
        ["40.5 M", "40.5 M", "-"],
        ["40.5 M", "43.1 M", "-"],
    ]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_terminal_shows_every_number(width: int) -> None:
    trials = [trial(name, str(n), n, seed) for name in ("a", "[b]") for n in (10, 20) for seed in (0, 1)]
    scores = [random.Random(width).uniform(10, 90) for _ in trials]
    grid = comparison_grid(trials, records_of(trials, scores))
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    show_grid(console, grid)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, shown.splitlines())) <= width
    for word in ("[b]", *(f"{(scores[i] + scores[i + 1]) / 2:.2f}" for i in range(0, 8, 2))):
        assert word in shown


def test_differences_are_between_the_same_seeds() -> None:
    reference = Setting("reference", "", tuple(trial("r", "1", 1, seed) for seed in range(3)))
    other = Setting("a.b", "[1, 2]", tuple(trial("o", "1", 1, seed) for seed in range(3)))
    shared = Setting("a.b", "[0, 2]", (reference.trials[0], *(trial("s", "1", 1, seed) for seed in (1, 2))))
    trials = [*reference.trials, *other.trials]
    records = records_of(trials, [50.0, 60.0, None, 49.0, None, 99.0])
    assert [row[2:] for row in cells(ablation_grid([reference, other, shared], records))[2:]] == [
        ["55.00 ± 7.07 (2 of 3)", ""],
        ["74.00 ± 35.36 (2 of 3)", "-1.00"],
        ["50.00 (1 of 3)", "+0.00"],
    ]
    same = replace(other, trials=reference.trials)
    assert cells(ablation_grid([reference, same], {}))[2:] == [
        ["reference", "", "-", ""],
        ["a.b", "[1, 2]", "-", "(is the reference)"],
    ]
    assert cells(ablation_grid([reference, other], {}))[3] == ["a.b", "[1, 2]", "-", "-"]


def test_lines_over_the_number_of_labels(drawn: list[Figure]) -> None:
    names = [f"line {index}" for index in range(9)]
    trials = [trial(name, str(n), n, seed) for name in names for n in (92, 23) for seed in (0, 1)]
    trials += [trial("all", "1.0", 1464, seed, baseline=True) for seed in (0, 1)]
    scores = [float(index) for index in range(len(trials))]
    plot_comparison(Path("unused"), trials, records_of(trials, scores))
    axes = drawn[0].axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["23", "92"]
    assert list(axes.get_xticks()) == [23, 92]
    assert "labeled images" in axes.get_xlabel()
    assert "one standard deviation" in axes.get_xlabel()
    assert axes.get_ylabel() == "validation mIoU (%)"
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == [*names, "all (1464)"]
    assert not axes.get_legend()  # it stands outside
    looks = set()
    for index, container in enumerate(axes.containers):
        line = container.lines[0]
        assert list(line.get_ydata()) == [4 * index + 2.5, 4 * index + 0.5]
        assert list(line.get_xdata()) == pytest.approx([23, 92], rel=0.1)
        segments = container.lines[2][0].get_segments()
        assert [(low[1], high[1]) for low, high in segments] == [
            pytest.approx((mean - 0.5**0.5, mean + 0.5**0.5)) for mean in line.get_ydata()
        ]
        looks.add((line.get_color(), line.get_marker(), line.get_linestyle()))
    assert len(looks) == 9


def test_missing_points_leave_gaps_and_single_seeds_no_bars(drawn: list[Figure]) -> None:
    trials = [trial(name, str(n), n, 0) for name in ("a", "b") for n in (23, 46, 92)]
    plot_comparison(Path("unused"), trials, records_of(trials, [1.0, None, 3.0, None, None, None]))
    axes = drawn[0].axes[0]
    assert list(axes.containers[0].lines[0].get_ydata()) == [1.0, 3.0]
    assert not axes.containers[0].lines[2]
    assert list(axes.containers[1].lines[0].get_ydata()) == []
    assert "deviation" not in axes.get_xlabel()


def test_two_choices_of_as_many_labels_are_two_points(drawn: list[Figure]) -> None:
    trials = [trial("a", name, images, 0) for name, images in (("x.txt", 23), ("9", 9), ("y.txt", 23))]
    plot_comparison(Path("unused"), trials, records_of(trials, [1.0, 2.0, 3.0]))
    axes = drawn[0].axes[0]
    assert list(axes.containers[0].lines[0].get_ydata()) == [2.0, 1.0, 3.0]
    assert list(axes.get_xticks()) == [9, 23]


def test_one_number_of_labels_is_a_row_per_method(drawn: list[Figure]) -> None:
    trials = [trial(name, "23", 23, seed) for name in ("a", "b", "c") for seed in (0, 1)]
    trials.append(trial("all", "1.0", 99, 0, baseline=True))
    plot_comparison(Path("unused"), trials, records_of(trials, [10.0, 12.0, None, None, 30.0, None, 40.0]))
    axes = drawn[0].axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b", "c"]
    assert axes.get_ylim() == (2.5, -0.5)  # the first on top
    assert [list(container.lines[0].get_xdata()) for container in axes.containers] == [[11.0], [30.0]]
    assert [list(container.lines[0].get_ydata()) for container in axes.containers] == [[0], [2]]
    assert "validation mIoU (%), 23 labeled images" in axes.get_xlabel()
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["all (99)"]


def test_panels_of_an_ablation(drawn: list[Figure]) -> None:
    settings = [Setting("reference", "", tuple(trial("r", "1", 1, seed) for seed in (0, 1)))]
    for axis, values in (("a.b", ("1", "[2, $3$]")), ("c.d", ("x",))):
        settings += [Setting(axis, v, tuple(trial(axis + v, "1", 1, seed) for seed in (0, 1))) for v in values]
    trials = [each for setting in settings for each in setting.trials]
    plot_ablation(Path("unused"), settings, records_of(trials, [50.0, 52.0, 40.0, 42.0, None, None, 60.0, None]))
    first, second = drawn[0].axes
    assert [axes.get_title(loc="left") for axes in (first, second)] == ["a.b", "c.d"]
    assert [tick.get_text() for tick in first.get_yticklabels()] == ["1", "[2, \\$3\\$]"]
    assert [list(container.lines[0].get_xdata()) for container in first.containers] == [[41.0]]
    assert [list(container.lines[0].get_xdata()) for container in second.containers] == [[60.0]]
    for axes in (first, second):
        assert 51.0 in [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"]
    assert "dashed: the reference" in second.get_xlabel()
    assert "mIoU (%)" in second.get_xlabel()


def test_files_have_the_size_that_is_told(tmp_path: Path) -> None:
    trials = [trial(name, "23", 23, 0) for name in ("a", "a name that is so long that it has to be broken" * 2)]
    plot_comparison(tmp_path / "plot", trials, records_of(trials, [1.0, 2.0]))
    settings = [Setting(axis, "1", (each,)) for axis, each in zip(("reference", "a.b"), trials, strict=True)]
    plot_ablation(tmp_path / "ablation", settings, records_of(trials, [1.0, 2.0]))
    for name, size in (("plot", (1200, 675)), ("ablation", (1050, round(150 * height_of(settings))))):
        with Image.open(tmp_path / name) as image:
            image.load()
            assert (image.format, image.size) == ("PNG", size)


def test_nothing_known_yet_can_be_drawn(tmp_path: Path) -> None:
    trials = [trial("a", "23", 23, 0), trial("a", "46", 46, 0)]
    plot_comparison(tmp_path / "plot", trials, {})
    assert (tmp_path / "plot").stat().st_size > 0
