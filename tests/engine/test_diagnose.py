"""A diagnosis says what it should, and leaves no trace in training."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from tiny_run import KillAt, KilledError
from u2pl.data.batches import step_seed
from u2pl.engine.diagnose import (
    _DIAGNOSIS_STREAM,
    Diagnosis,
    diagnose,
    gradient_norms,
    gradient_shares,
    shares,
)
from u2pl.engine.machine import make_fabric
from u2pl.methods import U2PL, EmaTeacher, FixMatch, Schedule, Supervised, UniMatch
from u2pl.methods.base import Method
from u2pl.pixels import UnreliableContrast
from u2pl.pixels.reliability import ConfidenceThreshold
from u2pl.structures import IGNORE_INDEX, Batch, SegmentationOutput

Train = Callable[..., Any]
C, SIZE = 3, 16
CLASSES = ("sky", "road", "car")
ON = "method.diagnose=true"
#: Warm-up to step 2, evaluations in it and after it.
SHORT = ("train.steps=8", "train.eval_every=2", "train.save_every=3", "train.log_every=1")


class Network(nn.Module):
    """Batch normalisation, dropout and dropped features: everything a look could disturb."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.dropout = nn.Dropout(0.2)
        self.classifier, self.projection = nn.Conv2d(8, C, 1), nn.Conv2d(8, 4, 1)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, image: Tensor, *, dropped: int = 0) -> SegmentationOutput:
        features = self.dropout(self.encoder(image))
        if dropped:
            features = torch.cat((features, F.dropout2d(features[-dropped:])))
        coarse = self.classifier(features)
        return SegmentationOutput(F.interpolate(coarse, size=image.shape[-2:]), coarse, self.projection(features))


def random_batch(seed: int, size: int = 2) -> Batch:
    torch.manual_seed(seed)
    label, truth = torch.randint(0, C, (2, size, SIZE, SIZE))
    label[:, 0], truth[:, 1] = IGNORE_INDEX, IGNORE_INDEX
    image, weak, strong, other = torch.rand(4, size, 3, SIZE, SIZE)
    return Batch(image, label, weak, strong, torch.ones(size, SIZE, SIZE, dtype=torch.bool), other, truth)


def new_method(name: str, student: nn.Module) -> Method:
    if name == "u2pl":
        contrast = UnreliableContrast(C, 4, bank_size=64, keys_per_step=16, min_probability=0.1, keep_truth=True)
        return U2PL(EmaTeacher(student), contrast=contrast, schedule=Schedule(warmup=0.2))
    return {"supervised": Supervised, "fixmatch": FixMatch, "unimatch": UniMatch}[name]()


def look(student: nn.Module, method: Method, batches: list[Batch], **options: Any) -> dict[str, float | None]:
    fabric = make_fabric(accelerator="cpu", devices=1, nodes=1, precision="fp32")
    settings: dict[str, Any] = {"progress": 0.5, "loss_weights": {"contrastive": 0.1}, "seed": 3, **options}
    return diagnose(
        fabric, Diagnosis(CLASSES, lambda: batches, lambda batch: batch), student=student, method=method, **settings
    )


def trained(name: str) -> tuple[Network, Method]:
    """Two steps on."""
    torch.manual_seed(0)
    student = Network()
    method = new_method(name, student)
    for seed in range(2):
        method(student.train(), random_batch(seed), 0.5)
        method.after_step(student)
    return student, method


def everything(*modules: nn.Module) -> list[Any]:
    """All that a step depends on or leaves behind."""
    states = [copy.deepcopy(module.state_dict()) for module in modules]
    modes = [[part.training for part in module.modules()] for module in modules]
    gradients = [[parameter.grad for parameter in module.parameters()] for module in modules]
    return [states, modes, gradients, torch.get_rng_state()]


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, Mapping):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


@pytest.mark.parametrize("name", ["supervised", "fixmatch", "unimatch", "u2pl"])
@pytest.mark.parametrize("progress", [0.1, 0.5])
def test_a_look_leaves_no_trace(name: str, progress: float) -> None:
    student, method = trained(name)
    batches = [random_batch(7), random_batch(8)]
    before = everything(student, method)
    first = look(student, method, batches, progress=progress)
    assert equal(before, everything(student, method))
    torch.rand(5)
    assert look(student, method, batches, progress=progress) == first


