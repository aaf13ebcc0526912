"""The encoder against torchvision's ResNet, which is written independently of timm's blocks."""

import pytest
import torch
import torchvision
from torch import Tensor, nn

from u2pl.errors import InputError
from u2pl.networks.resnet import resnet_encoder


def torchvision_stages(model: nn.Module, x: Tensor) -> list[Tensor]:
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    stages = []
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        x = stage(x)
        stages.append(x)
    return stages


def dilations(stage: nn.Module) -> list[int]:
    return [m.dilation[0] for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]


@pytest.mark.parametrize("output_stride", [8, 16])
def test_resnet50_equals_torchvision_with_dilated_stages(output_stride: int) -> None:
    torch.manual_seed(0)
    reference = torchvision.models.resnet50(
        weights=None, replace_stride_with_dilation=[False, output_stride == 8, True]
    ).eval()
    encoder = resnet_encoder("resnet50", output_stride=output_stride, deep_stem=False, multi_grid=(1, 1, 1)).eval()
    state = {key: value for key, value in reference.state_dict().items() if not key.startswith("fc.")}
    encoder.load_state_dict(state)
    x = torch.rand(1, 3, 65, 50)
    with torch.no_grad():
        low, _, middle, high = torchvision_stages(reference, x)
        features = encoder(x)
    torch.testing.assert_close(features.low, low)
    torch.testing.assert_close(features.middle, middle)
    torch.testing.assert_close(features.high, high)
    assert high.shape[-2:] == (-(-65 // output_stride), -(-50 // output_stride))


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_plain_stem_has_torchvisions_tensors(name: str) -> None:
    with torch.device("meta"):
        reference = getattr(torchvision.models, name)(weights=None).state_dict()
        encoder = resnet_encoder(name, output_stride=16, deep_stem=False).state_dict()
    expected = {key: value.shape for key, value in reference.items() if not key.startswith("fc.")}
    assert {key: value.shape for key, value in encoder.items()} == expected


@pytest.mark.parametrize(("name", "deep"), [("resnet18", False), ("resnet34", False), ("resnet50", True)])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_features_have_the_output_stride(name: str, deep: bool, output_stride: int) -> None:
    encoder = resnet_encoder(name, output_stride=output_stride).eval()
    assert isinstance(encoder.conv1, nn.Sequential) is deep
    with torch.no_grad():
        features = encoder(torch.rand(1, 3, 65, 97))
    assert features.low.shape == (1, encoder.low_channels, 17, 25)
    size = (9, 13) if output_stride == 8 else (5, 7)
    assert features.middle.shape == (1, encoder.middle_channels, *size)
    assert features.high.shape == (1, encoder.high_channels, *size)


def test_deep_stem_has_the_released_names_and_pooling() -> None:
    encoder = resnet_encoder("resnet101", output_stride=8)
    shapes = {key: tuple(value.shape) for key, value in encoder.state_dict().items()}
    assert shapes["conv1.0.weight"] == (64, 3, 3, 3)
    assert shapes["conv1.1.weight"] == (64,)
    assert shapes["conv1.3.weight"] == (64, 64, 3, 3)
    assert shapes["conv1.4.weight"] == (64,)
    assert shapes["conv1.6.weight"] == (128, 64, 3, 3)
    assert shapes["bn1.weight"] == (128,)
    assert shapes["layer1.0.conv1.weight"] == (64, 128, 1, 1)
    assert encoder.conv1[0].stride == (2, 2)
    assert encoder.maxpool(torch.rand(1, 1, 32, 32)).shape[-2:] == (17, 17)  # the release keeps the last column


@pytest.mark.parametrize(
    ("name", "output_stride", "multi_grid", "third", "last"),
    [
        ("resnet101", 8, None, [1] + 22 * [2], [4, 8, 16]),  # as released: 2, 4, 4 times 2, 2, 4
        ("resnet50", 8, (1, 1, 1), [1, 2, 2, 2, 2, 2], [2, 4, 4]),
        ("resnet50", 16, None, 6 * [1], [1, 2, 2]),
        ("resnet50", 16, (1, 2, 4), 6 * [1], [1, 4, 8]),
        ("resnet18", 16, None, 4 * [1], [1, 2, 2, 2]),
        ("resnet18", 8, (1, 2), [1, 2, 2, 2], [2, 4, 8, 8]),
    ],
)
def test_dilations(
    name: str, output_stride: int, multi_grid: tuple[int, ...] | None, third: list[int], last: list[int]
) -> None:
    with torch.device("meta"):
        encoder = resnet_encoder(name, output_stride=output_stride, multi_grid=multi_grid)
    assert dilations(encoder.layer3) == third
    assert dilations(encoder.layer4) == last
    assert all(
        m.padding == m.dilation for m in encoder.layer4.modules() if isinstance(m, nn.Conv2d) and m.kernel_size[0] == 3
    )


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"name": "resnet52"}, ("network.encoder", "resnet50")),
        ({"name": "tu-tf_efficientnet_lite2"}, ("network.encoder", "resnet18", "resnet101", "network.name=smp")),
        ({"output_stride": 32}, ("network.output_stride", "8 or 16", "32")),
        ({"multi_grid": (1, 2)}, ("network.multi_grid", "3 blocks", "[1, 2]")),
        ({"multi_grid": (1, 2, 0)}, ("network.multi_grid", "positive")),
    ],
)
def test_a_wrong_choice_is_one_line_that_names_it(options: dict, parts: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        resnet_encoder(**{"name": "resnet50", "output_stride": 16, **options})
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in parts)
