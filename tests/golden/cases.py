"""Short seeded runs, one of each method, and what is recorded of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from golden_network import GoldenNetwork
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from u2pl.commands.train import train
from u2pl.config.overrides import load_config

STEPS, SAVED = 12, 8  # a run is saved in between, too
#: Four supervised steps, then eight with a teacher and a bank.
SMALL = (
    *("data.train=8", "data.val=0", "data.labeled=3", "data.height=32", "data.width=48", "data.workers=0"),
    *(
        "method.schedule.warmup=0.33",
        "method.schedule.ramp=0.3",
        "method.contrast.bank_size=64",
        "method.contrast.keys_per_step=16",
        "method.contrast.negatives=16",
    ),
    "network.embedding_dim=8",
    "method.contrast.min_probability=0.05",  # a network that has learned nothing yet has anchors, too
    *(f"train.steps={STEPS}", "train.batch_size=3", "train.crop_size=32", "train.log_every=1"),
    f"train.save_every={SAVED}",
    *("train.optimizer=sgd", "train.lr=0.02", "train.accelerator=cpu", "train.precision=fp32"),
)
#: By name: a preset and overrides.
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "supervised": ("scenes", ("method.name=supervised",)),
    "mean_teacher": ("scenes", ("method.name=mean_teacher",)),
    "fixmatch": ("scenes", ("method.name=fixmatch", "method.threshold=0.13")),
    "unimatch": ("scenes", ("method.name=unimatch", "method.threshold=0.15")),
    "u2pl_1_pass": ("scenes", ("method.teacher.passes=1",)),
    "u2pl_2_passes": ("scenes", ("method.teacher.passes=2",)),
    "u2pl_every_option": (
        "scenes",
        (
            *(
                "method.mixing.name=ael",
                "method.strong_views.number=2",
                "method.feature_dropout=true",
                "method.reliability.class_wise=true",
            ),
            *(
                "method.alignment=true",
                "method.loss_weights.negative=0.5",
                "method.prototypes=true",
                "method.denoising=true",
            ),
            *(
                "method.unsupervised_loss.name=symmetric",
                "method.reliability.min_confidence=0.1",
                "method.weighting.maximum=4",
                "method.strong_views.jitter=mixed",
            ),
            *(
                "method.negative_keys.pixels=all",
                "method.supervised_loss.name=ohem",
                "method.diagnose=true",
                "data.rare_class_sampling=true",
            ),
            *(
                "method.reliability.dynamic=false",
                "method.negative_keys.low_rank=1",
                "method.contrast.background_bank_size=96",
            ),
        ),
    ),
    "u2pl_balanced_with_image_prior": (
        "scenes",
        (
            *(
                "method.supervised_loss.name=balanced",
                "method.unsupervised_loss.name=balanced",
                "method.mixing.name=cross_domain",
            ),
            *("method.weighting.name=reliable_share", "method.image_prior.sharpness=2", "network.weights=golden"),
            *("data.kind=objects", "data.train=12", "method.negative_keys.rank_threshold=false"),
        ),
    ),
    "weak_u2pl": (
        "weak",
        ("data.labeled=0", "data.train=8", "method.cam.warmup=0.2", "method.negative_keys.tags=true"),
    ),
    "weak_u2pl_with_masks": ("weak", ("data.labeled=2", "method.cam.warmup=0.2", "method.teacher.passes=2")),
    "domain": ("domain", ("data.source.train=6", "data.target.train=6", "data.target.val=0")),
}
_OF_SCENES = ("data.train", "data.val", "data.height", "data.width", "data.labeled")


def overrides_of(name: str) -> list[str]:
    """What the run of a case sets beyond its preset."""
    preset, own = CASES[name]
    small = list(SMALL)
    if preset == "domain":
        small = [each for each in SMALL if each.partition("=")[0] not in _OF_SCENES]
        sizes = [(f"data.{part}.height=32", f"data.{part}.width=48") for part in ("source", "target")]
        small += [each for pair in sizes for each in pair]
    if preset == "weak":
        small = [each for each in SMALL if "ramp" not in each]
    return [*small, *own]


def build_golden(config: Any, num_classes: int) -> nn.Module:
    """In place of the network that a configuration asks for."""
    name = config.method.name
    return GoldenNetwork(
        num_classes=num_classes, embedding=name in ("u2pl", "weak_u2pl"), classification=name == "weak_u2pl"
    )


@contextmanager
def golden_network() -> Iterator[None]:
    """All runs within train the network of :mod:`golden_network`."""
    with (
        mock.patch("u2pl.commands.checks.build_network", build_golden),
        mock.patch("u2pl.build.trained.build_network", build_golden),
    ):
        yield


def record(name: str, folder: Path, *, resume: bool = False) -> dict[str, Any]:
    """Train the case into ``folder``. By step its losses and the norm of its gradient; sums of the final weights."""
    norms: list[float] = []

    def note(optimizer: Optimizer, *_: Any) -> None:
        if not isinstance(optimizer, SGD):  # an image prior is fitted by another one
            return
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms.append(torch.cat([gradient.flatten() for gradient in gradients]).norm().item())

    threads, hook = torch.get_num_threads(), register_optimizer_step_pre_hook(note)
    torch.set_num_threads(1)
    try:
        with golden_network():
            config = load_config(CASES[name][0], overrides_of(name))
            train(config, folder, resume=resume, say=lambda line: None)
    finally:
        hook.remove()
        torch.set_num_threads(threads)
    return {"losses": losses_of(folder), "gradient_norm": norms, "checksums": checksums_of(folder)}


class StoppedError(Exception):
    """Stands for a kill."""


class StopAt:
    """A watcher that ends a run once so many steps are done."""

    def __init__(self, step: int) -> None:
        self.at = step

    def begin(self, steps: int) -> None: ...

    def step(self, done: int, losses: Mapping[str, float]) -> None:
        if done > self.at:
            raise StoppedError

    def evaluated(self, done: int, scores: Mapping[str, Any]) -> None: ...


def begin(name: str, folder: Path) -> None:
    """Train the case up to its save after step :data:`SAVED`, and leave what is needed to go on."""
    config = load_config(CASES[name][0], overrides_of(name))
    with golden_network(), suppress(StoppedError):
        train(config, folder, watchers=(StopAt(SAVED),), say=lambda line: None)
    for path in folder.iterdir():
        if path.name not in ("config.yaml", "last.ckpt"):
            path.unlink()


def losses_of(folder: Path) -> dict[str, list[float]]:
    """Each loss, step by step; a run may begin without it."""
    losses: dict[str, list[float]] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        for key, value in json.loads(line).items():
            if key.startswith("loss/"):
                losses.setdefault(key.removeprefix("loss/"), []).append(value)
    return losses


def checksums_of(folder: Path) -> dict[str, float]:
    """What the run has come to: of the student, the teacher, the bank and what else the method remembers."""
    state = torch.load(folder / "last.ckpt", weights_only=True)
    groups: dict[str, dict[str, Tensor]] = {"student": {}, "teacher": {}, "bank": {}, "other": {}}
    named = [*((f"student.{key}", value) for key, value in state["student"].items()), *state["method"].items()]
    for key, value in named:
        if isinstance(value, Tensor) and value.is_floating_point():
            group = (
                "student"
                if key.startswith("student.")
                else "teacher"
                if "teacher." in key
                else "bank"
                if "bank." in key
                else "other"
            )
            groups[group][key] = value
    return {name: checksum(tensors) for name, tensors in groups.items() if tensors}


def checksum(tensors: Mapping[str, Tensor]) -> float:
    """The norm of all numbers together: no name matters and no order, and every number does."""
    return sum(tensor.double().square().sum().item() for tensor in tensors.values()) ** 0.5
