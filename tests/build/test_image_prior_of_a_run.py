"""What unlabeled images may show, from a configuration and its data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torchvision.models import resnet18

from tiny_run import KillAt, KilledError
from u2pl.build import build_image_prior, build_network, build_source, check_image_prior, image_prior_parameters
from u2pl.build.starting import network_keys
from u2pl.commands.checks import fabric_of
from u2pl.commands.evaluate import score_run
from u2pl.commands.run_folder import network_description
from u2pl.commands.train import train
from u2pl.config.overrides import load_config
from u2pl.config.schema import Config
from u2pl.engine.checkpoint import save_weights
from u2pl.errors import InputError
from u2pl.networks import deeplabv3plus
from u2pl.networks.image_classifier import ImageClassifier
from u2pl.predictor import Predictor, load_network

OBJECTS = ("data.kind=objects", "data.train=20", "data.labeled=6", "data.val=6")
SCENES = ("data.train=6", "data.val=2", "data.labeled=2", "data.height=48", "data.width=64", "data.workers=0")


def config(*overrides: str) -> Config:
    return load_config("scenes", [*SCENES, *overrides])


def test_an_image_prior_is_of_images_that_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenes of objects, told apart by features that give the class of each away."""
    chosen = config(
        "data.kind=objects", "data.train=40", "data.labeled=12", "method.image_prior.sharpness=2", "network.weights=x"
    )
    source = build_source(chosen.data, seed=0)
    samples = [*source.labeled, *source.unlabeled]
    classes = [shown(sample) for sample in samples]
    features = torch.tensor([[float(index in present) for index in range(len(source.classes))] for present in classes])
    features = torch.nn.functional.normalize(features, dim=1)
    asked: list[Any] = []
    monkeypatch.setattr("u2pl.build.image_prior.image_features", lambda *given, **_: asked.append(given[2]) or features)
    lines: list[str] = []
    network = deeplabv3plus(num_classes=len(source.classes), encoder="resnet18", channels=8)
    prior = build_image_prior(chosen, source, network, fabric_of(chosen.train), say=lines.append)
    assert prior is not None
    assert asked[0] == samples
    priors = prior.unlabeled
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
    classifier = prior.classifier  # says of the same images what it has learned of them
    assert not classifier.told[:2].any()
    scores = features @ classifier.weight.T + classifier.bias
    named = [
        int(row[2:].argmax()) == int(priors[sample.name][2:].argmax())
        for sample, row in zip(source.unlabeled, scores[len(source.labeled) :], strict=True)
    ]
    assert sum(named) > 0.8 * len(named)


def shown(sample: Any) -> set[int]:
    return set(sample.mask().unique().tolist()) - {0, 255}


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("method.image_prior.sharpness=2", "method.name=supervised"),
    ],
)
def test_no_prior_where_none_is_asked_for_or_no_teacher_listens(overrides: tuple[str, ...]) -> None:
    chosen = config(*overrides)
    check_image_prior(chosen)
    source = build_source(chosen.data, seed=0)
    assert build_image_prior(chosen, source, torch.nn.Identity(), fabric_of(chosen.train)) is None


def test_a_prior_by_an_encoder_from_scratch_is_refused() -> None:
    with pytest.raises(InputError, match=r"^method\.image_prior\.sharpness: .*network\.pretrained=true") as caught:
        check_image_prior(config("method.image_prior.sharpness=2"))
    assert "\n" not in str(caught.value)
    check_image_prior(config("method.image_prior.sharpness=2", "network.pretrained=true"))


@pytest.fixture
def options(tmp_path: Path) -> tuple[str, ...]:
    """Random weights of an encoder, saved, stand for pretrained ones."""
    weights = tmp_path / "weights.pt"
    torch.manual_seed(0)
    torch.save(resnet18(weights=None).state_dict(), weights)
    network = (f"network.weights={weights}", "network.channels=8", "network.low_level_channels=8")
    small = (
        "train.steps=4",
        "train.batch_size=2",
        "train.crop_size=32",
        "train.save_every=2",
        "method.schedule.warmup=0",
    )
    return (*network, *OBJECTS, *small, "method.image_prior.sharpness=2", "method.name=mean_teacher")


@pytest.mark.slow
def test_training_with_a_prior_resumes_exactly_and_says_so(options: tuple[str, ...], tmp_path: Path) -> None:
    lines: list[str] = []
    train(config(*options), tmp_path / "whole", say=lines.append)
    assert sum(line.startswith("image_prior: ") for line in lines) == 1, lines
    with pytest.raises(KilledError):
        train(config(*options, "train.log_every=1"), tmp_path / "parts", say=lines.append, watchers=(KillAt(3),))
    train(config(*options, "train.log_every=1"), tmp_path / "parts", resume=True, say=lines.append)
    train(config(*options, "method.image_prior.sharpness=0"), tmp_path / "other", say=lines.append)
    whole, parts, other = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "parts", "other"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    assert other.keys() == {name for name in whole if not name.startswith("image_prior.")}
    assert not all(torch.equal(value, whole[name]) for name, value in other.items())


