"""A run folder: one training at a time, nothing of others is replaced, and the data stay what they were."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from tiny_run import KillAt, KilledError, build_tiny
from u2pl.commands.run_folder import claimed, resume_note
from u2pl.commands.train import train
from u2pl.config.overrides import load_config
from u2pl.data.fingerprint import difference, fingerprint
from u2pl.data.readers.folder import folder
from u2pl.errors import InputError

CONTENTS = {**{f"train/{name}": (0, 1, 2) for name in "abc"}, "train/d": None, "train/e": None, "val/v": (0, 1, 2)}
SHORT = (
    *("train.steps=6", "train.batch_size=2", "train.crop_size=16", "train.save_every=2", "train.log_every=1"),
    *(
        "data.workers=0",
        "method.contrast.bank_size=64",
        "method.contrast.keys_per_step=8",
        "train.precision=fp32",
        "network.embedding_dim=8",
    ),
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, write_folder: Callable[..., Path]) -> Callable[..., Any]:
    """``run(out, *overrides, root=None)``: train a tiny network on files."""
    monkeypatch.setattr("u2pl.commands.checks.build_network", build_tiny)
    monkeypatch.setattr("u2pl.commands.train.save_pictures", lambda *_: None)
    own = write_folder(CONTENTS)

    def run(out: Path, *overrides: str, root: Path = own, **options: Any) -> Any:
        keys = [f"data.root={root}", "data.val=val", *SHORT, *overrides]
        return train(load_config("folder", keys), out, say=lambda line: None, **options)

    run.root = own  # type: ignore[attr-defined]
    return run


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}


def stopped(run: Any, out: Path) -> None:
    with pytest.raises(KilledError):
        run(out, watchers=(KillAt(3),))


def test_two_trainings_do_not_share_a_folder(run: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    stopped(run, out)
    before = files(out)
    with FileLock(out / ".lock"), pytest.raises(InputError, match="another process trains into this folder"):
        run(out, resume=True)
    assert files(out) == before
    run(out, resume=True)  # a lock ends with its process


@pytest.mark.parametrize("name", ["last.safetensors", "last.ckpt", "metrics.jsonl", "events.out.tfevents.1.x"])
def test_files_of_others_are_not_replaced(run: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=r"holds .*, but is no run folder; choose another --out"):
        run(tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_other_files_in_the_folder_do_not_matter(run: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    run(tmp_path, "train.steps=2")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_that_stays_empty_is_removed(tmp_path: Path) -> None:
    with pytest.raises(InputError), claimed(tmp_path / "new"):
        raise InputError("bad")
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "x").touch()
    with pytest.raises(InputError), claimed(tmp_path / "old"):
        raise InputError("bad")
    assert (tmp_path / "old" / "x").exists()


def test_a_finished_run_without_its_checkpoint_is_not_trained_anew(run: Any, tmp_path: Path) -> None:
    run(tmp_path)
    for path in tmp_path.glob("*.ckpt"):
        path.unlink()
    before = files(tmp_path)
    with pytest.raises(InputError, match=r"holds the weights of a run, but no last\.ckpt .* `u2pl evaluate"):
        run(tmp_path, resume=True)
    assert files(tmp_path) == before


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(run: Any, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole)
    with pytest.raises(KilledError):
        run(parts, watchers=(KillAt(5),))
    assert torch.load(parts / "last.ckpt", weights_only=True)["step"] == 4
    (parts / "last.ckpt").write_bytes(b"torn")
    run(parts, resume=True)
    assert (parts / "last.safetensors").read_bytes() == (whole / "last.safetensors").read_bytes()


def test_what_is_said_where_there_is_nothing_to_resume(run: Any, tmp_path: Path) -> None:
    assert resume_note(tmp_path / "none") == f"there is no run in {tmp_path / 'none'} yet: a new one begins"
    with pytest.raises(KilledError):
        run(tmp_path / "early", watchers=(KillAt(1),))
    assert "has saved nothing yet" in str(resume_note(tmp_path / "early"))
    stopped(run, tmp_path / "later")
    assert resume_note(tmp_path / "later") is None


def test_data_may_move_and_the_run_goes_on(run: Any, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole)
    stopped(run, parts)
    shutil.move(run.root, tmp_path / "moved")
    run(parts, root=tmp_path / "moved", resume=True)
    assert (parts / "last.safetensors").read_bytes() == (whole / "last.safetensors").read_bytes()
    assert load_config(parts / "config.yaml").data.root == str(tmp_path / "moved")


def _mask_added(root: Path) -> None:
    shutil.copy(root / "masks/train/a.png", root / "masks/train/d.png")


def _image_added(root: Path) -> None:
    shutil.copy(root / "images/train/e.png", root / "images/train/f.png")


def _image_renamed(root: Path) -> None:
    (root / "images/train/e.png").rename(root / "images/train/z.png")


def _class_renamed(root: Path) -> None:
    (root / "classes.txt").write_text("sky\nroad\nbus")


def _val_removed(root: Path) -> None:
    shutil.copy(root / "images/val/v.png", root / "images/val/w.png")
    shutil.copy(root / "masks/val/v.png", root / "masks/val/w.png")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_mask_added, "there were 3 labeled images and are now 4"),
        (_image_added, "there were 2 unlabeled images and are now 3"),
        (_image_renamed, "the 2 unlabeled images are not those of before"),
        (_class_renamed, "the classes were sky, road, car and are now sky, road, bus"),
        (_val_removed, "there were 1 val images and are now 2"),
    ],
)
@pytest.mark.parametrize("moved", [False, True])
def test_changed_data_are_told(run: Any, tmp_path: Path, change: Any, told: str, moved: bool) -> None:
    out, root = tmp_path / "run", run.root
    stopped(run, out)
    change(root)
    if moved:
        root = shutil.move(root, tmp_path / "moved")
    before = files(out)
    with pytest.raises(InputError, match=told):
        run(out, root=root, resume=True)
    assert files(out) == before


def test_a_run_of_an_earlier_version_does_not_name_its_data(run: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    stopped(run, out)
    state = torch.load(out / "last.ckpt", weights_only=True)
    del state["data"]
    torch.save(state, out / "last.ckpt")
    moved = shutil.copytree(run.root, tmp_path / "moved")
    with pytest.raises(InputError, match=r"^data\.root: differs from .*config\.yaml"):
        run(out, root=moved, resume=True)
    run(out, resume=True)


def test_fingerprints_do_not_depend_on_the_place(write_folder: Callable[..., Path], tmp_path: Path) -> None:
    root = write_folder(CONTENTS)
    before = fingerprint(folder(root=root, val="val"))
    assert difference(before, fingerprint(folder(root=shutil.move(root, tmp_path / "x"), val="val"))) is None
