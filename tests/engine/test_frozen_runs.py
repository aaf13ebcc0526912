"""Whole runs with a frozen encoder: what changes, what is saved, and that a killed run goes on as if nothing were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from test_resume import assert_same_run
from torchvision.models import mobilenet_v2, resnet18

from tiny_run import KillAt, KilledError
from u2pl.commands.train import train
from u2pl.config.overrides import load_config
from u2pl.errors import InputError
from u2pl.predictor import Predictor

SMP = (
    *("network.name=smp", "network.architecture=FPN", "network.encoder=mobilenet_v2"),
    *("network.channels=32", "network.low_level_channels=null"),
)
#: Two steps of warm-up and six with a teacher. Saves, reports and evaluations never fall together before the end.
SHORT = ("train.steps=8", "train.save_every=3", "train.log_every=2", "train.eval_every=5")
CASES = {"whole": ("true", ()), "stages": ("2", ()), "smp": ("true", SMP), "smp stages": ("2", SMP)}
#: The layers of the first two stages, as the networks name them.
TWO_STAGES = {
    False: ("encoder.conv1", "encoder.bn1", "encoder.layer1"),
    True: tuple(f"model.encoder.features.{number}." for number in range(4)),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Random weights with statistics of their own stand for pretrained ones; by whether the network is of smp."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for name, network in (("False", resnet18(weights=None)), ("True", mobilenet_v2(weights=None))):
        network.train()(torch.rand(4, 3, 64, 64))
        torch.save(network.state_dict(), folder / f"{name}.pt")
    return {smp: folder / f"{smp}.pt" for smp in (False, True)}


def run(out: Path, tiny: tuple[str, ...], case: str, weights: dict[bool, Path], *more: str, **options: Any) -> Any:
    freeze, network = CASES[case]
    overrides = [*tiny, *network, f"network.weights={weights[bool(network)]}", f"network.freeze={freeze}", *more]
    said: list[str] = []
    train(load_config("scenes", overrides), out, say=said.append, **options)
    return said


@pytest.mark.parametrize(
    "case", ["whole", *(pytest.param(case, marks=pytest.mark.slow) for case in ("smp stages", "stages", "smp"))]
)
def test_a_killed_run_resumes_and_the_frozen_part_is_saved_once(
    tmp_path: Path, tiny_overrides: tuple[str, ...], weights: dict[bool, Path], case: str
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    said = run(whole, tiny_overrides, case, weights, *SHORT)
    with pytest.raises(KilledError):
        run(parts, tiny_overrides, case, weights, *SHORT, watchers=(KillAt(6),))
    run(parts, tiny_overrides, case, weights, *SHORT, resume=True)
    assert_same_run(whole, parts)
    assert any(" M of them train; " in line for line in said)

    freeze, network = CASES[case]
    prefixes = ("encoder.", "model.encoder.") if freeze == "true" else TWO_STAGES[bool(network)]
    state = torch.load(whole / "last.ckpt", weights_only=True)
    student, teacher = state["student"], state["method"]
    frozen = {name for name in student if name.startswith(prefixes)}
    assert frozen
    own = {name.removeprefix("teacher.network.") for name in teacher if name.startswith("teacher.network.")}
    assert own == set(student) - frozen
    assert any(not torch.equal(teacher[f"teacher.network.{name}"], student[name]) for name in own)
    trained = sum(len(group["params"]) for group in state["optimizer"]["param_groups"])
    assert len(state["optimizer"]["state"]) <= trained < len(frozen) + len(own)

    begun = torch.load(weights[bool(network)], weights_only=True)
    final = load_file(whole / "last.safetensors")  # of the teacher
    assert set(final) == set(student)
    for name in frozen:
        assert torch.equal(final[name], student[name])
        key = name.removeprefix("model.").removeprefix("encoder.")
        assert key in begun, key
        assert torch.equal(final[name], begun[key]), name


def test_its_weights_need_no_word_of_freezing(
    tmp_path: Path, tiny_overrides: tuple[str, ...], weights: dict[bool, Path]
) -> None:
    run(tmp_path, tiny_overrides, "whole", weights, "train.steps=2", "method.schedule.warmup=0")
    for name in ("best.safetensors", "last.safetensors"):
        with safe_open(tmp_path / name, framework="pt") as file:
            assert "freeze" not in file.metadata()["u2pl"]
    network = Predictor.from_run(tmp_path).network
    assert network.frozen is None
    assert torch.equal(network.encoder.conv1.weight, torch.load(weights[False], weights_only=True)["conv1.weight"])


@pytest.mark.parametrize(("before", "now"), [("true", "1"), ("2", "false")])
def test_another_part_cannot_be_frozen_later(
    tmp_path: Path, tiny_overrides: tuple[str, ...], before: str, now: str
) -> None:
    options = [*tiny_overrides, "train.steps=1", "method.name=supervised"]
    train(load_config("scenes", [*options, f"network.freeze={before}"]), tmp_path, say=lambda line: None)
    with pytest.raises(InputError, match=r"^network\.freeze: is .* now but .* a run resumes with the configuration"):
        train(load_config("scenes", [*options, f"network.freeze={now}"]), tmp_path, resume=True)


def test_a_diagnosis_changes_nothing(
    tmp_path: Path, tiny_overrides: tuple[str, ...], weights: dict[bool, Path]
) -> None:
    for name, value in (("with", "true"), ("without", "false")):
        run(tmp_path / name, tiny_overrides, "whole", weights, f"method.diagnose={value}", "train.steps=4")
    one, other = (load_file(tmp_path / name / "last.safetensors") for name in ("with", "without"))
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_too_many_stages_are_refused_before_anything_is_written(
    tmp_path: Path, tiny_overrides: tuple[str, ...]
) -> None:
    with pytest.raises(InputError, match=r"^network\.freeze: the encoder has 5 stages, not 9"):
        train(load_config("scenes", [*tiny_overrides, "network.freeze=9"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
