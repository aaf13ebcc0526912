"""A published classifier, against loops; which files have one; it is neither trained nor saved."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import mobilenet_v2, resnet18

from u2pl.networks import deeplabv3plus, smp_network, weights
from u2pl.networks.vocabulary import Vocabulary, vocabulary_of


def slow(features: Tensor, weight: Tensor, bias: Tensor) -> list[list[float]]:
    images = []
    for image in features.double():
        total = [0.0] * len(weight)
        channels, height, width = image.shape
        for y in range(height):
            for x in range(width):
                logits = [
                    sum(weight[n, k].item() * image[k, y, x].item() for k in range(channels)) + bias[n].item()
                    for n in range(len(weight))
                ]
                whole = sum(math.exp(one) for one in logits)
                for n, one in enumerate(logits):
                    total[n] += math.exp(one) / whole / (height * width)
        images.append(total)
    return images


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 3, 1, 1)])
def test_probabilities_are_the_mean_over_places(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(shape, generator=generator)
    weight, bias = torch.randn(6, 3, generator=generator), torch.randn(6, generator=generator)
    found = Vocabulary(weight, bias)(features)
    torch.testing.assert_close(found, torch.tensor(slow(features, weight, bias)), check_dtype=False)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(shape[0]))


LINEAR = {"fc.weight": torch.rand(10, 8), "fc.bias": torch.rand(10)}


@pytest.mark.parametrize(
    ("beside", "known"),
    [
        (LINEAR, True),
        ({"classifier.1.weight": torch.rand(10, 8).half(), "classifier.1.bias": torch.rand(10).half()}, True),
        ({}, False),
        ({"fc.weight": LINEAR["fc.weight"]}, False),
        ({**LINEAR, "norm.weight": torch.rand(8), "norm.bias": torch.rand(8)}, False),  # more than a linear layer
        ({"fc.weight": torch.rand(10, 9), "fc.bias": torch.rand(10)}, False),  # of other features
        ({"fc.weight": torch.rand(10, 8), "fc.bias": torch.rand(9)}, False),
        ({"fc.weight": torch.rand(10, 8, 1, 1), "fc.bias": torch.rand(10)}, False),
    ],
)
def test_a_classifier_is_known_by_its_shape(beside: dict[str, Tensor], known: bool) -> None:
    vocabulary = vocabulary_of(beside, channels=8)
    assert (vocabulary is not None) == known
    if vocabulary is not None:
        assert vocabulary.weight.dtype == torch.float32


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_b0", "mobilenetv2_050"])
def test_efficientnets_keep_the_layer_before_their_classifier(name: str, tmp_path: Path) -> None:
    """At each position it says what timm's whole model says there."""
    torch.manual_seed(3)
    whole = timm.create_model(name, pretrained=False).eval()
    for module in whole.modules():  # statistics that are not those of an untrained network
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
    torch.save(whole.state_dict(), tmp_path / "w.pt")
    network = smp_network(num_classes=3, architecture="FPN", encoder=f"tu-{name}", weights=tmp_path / "w.pt").eval()
    assert network.vocabulary is not None
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        features = network.encoder(image)[-1]
        places = whole.bn2(whole.conv_head(features))
        expected = whole.classifier(places.permute(0, 2, 3, 1)).softmax(dim=3).mean(dim=(1, 2))
        torch.testing.assert_close(network.vocabulary(features), expected)
        kept = network.image_encoder()
        assert {f"vocabulary.head_{part}" for part in ("weight", "bias", "activation")} <= set(kept.state_dict())
        again = Vocabulary.from_state(kept.state_dict(), "vocabulary.")
        assert again is not None
        torch.testing.assert_close(again(features), expected)
    counted = network.to("meta").image_encoder()  # a comparison counts parameters there
    assert counted.vocabulary is not None
    assert counted.vocabulary.head_weight is not None


def test_networks_keep_the_classifier_of_their_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    states = {"resnet18": resnet18(weights=None).state_dict(), "mobilenet_v2": mobilenet_v2(weights=None).state_dict()}
    for name, state in states.items():
        torch.save(state, tmp_path / f"{name}.pt")
    networks = {
        "fc": deeplabv3plus(num_classes=3, encoder="resnet18", channels=8, weights=tmp_path / "resnet18.pt"),
        "classifier.1": smp_network(num_classes=3, encoder="mobilenet_v2", weights=tmp_path / "mobilenet_v2.pt"),
    }
    for (layer, network), state in zip(networks.items(), states.values(), strict=True):
        assert network.vocabulary is not None
        assert torch.equal(network.vocabulary.weight, state[f"{layer}.weight"])
        assert not any("vocabulary" in name for name in network.state_dict())
        assert not list(network.vocabulary.parameters())
        kept = network.image_encoder().state_dict()
        assert torch.equal(kept["vocabulary.weight"], state[f"{layer}.weight"])
        assert torch.equal(kept["vocabulary.bias"], state[f"{layer}.bias"])
    assert smp_network(num_classes=3, encoder="mobilenet_v2").vocabulary is None
    assert deeplabv3plus(num_classes=3, encoder="resnet18", channels=8).vocabulary is None


@pytest.mark.parametrize("name", ["resnet18", "tu-resnet18", "tu-convnext_atto", "mobilenet_v2"])
def test_published_weights_tell_their_classifier(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of the hub, or timm's model, stands in; the layout of both is real."""
    encoder = smp.encoders.get_encoder(name, weights=None)
    if name.startswith("tu-"):
        model = timm.create_model(name.removeprefix("tu-"), pretrained=False)
        monkeypatch.setattr(timm, "create_model", lambda asked, pretrained: model)
    else:
        model = {"resnet18": resnet18, "mobilenet_v2": mobilenet_v2}[name](weights=None)
        save_file(model.state_dict(), tmp_path / "model.safetensors")
        monkeypatch.setattr(weights, "hf_hub_download", lambda repo, file, revision: str(tmp_path / file))
    beside = weights.fetch_classifier(encoder, name, True if name.startswith("tu-") else "imagenet")
    vocabulary = vocabulary_of(beside, encoder.out_channels[-1])
    if name == "tu-convnext_atto":
        assert vocabulary is None  # its classifier begins with a normalisation
    else:
        assert vocabulary is not None
        assert vocabulary.weight.shape == (1000, encoder.out_channels[-1])


def test_weights_that_were_trained_without_labels_have_no_classifier() -> None:
    name = "tu-vit_small_patch14_dinov2.lvd142m"
    assert weights.fetch_classifier(smp.encoders.get_encoder("resnet18", weights=None), name, True) == {}