def test_a_look_that_fails_leaves_no_trace_either(monkeypatch: pytest.MonkeyPatch) -> None:
    student, method = trained("u2pl")
    batch = random_batch(7)
    before = everything(student, method)

    def fail(network: nn.Module, *_: Any) -> None:
        network(torch.rand(2, 3, SIZE, SIZE))
        network.eval()
        raise KeyError

    monkeypatch.setattr(method, "diagnose", fail)
    with pytest.raises(KeyError):
        look(student, method, [batch])
    assert equal(before, everything(student, method))


def test_batches_are_added_up_not_averaged() -> None:
    """Over batches of one and three images, each pixel counts as much as any other."""
    student, method = trained("fixmatch")
    batches = [random_batch(7, 1), random_batch(8, 3)]
    confidence = student.eval()(batches[1].weak).logits.softmax(dim=1).amax(dim=1)
    method.reliability = ConfidenceThreshold(confidence.median().item())
    together = look(student, method, batches)
    counts = [copy.deepcopy(method).diagnose(copy.deepcopy(student), batch, 0.5) for batch in batches]
    names = ("reliable/share", "reliable/accuracy", "unreliable/recall")
    for name in names:
        part, whole = (counts[0][name] + counts[1][name]).tolist()
        assert together[name] == sum(part) / sum(whole)
        for label, some, most in zip(CLASSES, part, whole, strict=True):
            assert together[f"{name}/{label}"] == (some / most if most else None)
    means = [float(count[names[1]][0].sum() / count[names[1]][1].sum()) for count in counts]
    assert together[names[1]] != pytest.approx(sum(means) / 2, abs=1e-4)


def test_gradients_are_those_of_a_step() -> None:
    """Against a backward pass for each weighted loss alone, on copies, by hand."""
    student, method = trained("u2pl")
    batch = random_batch(7)
    values = look(student, method, [batch, random_batch(8)])
    norms = {}
    for name in ("supervised", "unsupervised", "contrastive"):
        network, step = copy.deepcopy(student).train(), copy.deepcopy(method)
        torch.manual_seed(step_seed(3, _DIAGNOSIS_STREAM, 0, 0))
        loss = step(network, batch, 0.5)[name]
        ((0.1 if name == "contrastive" else 1.0) * loss).backward()
        squares = [value**2 for p in network.parameters() if p.grad is not None for value in p.grad.flatten().tolist()]
        norms[name] = math.sqrt(sum(squares))
    for name, norm in norms.items():
        assert values[f"gradient/{name}/norm"] == pytest.approx(norm, rel=1e-4)
        assert values[f"gradient/{name}/share"] == pytest.approx(norm / sum(norms.values()), rel=1e-4)
    assert min(norms.values()) > 0


def test_gradients_of_losses_that_reach_few_parameters_or_none() -> None:
    parameters = [torch.tensor([3.0, 4.0], requires_grad=True), torch.tensor([1.0], requires_grad=True)]
    losses = {
        "both": parameters[0].square().sum() / 2 + 12 * parameters[1].sum(),
        "one": 0.5 * parameters[1].sum(),
        "zero": 0.0 * parameters[0].sum(),
        "none": torch.tensor(2.0),
    }
    norms = gradient_norms(losses, parameters)
    assert norms == pytest.approx({"both": 13.0, "one": 0.5, "zero": 0.0, "none": 0.0})
    assert all(parameter.grad is None for parameter in parameters)
    values = gradient_shares(norms)
    assert values["gradient/both/share"] == pytest.approx(13 / 13.5)
    assert gradient_shares({"a": 0.0})["gradient/a/share"] is None
    assert set(gradient_shares({"a": math.nan, "b": 1.0}).values()) == {None, 1.0}
    assert gradient_shares({"a": math.inf})["gradient/a/share"] is None


def test_shares_of_nothing_are_unknown() -> None:
    counts = {"one": torch.tensor([1, 4]), "none": torch.tensor([0, 0]), "each": torch.tensor([[1, 0, 2], [2, 0, 6]])}
    expected = {"one": 0.25, "none": None, "each/sky": 0.5, "each/road": None, "each/car": 2 / 6, "each": 3 / 8}
    assert shares(counts, CLASSES) == expected


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "steps_per_second"} for line in lines]


def is_look(line: Mapping[str, Any]) -> bool:
    return "gradient/supervised/norm" in line


def assert_same_training(plain: Path, diagnosed: Path) -> None:
    """Bit by bit; the diagnosed run has lines of its own, and the true classes of its keys."""
    for name in ("last.safetensors", "best.safetensors"):
        assert (plain / name).read_bytes() == (diagnosed / name).read_bytes()
    assert metrics(plain) == [line for line in metrics(diagnosed) if not is_look(line)]
    states = [torch.load(folder / "last.ckpt", weights_only=True) for folder in (plain, diagnosed)]
    states[1]["method"].pop("contrast.bank.truth", None)
    for part in ("student", "method", "optimizer", "scheduler", "meter"):
        assert equal(states[0][part], states[1][part]), part


