"""A run is validated, scored and used by the same protocol: the one of its configuration."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from u2pl.commands.evaluate import score_run
from u2pl.engine.checkpoint import load_weights, read_description, save_weights
from u2pl.engine.inference import Sized, Tagged, inference
from u2pl.errors import InputError
from u2pl.predictor import Predictor

WAY = {
    "tags": False,
    "image_prior": 0.5,
    "protocol": "sliding",
    "window": 16,
    "overlap": 0.5,
    "scales": [1.0, 0.75],
    "flip": True,
}
KEYS = [f"evaluation.{key}={json.dumps(value)}" for key, value in WAY.items()]


@pytest.fixture
def run(tiny_train: Callable[..., Any], tmp_path: Path) -> tuple[Path, Any]:
    """A finished run with windows, two scales and mirror images, and what training returned."""
    folder = tmp_path / "run"
    return folder, tiny_train(folder, *KEYS, "train.steps=6")


def test_validation_scoring_and_prediction_agree(run: tuple[Path, Any]) -> None:
    folder, trained = run
    validated = list(trained.scores.values())[-1]
    assert score_run(folder) == validated
    assert score_run(folder / "last.safetensors", ["data.val=3", "data.height=32", "data.width=48"]) == validated
    assert read_description(folder / "last.safetensors")["evaluation"] == WAY

    predictor = Predictor.from_run(folder)
    right = total = 0
    for sample in trained.source.val:
        guess, truth = predictor(sample.image()).mask, sample.mask()
        right += (guess == truth)[truth != 255].sum().item()
        total += (truth != 255).sum().item()
    assert validated.pixel_accuracy == pytest.approx(100 * right / total, rel=1e-12)


def test_the_protocol_is_seen_by_the_network(run: tuple[Path, Any]) -> None:
    predictor = Predictor.from_run(run[0])
    seen: list[tuple[int, ...]] = []
    predictor.network.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape[-2:])))
    image = torch.randint(0, 256, (3, 40, 20), dtype=torch.uint8)
    prediction = predictor(image)
    assert set(seen) == {(16, 16), (16, 15)}  # three quarters of 20 are less than a window
    segment = inference(predictor.network, **WAY)  # type: ignore[arg-type]
    with torch.no_grad():
        probability = segment(image[None].float().div(255))[0].exp()
    assert torch.allclose(prediction.probability, probability, atol=1e-6)
    assert torch.equal(prediction.mask, probability.argmax(dim=0).to(torch.uint8))
    assert prediction.entropy.isfinite().all()


def test_overrides_choose_another_protocol(run: tuple[Path, Any]) -> None:
    folder, _ = run
    whole = ["evaluation.protocol=whole", "evaluation.scales=[1.0]", "evaluation.flip=false"]
    scores = score_run(folder, whole)
    assert scores != score_run(folder)
    assert scores == score_run(folder, ["evaluation.window=48", "evaluation.scales=[1.0]", "evaluation.flip=false"])


def test_weights_that_do_not_say_are_of_whole_images(run: tuple[Path, Any]) -> None:
    folder, _ = run
    path, old = folder / "last.safetensors", folder / "old.safetensors"
    network = Predictor.from_file(path).network
    description = read_description(path)
    del description["evaluation"]
    save_weights(old, network, description)
    segment = Predictor.from_file(old).inference(network)
    assert isinstance(segment, Sized)
    assert segment.whole == Tagged(network)
    load_weights(old, network)
    save_weights(old, network, {**description, "evaluation": {"protocol": "tiled"}})
    with pytest.raises(
        InputError, match=r"old\.safetensors has a description that cannot be used \(evaluation\.protocol"
    ):
        Predictor.from_file(old)


def test_a_run_resumes_with_its_protocol(run: tuple[Path, Any], tiny_train: Callable[..., Any]) -> None:
    """Otherwise the best weights would be chosen among scores that cannot be compared."""
    with pytest.raises(InputError, match=r"evaluation\.flip: is False now but True"):
        tiny_train(run[0], *KEYS[:-1], "train.steps=6", resume=True)


def test_a_predictor_takes_any_way_to_see(run: tuple[Path, Any]) -> None:
    trained = Predictor.from_run(run[0])

    def upside_down(network: Any) -> Callable[[Tensor], Tensor]:
        return lambda image: network(image.flip(-2)).logits.flip(-2)

    image = torch.randint(0, 256, (3, 24, 32), dtype=torch.uint8)
    given = Predictor(trained.network, classes=trained.classes, inference=upside_down)(image)
    plain = Predictor(trained.network, classes=trained.classes)(image.flip(-2))
    assert torch.equal(given.mask, plain.mask.flip(-2))
