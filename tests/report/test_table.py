"""Tables and progress, as text."""

from __future__ import annotations

import io

from rich.console import Console

from u2pl.engine.evaluate import Scores
from u2pl.report.progress import ProgressBar
from u2pl.report.table import percent, score_table


def shown(scores: dict[str, Scores]) -> list[list[str]]:
    """The rows of a table, their cells stripped."""
    console = Console(file=io.StringIO(), width=100)
    console.print(score_table(scores, title="title").for_rich())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    rows = [[cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")] for line in text.splitlines()]
    return [row for row in rows if len(row) > 1]


FIRST = Scores(miou=40.0, iou={"sky": 50.0, "car": None}, pixel_accuracy=60.0)
LAST = Scores(miou=45.25, iou={"sky": 44.0, "car": 3.0}, pixel_accuracy=61.0)


def test_two_models_are_compared() -> None:
    assert shown({"student": FIRST, "teacher": LAST}) == [
        ["class", "student", "teacher", "gain"],
        ["sky", "50.0", "44.0", "-6.0"],
        ["car", "-", "3.0", "-"],
        ["mIoU", "40.0", "45.2", "+5.2"],
        ["pixel accuracy", "60.0", "61.0", "+1.0"],
    ]


def test_one_model_has_no_gain() -> None:
    assert shown({"IoU %": FIRST})[0] == ["class", "IoU %"]


def test_percent() -> None:
    assert (percent(None), percent(12.34), percent(0.0)) == ("-", "12.3", "0.0")


def test_progress_where_the_output_is_no_terminal_is_plain_lines() -> None:
    console = Console(file=io.StringIO(), width=200)
    with ProgressBar(console, title="u2pl") as bar:
        bar.begin(20)
        bar.step(10, {"loss/supervised": 1.234, "loss/contrastive": 5.0, "steps_per_second": 2.0})
        bar.evaluated(10, {"student": FIRST, "teacher": LAST})
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "u2pl step 10, student 40.0 mIoU, teacher 45.2 mIoU" in text
    assert "\x1b" not in text


def test_progress_on_a_terminal_tells_losses_and_scores() -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    with ProgressBar(console, title="u2pl") as bar:
        bar.begin(20)
        bar.evaluated(9, {"teacher": LAST})
        bar.step(10, {"loss/supervised": 1.234, "loss/contrastive": 5.0, "steps_per_second": 2.0})
        assert bar.bar.tasks[0].completed == 10
        assert bar.bar.tasks[0].total == 20
        assert bar.bar.tasks[0].fields["now"] == "supervised 1.23 contrastive 5.00 2.0 steps/s, teacher 45.2 mIoU"
