"""A training that goes on from a finished run: which weights it takes, and from what it cannot."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from u2pl.build.starting import matched, named_as_typed, network_keys
from u2pl.commands.prepare import prepared
from u2pl.commands.train import train
from u2pl.config.overrides import load_config
from u2pl.engine.run import Watcher
from u2pl.errors import InputError

Folder = Callable[..., Path]
SMALL = (
    *("network.name=smp", "network.architecture=FPN", "network.encoder=mobilenet_v2", "network.channels=32"),
    *("network.embedding_dim=8", "train.crop_size=64", "train.batch_size=2", "train.accelerator=cpu"),
    *("train.precision=fp32", "train.steps=3", "data.workers=0", "data.cache=false", "data.val=val"),
    *("method.contrast.bank_size=32", "method.contrast.keys_per_step=8", "method.contrast.negatives=16"),
)


def photos(write_folder: Folder, classes: tuple[str, ...]) -> Path:
    shown: dict[str, Any] = {**{f"train/{name}": (0, 1, 2) for name in "ab"}, "train/x": None, "val/v": (0, 1)}
    return write_folder(shown, classes=classes)


def quiet(line: str) -> None:
    pass


@pytest.fixture
def run(write_folder: Folder, tmp_path: Path) -> Path:
    root = photos(write_folder, ("sky", "road", "car"))
    train(load_config("folder", [f"data.root={root}", *SMALL]), tmp_path / "run", say=quiet)
    return tmp_path / "run"


def begun(root: Path, run: Path, *overrides: str) -> dict[str, torch.Tensor]:
    config = load_config("folder", [*network_keys(run), f"data.root={root}", *SMALL, *overrides])
    return prepared(config, quiet).network.state_dict()


def test_rows_are_matched_by_the_names_of_classes() -> None:
    before = {
        "encoder.a": torch.arange(4.0),
        "head": torch.arange(6.0).reshape(3, 2),
        "tags": torch.tensor([[10.0], [20.0]]),
        "gone": torch.zeros(1),
        "other": torch.zeros(5),
    }
    now = {
        "encoder.a": torch.zeros(4),
        "head": torch.full((4, 2), -1.0),
        "tags": torch.full((3, 1), -1.0),
        "fresh": torch.zeros(2),
        "other": torch.zeros(6),
    }
    rows = {"head": 0, "tags": 1}
    found = matched(before, now, rows, ("sky", "road", "car"), ("car", "sky", "tree", "road"))
    assert {name: value.tolist() for name, value in found.items()} == {
        "encoder.a": [0, 1, 2, 3],
        "head": [[4, 5], [0, 1], [-1, -1], [2, 3]],
        "tags": [[-1], [-1], [10]],  # sky is the background of neither: only road and car had rows
    }
    assert now["head"].min() == -1  # nothing is changed in place


def test_the_same_classes_get_every_weight(run: Path, write_folder: Folder) -> None:
    state = begun(photos(write_folder, ("sky", "road", "car")), run)
    saved = load_file(run / "last.safetensors")
    assert set(state) <= set(saved)
    for name, tensor in state.items():
        assert torch.equal(tensor, saved[name].to(tensor.dtype)), name


def test_other_classes_get_the_rows_of_their_names(run: Path, write_folder: Folder) -> None:
    state = begun(photos(write_folder, ("road", "tree", "sky", "car")), run)
    saved = load_file(run / "last.safetensors")
    head = "model.segmentation_head.0.weight"
    assert state[head].shape[0] == 4
    for place, former in {0: 1, 2: 0, 3: 2}.items():
        assert torch.equal(state[head][place], saved[head][former])
    assert not any(torch.equal(state[head][1], row) for row in saved[head])
    for name, tensor in state.items():
        if "segmentation_head" not in name:
            assert torch.equal(tensor, saved[name].to(tensor.dtype)), name


def test_a_run_of_labels_alone_lacks_only_the_projection(run: Path, write_folder: Folder, tmp_path: Path) -> None:
    root = photos(write_folder, ("sky", "road", "car"))
    train(load_config("folder", [f"data.root={root}", *SMALL, "method.name=supervised"]), tmp_path / "plain", say=quiet)
    state, saved = begun(root, tmp_path / "plain"), load_file(tmp_path / "plain" / "last.safetensors")
    assert {name.partition(".")[0] for name in set(state) - set(saved)} == {"projection"}
    assert all(torch.equal(state[name], saved[name].to(state[name].dtype)) for name in set(state) & set(saved))


class Kill(Watcher):
    def begin(self, steps: int) -> None: ...

    def step(self, done: int, losses: Any) -> None:
        if done == 2:
            raise KeyboardInterrupt

    def evaluated(self, done: int, scores: Any) -> None: ...


def test_a_resumed_training_does_not_need_the_first_run_any_more(
    run: Path, write_folder: Folder, tmp_path: Path
) -> None:
    root = photos(write_folder, ("sky", "road", "car"))
    keys = [*network_keys(run), f"data.root={root}", *SMALL, "train.save_every=1", "train.log_every=1", "train.steps=4"]
    config = load_config("folder", keys)
    train(config, tmp_path / "whole", say=quiet)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "killed", say=quiet, watchers=(Kill(),))
    shutil.rmtree(run)
    train(config, tmp_path / "killed", say=quiet, resume=True)
    one, other = ((tmp_path / name / "last.safetensors").read_bytes() for name in ("whole", "killed"))
    assert one == other


def test_what_it_cannot_go_on_from(run: Path, write_folder: Folder, tmp_path: Path) -> None:
    root = photos(write_folder, ("sky", "road", "car"))
    with pytest.raises(InputError, match=r"^network\.start_from: .* is of another network: .*--from"):
        begun(root, run, "network.encoder=resnet18")
    with pytest.raises(InputError, match=r"^network\.start_from: .* is of another network: .*is \(\d+.*, not"):
        begun(root, run, "network.channels=64")
    with pytest.raises(InputError, match=r"^network\.start_from: .*missing.*last\.safetensors is missing|is missing"):
        network_keys(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"^--from: .*nothing is missing"), named_as_typed(run):
        network_keys(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"^--from: .*; leave out your keys of `network`$"), named_as_typed(run):
        begun(root, run, "network.channels=64")
    other = ["network.name=deeplabv3plus"]
    with (
        pytest.raises(InputError, match=r"^--from .*: network\.architecture: .*; leave out your keys of"),
        named_as_typed(run, other),
    ):
        begun(root, run, *other)
    with pytest.raises(InputError, match=r"^network\.start_from"), named_as_typed(run, ["network.start_from=x"]):
        network_keys(tmp_path / "nothing")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match=r"foreign\.safetensors"):
        network_keys(tmp_path / "foreign.safetensors")
