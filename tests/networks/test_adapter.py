import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F

from u2pl.errors import InputError
from u2pl.networks import SmpNetwork, smp_network


def small(**options: object) -> SmpNetwork:
    torch.manual_seed(0)
    return smp_network(**{"num_classes": 5, "encoder": "mobilenet_v2", "embedding_dim": 12, **options})


def options_of(architecture: str) -> dict:
    if architecture == "dpt":
        return {"encoder": "tu-vit_tiny_patch16_224", "dynamic_img_size": True}
    return {"encoder": "resnet18"}


@pytest.mark.parametrize("architecture", list(smp.MODEL_ARCHITECTURES_MAPPING))
def test_every_architecture_at_odd_sizes_and_with_a_single_image(architecture: str) -> None:
    network = small(architecture=architecture, **options_of(architecture))
    stride = 8 if architecture in ("pspnet", "deeplabv3") else 4
    for size, training in (((33, 47), False), ((64, 80), True)):
        output = network.train(training)(torch.rand(1, 3, *size))
        coarse = tuple(-(-side // stride) for side in size)
        assert output.logits.shape == (1, 5, *size)
        assert output.coarse.shape == (1, 5, *coarse)
        assert output.embedding is not None
        assert output.embedding.shape == (1, 12, *coarse)
        assert output.auxiliary is None


@pytest.mark.parametrize("encoder", ["resnet18", "mit_b0", "efficientnet-b0", "tu-resnet18", "tu-convnext_atto"])
def test_encoders_of_both_libraries(encoder: str) -> None:
    output = small(encoder=encoder, architecture="FPN").eval()(torch.rand(1, 3, 40, 64))
    assert output.logits.shape == (1, 5, 40, 64)


def test_forward_is_the_wrapped_model_on_normalised_images() -> None:
    network = small(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)).eval()
    torch.manual_seed(0)
    plain = smp.create_model("unet", "mobilenet_v2", encoder_weights=None, classes=5).eval()
    plain.load_state_dict({k.replace("head.head.", "head."): v for k, v in network.model.state_dict().items()})
    image = torch.rand(2, 3, 64, 96)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    with torch.no_grad():
        output = network(image)
        logits = plain((image - mean) / std)
        features = plain.decoder(plain.encoder((image - mean) / std))
        embedding = network.projection(F.avg_pool2d(features, 4))
    torch.testing.assert_close(output.logits, logits)
    torch.testing.assert_close(output.coarse, logits.unflatten(3, (24, 4)).unflatten(2, (16, 4)).mean((3, 5)))
    torch.testing.assert_close(output.embedding, embedding)


def test_padding_repeats_the_border_and_is_cut_off() -> None:
    network = small().eval()
    image = torch.rand(1, 3, 50, 60)
    padded = torch.cat((image, image[:, :, -1:].expand(-1, -1, 14, -1)), dim=2)
    padded = torch.cat((padded, padded[..., -1:].expand(-1, -1, -1, 4)), dim=3)
    with torch.no_grad():
        output, whole = network(image), network(padded)
    torch.testing.assert_close(output.logits, whole.logits[..., :50, :60])
    torch.testing.assert_close(output.coarse, whole.coarse[..., :13, :15])
    torch.testing.assert_close(output.embedding, whole.embedding[..., :13, :15])


def test_no_projection_head() -> None:
    network = small(embedding_dim=None).eval()
    assert network.projection is None
    assert network(torch.rand(1, 3, 32, 32)).embedding is None


def test_parameters_are_of_the_encoder_or_of_the_heads() -> None:
    network = small()
    encoder = {id(p) for p in network.encoder_parameters()}
    heads = [id(p) for p in network.head_parameters()]
    assert encoder == {id(p) for p in network.model.encoder.parameters()}
    assert not encoder & set(heads)
    assert len(heads) == len(set(heads))
    assert encoder | set(heads) == {id(p) for p in network.parameters()}


def test_output_stride_of_the_encoder() -> None:
    for stride in (8, 16):
        network = small(architecture="DeepLabV3Plus", output_stride=stride)
        assert network.encoder(torch.rand(2, 3, 64, 64))[-1].shape[-1] == 64 // stride


def test_options_reach_the_architecture() -> None:
    network = small(architecture="FPN", decoder_segmentation_channels=64)
    assert network.model.segmentation_head[0].in_channels == 64


@pytest.mark.parametrize("name", ["FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "PAN", "UPerNet", "Segformer"])
def test_a_decoder_is_as_wide_as_asked(name: str) -> None:
    network, default = small(architecture=name, channels=64), small(architecture=name)
    assert network.model.segmentation_head[0].in_channels == 64
    assert default.model.segmentation_head[0].in_channels != 64


def test_pretrained_takes_the_colours_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    asked = []
    create = smp.create_model

    def fetch(*args: object, encoder_weights: object, **options: object) -> torch.nn.Module:
        asked.append(encoder_weights)
        return create(*args, encoder_weights=None, **options)

    monkeypatch.setattr("u2pl.networks.weights._why_unreachable", lambda: None)
    monkeypatch.setattr(smp, "create_model", fetch)
    monkeypatch.setattr(smp.encoders, "get_preprocessing_params", lambda encoder, tag: settings)
    classifier = {"classifier.1.weight": torch.rand(4, 1280), "classifier.1.bias": torch.rand(4)}
    monkeypatch.setattr("u2pl.networks.adapter.fetch_classifier", lambda encoder, name, tag: classifier)
    network = small(pretrained=True)
    assert asked[-1] == "imagenet"
    assert network.vocabulary is not None
    assert torch.equal(network.vocabulary.weight, classifier["classifier.1.weight"])
    assert network.normalize.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert network.normalize.std.flatten().tolist() == [0.25, 0.25, 0.25]
    assert small(pretrained=True, mean=(0.0, 0.0, 0.0)).normalize.mean.flatten().tolist() == [0.0, 0.0, 0.0]
    assert small(pretrained=False).normalize.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"architecture": "Unett"}, ("network.architecture", "Unett", "Unet ")),
        ({"architecture": "zzz"}, ("network.architecture", "Segformer")),
        ({"encoder": "mobilenet_v3"}, ("network.encoder", "mobilenet_v2")),
        ({"encoder": "tu-resnet19"}, ("network.encoder", "tu-resnet18")),
        ({"encoder": "tu-resnet18.nothing"}, ("network.encoder", "tu-resnet18.")),
        ({"architecture": "UnetPlusPlus", "encoder": "mit_b0"}, ("network.architecture", "UnetPlusPlus", "mit_b0")),
        ({"architecture": "DPT"}, ("network.architecture", "DPT", "tu-")),
        ({"output_stride": 8}, ("network.output_stride", "Unet")),
        ({"channels": 64}, ("network.channels", "Unet")),
        ({"architecture": "FPN", "channels": 48}, ("network.channels", "48", "multiple of 32")),
        ({"decoder_chanels": (1, 2)}, ("network.decoder_chanels", "decoder_channels")),
        ({"encoder": "tu-resnet18", "nonsense": 1}, ("network.architecture", "nonsense")),
        ({"encoder": "resnext101_32x48d", "pretrained": True}, ("network.pretrained", "resnext101_32x48d")),
    ],
)
def test_a_wrong_choice_is_one_line_that_names_it(options: dict, parts: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        small(**options)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("architecture", ["FPN", "PAN", "Unet", "DeepLabV3Plus"])
def test_an_image_smaller_than_the_encoder_s_stride(architecture: str) -> None:
    network = small(architecture=architecture).eval()
    assert network(torch.rand(1, 3, 20, 9)).logits.shape[-2:] == (20, 9)
