"""Files of a run are whole or not there, and run no code."""

from __future__ import annotations

import errno
import json
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.optim import SGD

from u2pl.engine.checkpoint import (
    load_weights,
    read_description,
    save_weights,
    write_atomically,
)
from u2pl.errors import InputError


def trained(seed: int = 0) -> dict[str, Any]:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    optimizer = SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.randn(2, 3, 4, 4)).square().sum().backward()
    optimizer.step()
    return {"student": network, "optimizer": optimizer, "step": 7 + seed, "best": 12.5}


def test_a_write_that_fails_halfway_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    path.write_text("old")

    def fail(partial: Path) -> None:
        partial.write_text("half of the ne")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError, match=r"last\.ckpt cannot be written \(No space left on device\); free space"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]

    write_atomically(path, lambda partial: partial.write_text("new") and None)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    assert path.read_text() == "new"


DESCRIPTION = {"classes": ["sky", "röad"], "palette": [[1, 2, 3]], "scale": 0.5, "network": {"multi_grid": [1, 2, 4]}}


def test_weights_carry_their_description(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    network = trained()["student"].to(memory_format=torch.channels_last)
    save_weights(path, network, DESCRIPTION)
    assert read_description(path) == DESCRIPTION
    other = trained(1)["student"]
    load_weights(path, other)
    for name, tensor in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["u2pl"]) == DESCRIPTION


def test_what_belongs_beside_a_network_is_saved_with_it(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    network, other = trained()["student"], trained(1)["student"]
    beside = torch.nn.BatchNorm2d(3)
    save_weights(path, network, DESCRIPTION, beside={"extra": beside})
    assert load_weights(path, other, beside="extra").keys() == beside.state_dict().keys()
    assert all(torch.equal(other.state_dict()[name], tensor) for name, tensor in network.state_dict().items())
    with pytest.raises(RuntimeError, match=r"extra\.running_mean"):
        load_weights(path, other)
    save_weights(path, network, DESCRIPTION)
    assert load_weights(path, other, beside="extra") == {}


def test_weights_can_be_read_by_whoever_reads_other_files(tmp_path: Path) -> None:
    save_weights(tmp_path / "last.safetensors", trained()["student"], DESCRIPTION)
    (tmp_path / "plain").write_text("")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("last.safetensors", "plain")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("kind", ["foreign", "text", "truncated", "missing"])
def test_weights_of_something_else_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "last.safetensors"
    if kind == "foreign":
        save_file({"a": torch.zeros(2)}, path)
    elif kind == "text":
        path.write_text("weights")
    elif kind == "truncated":
        save_weights(path, trained()["student"], DESCRIPTION)
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match="holds no trained network") as caught:
        read_description(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
