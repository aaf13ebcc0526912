import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from u2pl.errors import InputError
from u2pl.networks import DeepLabV3Plus, deeplabv3plus
from u2pl.networks.deeplabv3plus import ASPP


def small(**options: object) -> DeepLabV3Plus:
    torch.manual_seed(0)
    defaults = {"num_classes": 5, "encoder": "resnet18", "channels": 16, "low_level_channels": 8, "embedding_dim": 12}
    return deeplabv3plus(**{**defaults, **options})


@pytest.mark.parametrize("encoder", ["resnet18", "resnet34", "resnet50"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_shapes(encoder: str, output_stride: int) -> None:
    network = small(encoder=encoder, output_stride=output_stride).eval()
    with torch.no_grad():
        output = network(torch.rand(2, 3, 65, 33))
    assert output.logits.shape == (2, 5, 65, 33)
    assert output.coarse.shape == (2, 5, 17, 9)
    assert output.embedding is not None
    assert output.embedding.shape == (2, 12, 17, 9)
    assert output.auxiliary is None


def test_the_papers_network() -> None:
    network = deeplabv3plus(num_classes=21, output_stride=8, auxiliary=True).eval()
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert shapes["encoder.conv1.6.weight"] == (128, 64, 3, 3)
    assert shapes["decoder.low_level.0.weight"] == (256, 256, 1, 1)
    assert [shapes[f"decoder.aspp.atrous.{i}.0.weight"] for i in range(3)] == 3 * [(256, 2048, 3, 3)]
    assert [branch[0].dilation[0] for branch in network.decoder.aspp.atrous] == [12, 24, 36]
    assert shapes["decoder.head.0.weight"] == (256, 1280, 3, 3)
    assert [shapes[f"classifier.{i}.weight"] for i in (0, 4, 8)] == [
        (256, 512, 3, 3),
        (256, 256, 3, 3),
        (21, 256, 1, 1),
    ]
    assert [shapes[f"projection.{i}.weight"] for i in (0, 4, 8)] == [
        (256, 512, 3, 3),
        (256, 256, 3, 3),
        (256, 256, 1, 1),
    ]
    assert [shapes[f"auxiliary.{i}.weight"] for i in (0, 4)] == [(256, 1024, 3, 3), (21, 256, 1, 1)]
    with torch.no_grad():
        output = network(torch.rand(1, 3, 65, 65))
    assert output.logits.shape == (1, 21, 65, 65)
    assert output.embedding is not None
    assert output.embedding.shape == (1, 256, 17, 17)


def test_aspp_dilations_follow_the_output_stride() -> None:
    assert [branch[0].dilation[0] for branch in small().decoder.aspp.atrous] == [6, 12, 18]
    assert [branch[0].dilation[0] for branch in small(aspp_dilations=(1, 2)).decoder.aspp.atrous] == [1, 2]
    with pytest.raises(InputError, match=r"network\.aspp_dilations"):
        small(aspp_dilations=(0, 1))


def test_aspp_against_its_definition() -> None:
    torch.manual_seed(0)
    aspp = ASPP(4, channels=3, dilations=(2, 3)).eval()
    x = torch.randn(2, 4, 7, 6)

    def branch(convolution: nn.Conv2d, x: Tensor, dilation: int = 1) -> Tensor:
        weight = convolution.weight
        y = F.conv2d(x, weight, padding=dilation * (weight.shape[-1] // 2), dilation=dilation)
        return (y / (1 + 1e-5) ** 0.5).relu()  # batch normalisation with its first statistics

    mean = x.mean((2, 3), keepdim=True).repeat(1, 1, 7, 6)
    expected = torch.cat(
        (
            branch(aspp.image_pooling[1], mean),
            branch(aspp.pointwise[0], x),
            branch(aspp.atrous[0][0], x, 2),
            branch(aspp.atrous[1][0], x, 3),
        ),
        dim=1,
    )
    torch.testing.assert_close(aspp(x), expected)


def test_forward_against_its_parts() -> None:
    network = small().eval()
    image = torch.rand(1, 3, 40, 56)
    with torch.no_grad():
        output = network(image)
        features = network.encoder((image - network.normalize.mean) / network.normalize.std)
        context = network.decoder.head(network.decoder.aspp(features.high))
        context = F.interpolate(context, size=(10, 14), mode="bilinear", align_corners=True)
        pixels = torch.cat((network.decoder.low_level(features.low), context), dim=1)
        coarse = network.classifier(pixels)
        torch.testing.assert_close(output.coarse, coarse)
        torch.testing.assert_close(output.embedding, network.projection(pixels))
        logits = F.interpolate(coarse, size=(40, 56), mode="bilinear", align_corners=True)
        torch.testing.assert_close(output.logits, logits)


def test_auxiliary_head_speaks_in_training_only() -> None:
    network = small(auxiliary=True)
    image = torch.rand(2, 3, 33, 47)
    auxiliary = network.train()(image).auxiliary
    assert auxiliary is not None
    assert auxiliary.shape == (2, 5, 33, 47)
    assert network.eval()(image).auxiliary is None
    assert small(auxiliary=False).train()(image).auxiliary is None


def test_a_single_image_trains() -> None:
    network = small(auxiliary=True).train()
    output = network(torch.rand(1, 3, 48, 48))
    (output.logits.sum() + output.embedding.sum() + output.auxiliary.sum()).backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert not without
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize("size", [(33, 47), (17, 16), (1, 1), (64, 31)])
def test_any_size(size: tuple[int, int]) -> None:
    network = small().eval()
    with torch.no_grad():
        output = network(torch.rand(1, 3, *size))
    assert output.logits.shape[-2:] == size
    assert output.coarse.shape[-2:] == output.embedding.shape[-2:] == tuple(-(-side // 4) for side in size)


def test_no_projection_head() -> None:
    network = small(embedding_dim=None).eval()
    assert network(torch.rand(1, 3, 32, 32)).embedding is None
    assert not any("projection" in name for name, _ in network.named_parameters())


def test_mean_and_std_reach_the_encoder() -> None:
    network = small(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)).eval()
    standard = small().eval()  # the same seed: the same weights
    image = torch.rand(1, 3, 32, 32)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        torch.testing.assert_close(network((image - mean) / std).logits, standard(image).logits)
        assert not torch.allclose(network(image).logits, standard(image).logits, atol=1e-3)


def test_parameters_are_of_the_encoder_or_of_the_heads() -> None:
    network = small(auxiliary=True)
    encoder = {id(p) for p in network.encoder_parameters()}
    heads = {id(p) for p in network.head_parameters()}
    assert not encoder & heads
    assert encoder | heads == {id(p) for p in network.parameters()}
    assert encoder == {id(p) for name, p in network.named_parameters() if name.startswith("encoder.")}


def test_dropout_is_as_asked() -> None:
    rates = {m.p for m in small(dropout=0.3, auxiliary=True).modules() if isinstance(m, nn.Dropout2d)}
    assert rates == {0.3}


def test_bfloat16_channels_last_agrees_with_float32() -> None:
    network = small().eval()
    image = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        expected = network(image)
        network = network.to(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = network(image.contiguous(memory_format=torch.channels_last))
    assert output.logits.shape == expected.logits.shape
    torch.testing.assert_close(output.logits.float(), expected.logits, atol=0.05, rtol=0.05)
