"""What unlabeled images may show, from a configuration and its data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torchvision.models import resnet18

from tiny_run import KillAt, KilledError
from u2pl.build import build_image_prior, build_source, check_image_prior
from u2pl.config import Config
from u2pl.errors import InputError
from u2pl.recipes import load_config
from u2pl.run import fabric_of, train

SCENES = ("data.train=6", "data.val=2", "data.labeled=2", "data.height=48", "data.width=64", "data.workers=0")


def config(*overrides: str) -> Config:
    return load_config("scenes", [*SCENES, *overrides])


def test_an_image_prior_is_of_images_that_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenes of objects, told apart by features that give the class of each away."""
    chosen = config(
        "data.kind=objects", "data.train=40", "data.labeled=12", "method.image_prior=2", "network.weights=x"
    )
    source = build_source(chosen.data, seed=0)
    samples = [*source.labeled, *source.unlabeled]
    classes = [shown(sample) for sample in samples]
    features = torch.tensor([[float(index in present) for index in range(len(source.classes))] for present in classes])
    features = torch.nn.functional.normalize(features, dim=1)
    asked: list[Any] = []
    monkeypatch.setattr("u2pl.build.prior.image_features", lambda *given: asked.append(given[2]) or features)
    lines: list[str] = []
    priors = build_image_prior(chosen, source, torch.nn.Identity(), fabric_of(chosen.train), say=lines.append)
    assert priors is not None
    assert asked[0] == samples
    assert set(priors) == {sample.name for sample in source.unlabeled}
    assert "28 unlabeled images" in lines[0]
    assert re.search(r"the class of \d of 11 labeled ones", lines[0])  # one shows but the class that is seldom alone
    assert all(row[:2].eq(0).all() for row in priors.values())  # the background, and what seldom is alone
    right = [
        priors[sample.name][2:].argmax().item() + 2 in shown(sample)
        for sample in source.unlabeled
        if shown(sample) - {1}
    ]
    assert sum(right) > 0.8 * len(right)


def shown(sample: Any) -> set[int]:
    return set(sample.mask().unique().tolist()) - {0, 255}


@pytest.mark.parametrize(
    "overrides",
    [(), ("method.image_prior=2", "method.name=fixmatch"), ("method.image_prior=2", "method.name=supervised")],
)
def test_no_prior_where_none_is_asked_for_or_no_teacher_listens(overrides: tuple[str, ...]) -> None:
    chosen = config(*overrides)
    check_image_prior(chosen)
    source = build_source(chosen.data, seed=0)
    assert build_image_prior(chosen, source, torch.nn.Identity(), fabric_of(chosen.train)) is None


def test_a_prior_by_an_encoder_from_scratch_is_refused() -> None:
    with pytest.raises(InputError, match=r"^method\.image_prior: .*network\.pretrained=true") as caught:
        check_image_prior(config("method.image_prior=2"))
    assert "\n" not in str(caught.value)
    check_image_prior(config("method.image_prior=2", "network.pretrained=true"))


def test_training_with_a_prior_resumes_exactly_and_says_so(tmp_path: Path) -> None:
    """Random weights of an encoder, saved, stand for pretrained ones."""
    network = (
        "network.channels=8",
        "network.low_level_channels=8",
        "data.kind=objects",
        "data.train=20",
        "data.labeled=6",
    )
    weights = tmp_path / "weights.pt"
    torch.manual_seed(0)
    torch.save(resnet18(weights=None).state_dict(), weights)
    small = ("train.steps=4", "train.batch_size=2", "train.crop_size=32", "train.save_every=2", "method.warmup=0")
    options = (*network, f"network.weights={weights}", "method.image_prior=2", "method.name=mean_teacher", *small)
    lines: list[str] = []
    train(config(*options), tmp_path / "whole", say=lines.append)
    assert sum(line.startswith("image_prior: ") for line in lines) == 1
    with pytest.raises(KilledError):
        train(config(*options, "train.log_every=1"), tmp_path / "parts", say=lines.append, watchers=(KillAt(3),))
    train(config(*options, "train.log_every=1"), tmp_path / "parts", resume=True, say=lines.append)
    train(config(*options, "method.image_prior=0"), tmp_path / "other", say=lines.append)
    whole, parts, other = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "parts", "other"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    assert not all(torch.equal(value, other[name]) for name, value in whole.items())