def test_a_diagnosed_run_trains_bit_for_bit_alike_and_can_be_resumed(tmp_path: Path, tiny_train: Train) -> None:
    plain, whole, parts = (tmp_path / name for name in ("plain", "whole", "parts"))
    tiny_train(plain, *SHORT)
    tiny_train(whole, *SHORT, ON)
    assert_same_training(plain, whole)
    with pytest.raises(KilledError):
        tiny_train(parts, *SHORT, ON, watchers=(KillAt(7),))
    tiny_train(parts, *SHORT, ON, resume=True)
    assert metrics(whole) == metrics(parts)
    states = [torch.load(folder / "last.ckpt", weights_only=True)["method"] for folder in (whole, parts)]
    assert equal(*states)
    truth = states[0]["contrast.bank.truth"]
    assert (truth != IGNORE_INDEX).sum() > 50

    looks = [line for line in metrics(whole) if is_look(line)]
    assert [line["step"] for line in looks] == [2, 4, 6, 8]
    assert set(looks[0]) == {  # warm-up: no teacher yet
        "step",
        *(f"gradient/{name}/{what}" for name in ("supervised", "contrastive") for what in ("norm", "share")),
    }
    names = {"agreement", "anchors/classes", "anchors/accuracy", "queue/fill", "queue/purity"}
    names |= {f"{kind}/{what}" for kind in ("reliable", "unreliable") for what in ("share", "accuracy", "recall")}
    names |= {"gradient/unsupervised/share", "queue/purity/sky", "reliable/accuracy/road", "anchors/accuracy/car"}
    assert names <= set(looks[-1])
    last = looks[-1]
    assert last["reliable/share"] + last["unreliable/share"] == pytest.approx(1)
    assert sum(last[f"gradient/{name}/share"] for name in ("supervised", "unsupervised", "contrastive")) == (
        pytest.approx(1)
    )
    assert all(0 <= last[name] <= 1 for name in names if last[name] is not None and name not in COUNTS)
    assert 0 < last["queue/fill"] <= 32
    curves = EventAccumulator(str(whole)).Reload()
    assert [event.step for event in curves.Scalars("queue/purity")] == [4, 6, 8]


COUNTS = ("anchors/classes", "queue/fill")  # no shares


@pytest.mark.parametrize("method", ["supervised", "mean_teacher", "fixmatch"])
def test_so_do_runs_of_other_methods(tmp_path: Path, tiny_train: Train, method: str) -> None:
    plain, diagnosed = tmp_path / "plain", tmp_path / "diagnosed"
    tiny_train(plain, *SHORT, f"method.name={method}")
    tiny_train(diagnosed, *SHORT, f"method.name={method}", ON)
    assert_same_training(plain, diagnosed)
    last = [line for line in metrics(diagnosed) if is_look(line)][-1]
    assert ("reliable/accuracy" in last) == (method != "supervised")
    assert (diagnosed / "pictures" / "diagnosis.png").stat().st_size > 0
    assert not (plain / "pictures" / "diagnosis.png").exists()
    assert ("agreement" in last) == (method == "mean_teacher")
    assert "queue/fill" not in last


#: Trains the tiny network; Fabric starts it once more for the second process.
SCRIPT = """
import sys
from pathlib import Path

import torch

sys.path.insert(0, sys.argv[1])
from tiny_run import TinyNetwork

import u2pl.commands.checks
import u2pl.commands.train
from u2pl.config.overrides import load_config

torch.set_num_threads(1)
u2pl.commands.checks.build_network = lambda config, num_classes: TinyNetwork(num_classes=num_classes)
u2pl.commands.train.save_pictures = lambda *parts: None
u2pl.commands.train.train(load_config("scenes", sys.argv[3:]), Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_so_does_a_run_of_two_processes(tmp_path: Path, tiny_overrides: tuple[str, ...]) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    folders = {tmp_path / "plain": "method.diagnose=false", tmp_path / "diagnosed": ON}
    for folder, key in folders.items():
        options = (*tiny_overrides, *SHORT, "train.devices=2", key)
        done = subprocess.run(
            (sys.executable, str(script), str(Path(__file__).parents[1]), str(folder), *options),
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert_same_training(*folders)
    looks = [line for line in metrics(tmp_path / "diagnosed") if is_look(line)]
    assert [line["step"] for line in looks] == [2, 4, 6, 8]
    assert looks[-1]["queue/purity"] > 0