@pytest.mark.slow
def test_a_resumed_run_keeps_the_prior_of_the_network_that_it_began_with(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    """The encoder is that of another run, which may be gone: the weights of a fresh one would be random."""
    first = tmp_path / "first.safetensors"
    before = config(*options)
    source = build_source(before.data, seed=0)
    network = build_network(before, num_classes=len(source.classes))
    save_weights(first, network, network_description(before, source))
    keys = [key for key in options if not key.startswith("network.weights")]
    short = ("train.log_every=1", "train.save_every=1", "train.steps=2", "data.val=0")
    going_on, run = config(*network_keys(first), *keys, *short), tmp_path / "run"
    with pytest.raises(KilledError):
        train(going_on, run, say=lambda line: None, watchers=(KillAt(2),))
    began = load_file(run / "last.safetensors")
    first.unlink()
    train(going_on, run, resume=True, say=lambda line: None, reports=False)
    ended = load_file(run / "last.safetensors")
    kept = [name for name in ended if name.startswith("image_prior.")]
    assert kept
    assert all(torch.equal(began[name], ended[name]) for name in kept)


@pytest.mark.slow
def test_a_run_with_a_prior_predicts_by_it(options: tuple[str, ...], tmp_path: Path) -> None:
    """In the scores of training, of `evaluate` and in masks, unless it is not asked for."""
    chosen = config(*options, "evaluation.image_prior=3", "train.precision=fp32")
    trained = train(chosen, tmp_path / "run", say=lambda line: None)
    file = tmp_path / "run" / "last.safetensors"
    for run in (tmp_path / "run", file):
        data = [] if run.is_dir() else ["data.name=scenes", *SCENES, *OBJECTS, "train.precision=fp32"]
        assert score_run(run, data) == trained.scores["teacher"]
    without = score_run(tmp_path / "run", ["evaluation.image_prior=0"])
    assert without != trained.scores["teacher"]

    assert Predictor.from_run(tmp_path / "run", weights="best").image_prior is not None
    predictor, network = Predictor.from_run(tmp_path / "run"), load_network(file)
    assert predictor.image_prior is not None
    assert predictor.image_prior.told.any()
    image = trained.source.val[0].image()
    seen = image[None].float() / 255
    with torch.no_grad():
        logits = network(seen).logits + 3 * predictor.image_prior(seen)[:, :, None, None]
    torch.testing.assert_close(predictor(image).probability, logits[0].softmax(dim=0))


def test_seeing_many_images_tells_how_far_it_is(options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("u2pl.build.image_prior._SECONDS", 0.0)
    chosen, lines = config(*options), []
    source = build_source(chosen.data, seed=0)
    network = build_network(chosen, num_classes=len(source.classes))
    build_image_prior(chosen, source, network, fabric_of(chosen.train), say=lines.append)
    assert lines[:-1] == [f"image_prior: {done} of 20 images seen" for done in range(1, 21)]


def test_a_file_whose_prior_does_not_fit_is_told_in_one_line(options: tuple[str, ...], tmp_path: Path) -> None:
    train(config(*options), tmp_path / "run", say=lambda line: None)
    file, broken = tmp_path / "run" / "last.safetensors", tmp_path / "broken.safetensors"
    whole, name = load_file(file), "image_prior.weight"
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    for change in ({name: whole[name][:2]}, {name: whole[name][:, :5].contiguous()}):
        save_file(whole | change, broken, metadata)
        with pytest.raises(
            InputError, match=r"broken\.safetensors holds weights that do not fit its description"
        ) as caught:
            Predictor.from_file(broken)
        assert "\n" not in str(caught.value)


def test_what_sees_an_image_as_a_whole_counts_as_parameters(options: tuple[str, ...]) -> None:
    """The encoder a second time, with its classifier: torchvision's ResNet-18."""
    chosen = config(*options)
    network = build_network(chosen, num_classes=7).to("meta")
    assert image_prior_parameters(chosen, network) == sum(parameter.numel() for parameter in resnet18().parameters())
    nothing = torch.empty(0)
    prior = ImageClassifier(network.image_encoder(), weight=nothing, bias=nothing, told=nothing)
    network.vocabulary = None  # a file of weights has it in the image prior
    assert image_prior_parameters(chosen, network, prior) == sum(each.numel() for each in resnet18().parameters())
    for override in ("evaluation.image_prior=0", "method.image_prior.sharpness=0", "method.name=supervised"):
        assert image_prior_parameters(config(*options, override), network) == 0
