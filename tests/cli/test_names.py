"""Real commands on a data set whose classes, files and folders have names that a terminal could misread."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]

CLASSES = ("[void]", "road [paved] [/x]", "_a :car: | `x` <b> $a$ {0} %s 🚗", "l" * 200)
VARIANT, SHOWN = "_[red] $a$ {0} | <b> \u202e\x1b", r"_[red] $a$ {0} | <b> \u202e\x1b"
#: Raw file names, without their endings, of the labeled image a, the unlabeled train/more/e, and val/v.
FILES = {"train/a": b"a[bold]\xff", "train/more/e": b"e\x1b[31m\r\n", "val/v": "v :car: [red] 🚗".encode()}


def renamed(root: Path) -> Path:
    (root / "classes.txt").write_text("\n".join(CLASSES), encoding="utf-8")
    for stem, name in FILES.items():
        for path in [*root.glob(f"images/{stem}.*"), *root.glob(f"masks/{stem}.*")]:
            os.rename(os.fsencode(path), os.path.join(os.fsencode(path.parent), name + os.fsencode(path.suffix)))
    new = os.path.join(os.fsencode(root.parent), b"set [bold] \xff :car:")
    os.rename(os.fsencode(root), new)
    return Path(os.fsdecode(new))


def shows_classes(done: Any) -> None:
    """Success, with every class in one line, and nothing that a terminal would obey."""
    assert (done.code, done.err) == (0, "")
    for shown in CLASSES:
        assert sum(line.startswith(f"{shown} ") for line in done.out.splitlines()) == 1, shown
    assert "\x1b" not in done.out
    done.out.encode()


@pytest.mark.filterwarnings("error:.*Glyph.*")
def test_every_command_shows_the_names(
    u2pl: Command, own_files: Path, yaml: Path, small: tuple[str, ...], tmp_path: Path
) -> None:
    root = renamed(own_files)
    set_up = (yaml, f"data.root={root}", *small)
    out = tmp_path / "out [/x] :car: $"
    checked = u2pl("check", *set_up)
    shows_classes(checked)
    assert "ready to train" in checked.out
    run = out / "run"
    trained = u2pl("train", *set_up, "train.steps=2", "method.diagnose=true", "--out", run)
    assert f"weights, metrics and curves in {run}" in trained.out
    table = trained.out[trained.out.index("validation, IoU %") :]
    assert table.splitlines()[1].split("  ")[-1].strip() == "teacher - student"
    shows_classes(type(trained)(trained.code, table, trained.err))
    assert {path.name for path in (run / "pictures").iterdir()} == {"validation.png", "diagnosis.png"}
    scored = u2pl("evaluate", run)
    shows_classes(scored)
    assert scored.out.startswith(f"{run}\n")
    assert list(json.loads(u2pl("evaluate", run, "--json").out)["iou"]) == [*CLASSES]
    predicted = u2pl("predict", run, root / "images", "--out", out / "masks")
    assert (predicted.code, predicted.err) == (0, "")
    assert predicted.out == f"9 masks and overlays in {out / 'masks'}\n"
    assert b"a[bold]\xff.png" in os.listdir(os.fsencode(out / "masks" / "train"))


@pytest.mark.slow
def test_compare_shows_the_names(
    u2pl: Command, own_files: Path, yaml: Path, small: tuple[str, ...], tmp_path: Path
) -> None:
    set_up = (yaml, f"data.root={renamed(own_files)}", *small, "train.steps=2")
    out = tmp_path / "out [/x] :car:"
    variant = ("--variant", f"{VARIANT}: method.name=fixmatch")
    done = u2pl("compare", *set_up, "--methods", "supervised", *variant, "--labeled", "2,3", "--out", out)
    assert (done.code, done.err) == (0, "")
    assert any(line.startswith(f"{SHOWN}  ") for line in done.out.splitlines())
    assert f"results.json, table.md and plot.png in {out}\n" in done.out
    assert r"| \_[red] \$a\$ {0} \| \<b> \\u202e\\x1b |" in (out / "table.md").read_text("utf-8")
    assert {record["name"] for record in json.loads((out / "results.json").read_text())} == {"supervised", VARIANT}


def test_choices_name_the_labels_they_are_for(u2pl: Command, own_files: Path, tmp_path: Path) -> None:
    set_up = ("folder", f"data.root={own_files}", "data.val=val", "--methods", "supervised,u2pl")
    listed = u2pl("compare", *set_up, "--labeled", "2,3", "--out", tmp_path / "out", "--dry-run")
    assert (listed.code, listed.err) == (0, "")
    lines = [line.split() for line in listed.out.splitlines()]
    assert lines[lines.index(["chosen", "by", "`auto`:"]) + 1] == ["setting", "value", "runs", "because"]
    mixing = [line[2:4] for line in lines if line[0] == "method.mixing.name"]
    assert mixing == [["2", "labels"], ["3", "labels"]]
    one = u2pl("compare", *set_up, "--labeled", "2", "--out", tmp_path / "out", "--dry-run")
    lines = [line.split() for line in one.out.splitlines()]
    assert lines[lines.index(["chosen", "by", "`auto`:"]) + 1] == ["setting", "value", "because"]


def test_an_error_is_one_line(u2pl: Command, own_files: Path) -> None:
    root = renamed(own_files)
    (path,) = (path for path in (root / "masks/train").iterdir() if "bold" in path.name)
    path.write_bytes(b"no mask")
    done = u2pl("check", "folder", f"data.root={root}", "data.val=val")
    assert done.code == 2
    text = done.out + done.err
    text.encode()
    assert r"a[bold]\xff.png" in text or r"a[bold]\udcff.png" in text
