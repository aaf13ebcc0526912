"""What `check` and `train` print of the data and of the choices, in a terminal and in a pipe."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from u2pl.auto.choices import Choice
from u2pl.config.reference import keys
from u2pl.data.inspection import Inspection, inspect
from u2pl.data.readers.folder import folder
from u2pl.report.choices_table import choices_table
from u2pl.report.data_table import data_line, data_table
from u2pl.report.keys_table import keys_table
from u2pl.report.printing import show

CHOICES = (
    Choice({"train.steps": 1200, "train.eval_every": 300}, "24 passes over 367 images", detail="on cpu"),
    Choice({"method.contrast.bank_size": 5000}, "11 classes take 27 MiB", used=False),
)


def printed(table: Any, *, terminal: bool = False, width: int = 80) -> list[str]:
    text = io.StringIO()
    show(Console(file=text, force_terminal=terminal, color_system=None, width=width), table)
    return text.getvalue().splitlines()


def inspection(**changes: Any) -> Inspection:
    values = {
        "labeled": 4,
        "unlabeled": 9,
        "val": 2,
        "smallest": (5, 6),
        "largest": (7, 8),
        "labeled_shares": {"sky": 0.75, "[road]": 0.25},
        "val_shares": {"sky": 1.0, "[road]": 0.0},
        "labeled_images": {"sky": 4, "[road]": 3},
        "val_images": {"sky": 2, "[road]": 0},
        "labeled_ignored": 0.125,
        "val_ignored": 0.5,
        "absent": (),
        "sizes": {"labeled": ((5, 6), (7, 8)), "unlabeled": ((5, 6), (5, 6)), "val": ((7, 8), (7, 8))},
    }
    return Inspection(**{**values, **changes})


def test_the_data_class_by_class() -> None:
    rows = [line.split() for line in printed(data_table(inspection(), ("sky", "[road]")))]
    assert rows[1] == ["class", "%", "of", "pixels", "images", "%", "of", "pixels", "images"]
    assert rows[2:] == [
        ["sky", "75.00", "4", "100.00", "2"],
        ["[road]", "25.00", "3", "0.00", "0"],
        ["(ignored)", "12.50", "50.00"],
    ]
    assert (
        data_line(inspection())
        == "images (height x width): 4 labeled of 5x6 to 7x8, 9 unlabeled of 5x6, 2 validation of 7x8"
    )


def test_images_that_there_are_none_of_have_no_column() -> None:
    without = inspection(val=0, val_shares={}, val_images={}, sizes={"labeled": ((5, 6), (7, 8))})
    rows = [line.split() for line in printed(data_table(without, ("sky", "[road]")))]
    assert rows[2] == ["sky", "75.00", "4"]
    assert data_line(without).endswith("no validation")


def test_two_domains_and_tags_are_named() -> None:
    tagged = inspection(tagged={"[road]": 5})
    lines = printed(data_table(tagged, ("sky", "[road]"), domains=True))
    assert "source" in lines[0]
    assert "target validation" in lines[0]
    assert lines[3].split()[-1] == "5"


def test_choices_that_the_method_does_not_use_are_left_out() -> None:
    table = choices_table(CHOICES)
    assert table is not None
    assert [line.split() for line in printed(table)][1:] == [
        ["train.steps", "1200", "24", "passes", "over", "367", "images"],
        ["train.eval_every", "300"],
    ]
    whole = choices_table(CHOICES, verbose=True)
    assert whole is not None
    text = "\n".join(printed(whole))
    assert "24 passes over 367 images; on cpu" in text
    assert "27 MiB; not used" in text
    assert choices_table(CHOICES[1:]) is None


@pytest.mark.parametrize("width", [80, 20])
def test_a_pipe_has_no_rules_and_no_broken_line(width: int) -> None:
    table = data_table(inspection(), ("sky", "[road]"))
    table.title = "a title that is longer than the narrow width"
    lines = printed(table, width=width)
    assert lines[0] == "a title that is longer than the narrow width"
    assert len(lines) == 6
    assert all(line.isascii() and line == line.rstrip() for line in lines)


def test_a_terminal_of_80_columns_suffices() -> None:
    for table in (data_table(inspection(), ("sky", "[road]")), choices_table(CHOICES), keys_table(keys())):
        lines = printed(table, terminal=True)
        assert max(map(len, lines)) <= 80
        assert any("─" in line for line in lines)


def test_many_errors_of_one_kind_are_one_and_a_number(write_folder: Any) -> None:
    root: Path = write_folder({f"i{n}": (0, 9) for n in range(6)} | {"u": None})
    errors = inspect(folder(root=root), semi_supervised=True).errors
    assert len(errors) == 2
    assert "holds the value 9" in errors[0]
    assert errors[1] == "5 more files: the same"
    few: Path = write_folder({f"i{n}": (0, 1) for n in range(3, 6)} | {"u": None})
    assert len(inspect(folder(root=few), semi_supervised=True).errors) == 3
