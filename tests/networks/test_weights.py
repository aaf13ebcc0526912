import socket
import time
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from huggingface_hub import constants
from safetensors.torch import save_file

from released_network import Encoder, ReleasedNetwork, save_checkpoint
from u2pl.errors import InputError
from u2pl.networks import deeplabv3plus, smp_network
from u2pl.networks.resnet import ResNetEncoder, resnet_encoder
from u2pl.networks.weights import fetch_resnet_weights, fetching, load_encoder_weights


def one_line(error: pytest.ExceptionInfo[InputError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def encoder() -> ResNetEncoder:
    return resnet_encoder("resnet18", output_stride=16)


@pytest.fixture(scope="module")
def resnet18() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {key: value.clone() for key, value in torchvision.models.resnet18(weights=None).state_dict().items()}


def assert_loaded(encoder: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    for key, value in encoder.state_dict().items():
        torch.testing.assert_close(value, state[key], msg=key)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_torchvision_state_dict_loads(encoder: ResNetEncoder, resnet18: dict, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"resnet18{suffix}"
    save_file(resnet18, path) if suffix == ".safetensors" else torch.save(resnet18, path)
    assert set(load_encoder_weights(encoder, path)) == {"fc.weight", "fc.bias"}
    assert_loaded(encoder, resnet18)


def test_weights_of_a_gray_encoder_see_gray_images_as_before(
    encoder: ResNetEncoder, resnet18: dict, tmp_path: Path
) -> None:
    gray = {**resnet18, "conv1.weight": resnet18["conv1.weight"].sum(dim=1, keepdim=True)}
    torch.save(gray, tmp_path / "gray.pt")
    load_encoder_weights(encoder, tmp_path / "gray.pt")
    image = torch.rand(1, 1, 16, 16)
    expected = torch.nn.functional.conv2d(image, gray["conv1.weight"], stride=2, padding=3)
    assert torch.allclose(encoder.conv1(image.expand(-1, 3, -1, -1)), expected, atol=1e-5)


@pytest.mark.parametrize("wrapper", ["module.", "encoder.", "module.encoder.", "module.backbone."])
def test_wrappers_are_peeled_off(encoder: ResNetEncoder, resnet18: dict, wrapper: str, tmp_path: Path) -> None:
    wrapped = {wrapper + key: value for key, value in resnet18.items()}
    wrapped[wrapper.replace("encoder", "decoder").replace("backbone", "head") + "extra.weight"] = torch.zeros(3)
    torch.save({"epoch": 3, "state_dict": wrapped}, tmp_path / "w.pth")
    load_encoder_weights(encoder, tmp_path / "w.pth")
    assert_loaded(encoder, resnet18)


def test_half_precision_and_old_checkpoints_load(encoder: ResNetEncoder, resnet18: dict, tmp_path: Path) -> None:
    half = {key: value.half() for key, value in resnet18.items() if not key.endswith("num_batches_tracked")}
    torch.save(half, tmp_path / "w.pth")
    load_encoder_weights(encoder, tmp_path / "w.pth")
    assert encoder.conv1.weight.dtype == torch.float32
    torch.testing.assert_close(encoder.conv1.weight.half(), half["conv1.weight"])


def test_builders_load_a_file(resnet18: dict, tmp_path: Path) -> None:
    torch.save(resnet18, tmp_path / "w.pth")
    network = deeplabv3plus(num_classes=3, encoder="resnet18", channels=8, weights=tmp_path / "w.pth")
    assert_loaded(network.encoder, resnet18)
    assert_loaded(smp_network(num_classes=3, encoder="resnet18", weights=str(tmp_path / "w.pth")).encoder, resnet18)


@pytest.mark.parametrize(("depth", "classifier"), [(50, False), (50, True), (101, True)])
def test_imagenet_weights_of_the_deep_stem_load(depth: int, classifier: bool, tmp_path: Path) -> None:
    state = Encoder(depth, 8).state_dict()
    assert "conv1.6.weight" in state
    fc = {"fc.weight": torch.rand(1000, 2048), "fc.bias": torch.rand(1000)} if classifier else {}
    torch.save({**state, **fc}, tmp_path / f"resnet{depth}.pth")
    network = deeplabv3plus(
        num_classes=3, encoder=f"resnet{depth}", channels=8, weights=tmp_path / f"resnet{depth}.pth"
    )
    assert_loaded(network.encoder, state)
    assert set(network.encoder.state_dict()) == set(state)


def test_a_released_checkpoint_gives_its_encoder(tmp_path: Path) -> None:
    student = ReleasedNetwork(depth=18, classes=3, width=8, embedding=None)
    path = save_checkpoint(tmp_path / "ckpt.pth", student, None)
    network = deeplabv3plus(num_classes=5, encoder="resnet18", deep_stem=True, channels=8, weights=path)
    assert_loaded(network.encoder, student.encoder.state_dict())
    with pytest.raises(InputError, match=r"network\.deep_stem"):
        deeplabv3plus(num_classes=5, encoder="resnet18", channels=8, weights=path)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "mobilenetv3_small_050"])
def test_timm_state_dict_loads_into_a_timm_encoder(name: str, tmp_path: Path) -> None:
    state = timm.create_model(name).state_dict()
    torch.save(state, tmp_path / "w.pth")
    encoder = smp_network(num_classes=3, encoder=f"tu-{name}", weights=tmp_path / "w.pth").encoder
    by_name = {key.replace(".", "_"): value for key, value in state.items()}
    for key, value in encoder.state_dict().items():
        torch.testing.assert_close(value, by_name[key.removeprefix("model.").replace(".", "_")], msg=key)


def test_mobilenet_v2_weights_load_into_smp(real_data: Path) -> None:
    path = real_data / "weights" / "mobilenet_v2_imagenet.pt"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    state = torch.load(path, weights_only=True)
    encoder = smp_network(num_classes=3, encoder="mobilenet_v2", weights=path).encoder
    assert_loaded(encoder, {key: value.to(encoder.state_dict().get(key, value).dtype) for key, value in state.items()})


def test_weights_of_another_network_are_refused_and_change_nothing(
    encoder: ResNetEncoder, resnet18: dict, tmp_path: Path
) -> None:
    path = tmp_path / "w.pth"
    before = {key: value.clone() for key, value in encoder.state_dict().items()}

    partial = {key: value for key, value in resnet18.items() if not key.startswith("layer4.1.")}
    torch.save(partial, path)
    with pytest.raises(InputError) as error:
        load_encoder_weights(encoder, path)
    message = one_line(error)
    assert all(
        part in message for part in ("network.weights", str(path), "10 tensors missing", "layer4.1.conv1.weight")
    )
    assert "network.encoder" in message  # the remedy

    torch.save({**resnet18, "layer2.0.conv1.weight": torch.zeros(128, 64, 1, 1)}, path)
    with pytest.raises(InputError) as error:
        load_encoder_weights(encoder, path)
    assert "layer2.0.conv1.weight is (128, 64, 1, 1), not (128, 64, 3, 3)" in one_line(error)

    deeper = torchvision.models.resnet34(weights=None).state_dict()
    torch.save(deeper, path)
    with pytest.raises(InputError) as error:
        load_encoder_weights(encoder, path)
    assert "unexpected (layer1.2.conv1.weight" in one_line(error)

    torch.save({"a.weight": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=r"network\.weights.*100 tensors missing"):
        load_encoder_weights(encoder, path)
    assert_loaded(encoder, before)


class Code:
    """An object whose unpickling would run code."""

    ran = False

    def __reduce__(self) -> tuple:
        return (setattr, (Code, "ran", True))


def test_unreadable_files(encoder: ResNetEncoder, resnet18: dict, tmp_path: Path) -> None:
    torch.save(resnet18, tmp_path / "whole.pth")
    (tmp_path / "truncated.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:20_000])
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.pth").write_text("<html>404</html>\n")
    (tmp_path / "text.safetensors").write_text("<html>404</html>\n")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    torch.save({"weight": Code()}, tmp_path / "code.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "no_tensors.pth")
    (tmp_path / "folder.pth").mkdir()
    names = [path.name for path in tmp_path.iterdir() if path.name != "whole.pth"]
    assert len(names) == 9
    for name in [*names, "missing.pth"]:
        with pytest.raises(InputError) as error:
            load_encoder_weights(encoder, tmp_path / name)
        message = one_line(error)
        assert message.startswith("network.weights")
        assert name in message
    assert not Code.ran


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A hub whose address is a local port that nobody listens on, and an empty cache."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "tu-resnet18", "resnet50"])
def test_without_a_network_pretrained_fails_fast_in_one_line(name: str) -> None:
    build = deeplabv3plus if name.startswith("resnet") else smp_network
    start = time.monotonic()
    with pytest.raises(InputError) as error:
        build(num_classes=3, encoder=name, pretrained=True)
    assert time.monotonic() - start < 8
    message = one_line(error)
    for part in ("network.pretrained", f"of {name} ", "127.0.0.1", "network.weights=PATH", "network.pretrained=false"):
        assert part in message
    assert not constants.HF_HUB_OFFLINE  # the switch is back where it was


@pytest.mark.usefixtures("no_hub")
def test_weights_win_over_pretrained(resnet18: dict, tmp_path: Path) -> None:
    torch.save(resnet18, tmp_path / "w.pth")
    network = deeplabv3plus(num_classes=3, encoder="resnet18", channels=8, pretrained=True, weights=tmp_path / "w.pth")
    assert_loaded(network.encoder, resnet18)
    smp_network(num_classes=3, encoder="resnet18", pretrained=True, weights=tmp_path / "w.pth")


def test_an_error_of_the_download_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(InputError) as error, fetching("resnet18"):
            raise ConnectionError("the hub is on fire. Then a long explanation\nover many lines")
    assert "(the hub is on fire)" in one_line(error)


@pytest.mark.parametrize(("deep", "published"), [(False, "resnet50.tv_in1k"), (True, "resnet50s.gluon_in1k")])
def test_the_stem_decides_which_weights_are_fetched(
    deep: bool, published: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(2)
    model = timm.create_model(published, pretrained=False)  # the real architecture; its weights need a network
    asked = []
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: asked.append((name, pretrained)) or model)
    monkeypatch.setattr("u2pl.networks.weights._why_unreachable", lambda: None)
    encoder = resnet_encoder("resnet50", output_stride=16, deep_stem=deep)
    fetch_resnet_weights(encoder, "resnet50")
    assert asked == [(published, True)]
    assert_loaded(encoder, model.state_dict())


def test_no_published_weights_for_a_small_deep_stem() -> None:
    with pytest.raises(InputError) as error:
        deeplabv3plus(num_classes=3, encoder="resnet18", deep_stem=True, pretrained=True)
    assert "network.deep_stem=false" in one_line(error)
