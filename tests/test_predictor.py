"""The predictor: what it returns, at which size, and how a weights file becomes one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from u2pl.build.trained import network_of
from u2pl.config.schema import Config
from u2pl.engine.checkpoint import save_weights
from u2pl.errors import InputError
from u2pl.predictor import Predictor
from u2pl.structures import SegmentationOutput

DESCRIPTION = {
    "classes": ["sky", "road", "car"],
    "palette": [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
    "scale": 0.5,
    "method": "u2pl",
    "network": {"encoder": "resnet18", "channels": 8, "low_level_channels": 8, "embedding_dim": 6},
}


class Red(nn.Module):
    """Class scores that follow the channels of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(4.0))
        self.seen: list[Tensor] = []

    def forward(self, image: Tensor) -> SegmentationOutput:
        self.seen.append(image)
        return SegmentationOutput(self.factor * image, self.factor * image)


def test_prediction_is_the_softmax_of_the_network() -> None:
    network = Red().train()
    predictor = Predictor(network, classes=("r", "g", "b"))
    assert not network.training
    image = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    prediction = predictor(image)
    probability = (4 * image.float() / 255).softmax(dim=0)
    assert torch.allclose(prediction.probability, probability, atol=1e-6)
    assert torch.equal(prediction.mask, probability.argmax(dim=0).to(torch.uint8))
    assert torch.allclose(prediction.entropy, -(probability * probability.log()).sum(dim=0), atol=1e-5)
    assert torch.equal(network.seen[0][0], image.float() / 255)
    assert not prediction.probability.requires_grad


def test_a_scaled_predictor_answers_at_the_size_of_the_image() -> None:
    network = Red()
    predictor = Predictor(network, classes=("r", "g", "b"), scale=0.5)
    image = torch.zeros(3, 9, 14, dtype=torch.uint8)
    image[1, :, 7:] = 255
    prediction = predictor(image)
    assert network.seen[0].shape[-2:] == (4, 7)
    assert prediction.mask.shape == (9, 14)
    assert prediction.probability.shape == (3, 9, 14)
    assert prediction.mask[4, 12] == 1
    assert torch.allclose(prediction.probability.sum(dim=0), torch.ones(9, 14), atol=1e-5)


def test_without_a_palette_classes_get_different_colours() -> None:
    assert len(set(Predictor(Red(), classes=tuple("abcdef")).palette)) == 6


def test_a_run_folder_becomes_the_network_it_holds(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = network_of(DESCRIPTION)
    save_weights(tmp_path / "best.safetensors", network, DESCRIPTION)
    predictor = Predictor.from_run(tmp_path, weights="best")
    assert predictor.classes == ("sky", "road", "car")
    assert predictor.palette == ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    assert predictor.scale == 0.5
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(predictor.network(image).logits, network.eval()(image).logits)
    with pytest.raises(InputError, match=r"last\.safetensors is missing"):
        Predictor.from_run(tmp_path)
    with pytest.raises(InputError, match=r"--weights first: should be last or best"):
        Predictor.from_run(tmp_path, weights="first")


@pytest.mark.parametrize("change", [{"network": {"channels": 16}}, {"network": {"unheard": 1}}, {"classes": ["a"]}])
def test_weights_that_are_not_of_what_they_describe(tmp_path: Path, change: dict[str, object]) -> None:
    save_weights(tmp_path / "last.safetensors", network_of(DESCRIPTION), {**DESCRIPTION, **change})
    told = r"last\.safetensors (holds weights that do not fit|has a description that cannot)"
    with pytest.raises(InputError, match=told) as caught:
        Predictor.from_run(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_network_without_contrast_has_no_projection_head() -> None:
    assert network_of({**DESCRIPTION, "method": "supervised"}).projection is None
    assert Config().network.embedding_dim == 256
