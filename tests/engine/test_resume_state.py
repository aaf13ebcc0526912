"""Two checkpoints of a run: whole, checked, and without code."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from u2pl.engine.resume import CHECKPOINTS, has_state, load_state, save_state, saved_value
from u2pl.errors import InputError


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def trained(seed: int = 0) -> dict[str, Any]:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    optimizer = SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.randn(2, 3, 4, 4)).square().sum().backward()
    optimizer.step()
    return {"student": network, "optimizer": optimizer, "step": 7 + seed, "best": 12.5}


def test_a_failed_first_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(value: Any, partial: Path) -> None:
        partial.write_bytes(b"half")
        raise RuntimeError("killed")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(InputError, match=r"last\.ckpt cannot be written \(killed\)"):
        save_state(tmp_path, {"step": 1})
    assert not (tmp_path / "last.ckpt").exists()


def test_state_comes_back_into_the_same_objects(tmp_path: Path) -> None:
    saved, other = trained(0), trained(1)
    save_state(tmp_path, saved)
    load_state(tmp_path, other)
    for name, tensor in saved["student"].state_dict().items():
        assert torch.equal(other["student"].state_dict()[name], tensor)
    momenta = [
        [entry["momentum_buffer"] for entry in each["optimizer"].state_dict()["state"].values()]
        for each in (saved, other)
    ]
    assert momenta[0]
    assert all(torch.equal(a, b) for a, b in zip(*momenta, strict=True))
    assert (other["step"], other["best"]) == (7, 12.5)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("not a checkpoint\n")


def _list(path: Path) -> None:
    torch.save([1, 2], path)


def _lacking(path: Path) -> None:
    torch.save({"student": trained()["student"].state_dict()}, path)


def _other_network(path: Path) -> None:
    torch.save({**trained(), "student": nn.Linear(2, 2).state_dict(), "optimizer": {}}, path)


@pytest.mark.parametrize("damage", [_truncate, _empty, _text, _list, _lacking, _other_network])
def test_a_damaged_or_foreign_file_is_refused_in_one_line(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "last.ckpt"
    save_state(tmp_path, trained())
    damage(path)
    with pytest.raises(InputError, match="cannot be resumed from") as caught:
        load_state(tmp_path, trained(1))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_code_of_a_checkpoint_runs(tmp_path: Path) -> None:
    path, made = tmp_path / "last.ckpt", tmp_path / "made"
    torch.save({**dict.fromkeys(trained()), "step": Trap(made)}, path)
    with pytest.raises(InputError):
        load_state(tmp_path, trained())
    path.write_bytes(pickle.dumps(Trap(made), protocol=2))
    with pytest.raises(InputError):
        load_state(tmp_path, trained())
    assert not made.exists()


def test_the_save_before_the_last_one_stays(tmp_path: Path) -> None:
    for seed in range(3):
        save_state(tmp_path, trained(seed))
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(CHECKPOINTS)
    assert [torch.load(tmp_path / name, weights_only=True)["step"] for name in CHECKPOINTS] == [9, 8]


def _flip(path: Path) -> None:
    """One bit in the middle of a tensor: unpickling does not see it."""
    data = bytearray(path.read_bytes())
    weight = trained(1)["student"].state_dict()["0.weight"].numpy().tobytes()
    place = data.find(weight)
    assert place > 0
    data[place + 5] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [_truncate, _empty, _text, _list, _flip, Path.unlink])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, damage: Callable[[Path], Any]) -> None:
    save_state(tmp_path, trained(0))
    save_state(tmp_path, trained(1))
    damage(tmp_path / "last.ckpt")
    state = trained(2)
    note = load_state(tmp_path, state)
    assert state["step"] == 7
    assert note is not None
    assert "last.ckpt is " in note
    assert "resuming from step 7 of previous.ckpt" in note
    assert "\n" not in note
    assert saved_value(tmp_path, "step") == 7


FULL = """
import resource, signal, sys
from pathlib import Path
import torch
from u2pl.engine.resume import save_state
from u2pl.errors import InputError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = Path(sys.argv[1])
save_state(folder, {"step": 1, "tensor": torch.zeros(1000)})
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
try:
    save_state(folder, {"step": 2, "tensor": torch.zeros(2**20)})
except InputError as error:
    print(error)
print(sorted(path.name for path in folder.iterdir()), torch.load(folder / "last.ckpt")["step"])
"""


def test_a_file_that_cannot_grow_leaves_the_last_save(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, check=False)
    told, left = done.stdout.splitlines()
    assert "last.ckpt cannot be written (" in told
    assert left == "['last.ckpt'] 1"


def test_where_links_are_not_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    save_state(tmp_path, trained(0))
    save_state(tmp_path, trained(1))
    assert [torch.load(tmp_path / name, weights_only=True)["step"] for name in CHECKPOINTS] == [8, 7]


def test_nothing_saved(tmp_path: Path) -> None:
    state = trained(1)
    assert not has_state(tmp_path)
    assert load_state(tmp_path, state) is None
    assert saved_value(tmp_path, "step") is None
    assert state["step"] == 8


def test_a_state_of_an_earlier_version_lacks_what_the_data_were(tmp_path: Path) -> None:
    save_state(tmp_path, trained(0))
    state = {**trained(1), "data": {"classes": ["sky"]}}
    load_state(tmp_path, state)
    assert state["step"] == 7
    assert saved_value(tmp_path, "data") is None
