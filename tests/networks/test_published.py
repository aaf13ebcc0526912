"""Published weights: where they are, how they are fetched from a hub, and what is said if they cannot be."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from safetensors.torch import save_file

from u2pl.errors import InputError
from u2pl.networks import published
from u2pl.networks.published import check, location

ENCODER = "tu-efficientnet_lite0"  # small
REPOSITORY = "timm/efficientnet_lite0.ra_in1k"


@pytest.mark.parametrize(
    ("encoder", "repository"),
    [
        ("mobilenet_v2", "smp-hub/mobilenet_v2.imagenet"),
        ("tu-tf_efficientnet_lite2", "timm/tf_efficientnet_lite2.in1k"),
        ("tu-resnet50s.gluon_in1k", "timm/resnet50s.gluon_in1k"),
        ("dinov2_small", "timm/vit_small_patch14_dinov2.lvd142m"),
        ("dinov3_base", "timm/vit_base_patch16_dinov3.lvd1689m"),
    ],
)
def test_where_weights_are(encoder: str, repository: str) -> None:
    found, revision = location(encoder)
    assert found == repository
    assert (revision is None) == repository.startswith("timm/")  # smp names a commit
    assert revision is None or re.fullmatch(r"[0-9a-f]{40}", revision)


@pytest.mark.parametrize(
    ("encoder", "says"), [("resnet19", "did you mean resnet18"), ("tu-test_vit4", "no published weights")]
)
def test_encoders_without_weights(encoder: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        location(encoder)


@pytest.mark.parametrize("told", [None, SimpleNamespace(hf_hub_id=None)])
def test_encoders_whose_weights_are_not_on_the_hub(monkeypatch: pytest.MonkeyPatch, told: object) -> None:
    monkeypatch.setattr(published, "imagenet_tag", lambda name: "imagenet")
    monkeypatch.setattr(published.timm, "get_pretrained_cfg", lambda name: told)
    with pytest.raises(InputError, match=r"the weights of tu-resnet50 are not on the hub; give network\.weights=PATH"):
        location("tu-resnet50")


@pytest.mark.parametrize(
    ("encoder", "files"),
    [("mobilenet_v2", ["model.safetensors", "config.json"]), (ENCODER, ["model.safetensors"])],
)
def test_colours_of_smp_are_fetched_with_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: str, files: list[str]
) -> None:
    asked: list[tuple[str, str, str | None]] = []

    def download(repository: str, name: str, *, revision: str | None) -> str:
        asked.append((repository, name, revision))
        (tmp_path / name).touch()
        return str(tmp_path / name)

    monkeypatch.setattr(published, "hf_hub_download", download)
    assert published.fetch(encoder) == tmp_path / "model.safetensors"
    repository, revision = location(encoder)
    assert asked == [(repository, name, revision) for name in files]


def test_the_reason_of_a_failed_fetch_is_what_is_in_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = {"one": "cannot fetch one (no connection (101)); check", "other": "no brackets"}

    def fetch(encoder: str) -> Path:
        raise InputError(messages[encoder])

    monkeypatch.setattr(published, "fetch", fetch)
    assert published.unfetchable.__wrapped__("one") == "no connection (101)"
    assert published.unfetchable.__wrapped__("other") == "no brackets"


def test_a_damaged_file_of_the_cache_is_removed(tmp_path: Path) -> None:
    good = tmp_path / hashlib.sha256(b"weights").hexdigest()
    good.write_bytes(b"weights")
    (tmp_path / "model.safetensors").symlink_to(good)
    check(tmp_path / "model.safetensors")
    good.write_bytes(b"weighty")
    with pytest.raises(ValueError, match=r"model\.safetensors was damaged and is removed"):
        check(tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []
    plain = tmp_path / "model.safetensors"  # a cache without links does not know the checksum
    plain.write_bytes(b"weights")
    check(plain)


class Hub(BaseHTTPRequestHandler):
    """One repository of a hub, over real HTTP."""

    content, checksum = b"", ""
    asked: list[str] = []  # noqa: RUF012

    def do_HEAD(self) -> None:
        self.asked.append(f"HEAD {self.path}")
        found = self.path.startswith(f"/{REPOSITORY}/resolve/") and self.path.endswith("/model.safetensors")
        self.send_response(200 if found else 404)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{self.checksum}"')
        self.send_header("Content-Length", str(len(self.content) if found else 0))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        if self.path.endswith("/model.safetensors"):
            self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    torch.manual_seed(5)
    model = timm.create_model(ENCODER.removeprefix("tu-"), pretrained=False)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    Hub.content = (tmp_path / "w.safetensors").read_bytes()
    Hub.checksum = hashlib.sha256(Hub.content).hexdigest()
    Hub.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


BUILD = """
import sys, torch
from u2pl.networks.published import unfetchable
print(unfetchable(sys.argv[1]))
if len(sys.argv) > 2:
    from u2pl.networks import smp_network
    network = smp_network(num_classes=2, architecture="FPN", encoder=sys.argv[1], pretrained=True)
    print(network.model.encoder.model.conv_stem.weight.double().sum().item(), network.vocabulary is not None)
"""


def built(hub: str, cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    proxies = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
    environment = {key: value for key, value in os.environ.items() if key not in proxies}
    environment |= {"HF_ENDPOINT": hub, "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-c", BUILD, ENCODER, *arguments],
        capture_output=True, text=True, env=environment, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_weights_are_fetched_once_and_used(hub: str, tmp_path: Path) -> None:
    first = built(hub, tmp_path / "cache", "build")
    torch.manual_seed(5)
    model = timm.create_model(ENCODER.removeprefix("tu-"), pretrained=False)
    reason, numbers = first.stdout.splitlines()
    assert reason == "None", first.stderr
    total, vocabulary = numbers.split()
    assert float(total) == pytest.approx(model.conv_stem.weight.double().sum().item())
    assert vocabulary == "True"  # the classifier, for the image prior
    assert any(line.startswith("GET") or line.startswith("HEAD") for line in Hub.asked)
    without = built("http://127.0.0.1:9", tmp_path / "cache", "build")  # no connection any more
    assert without.stdout == first.stdout, without.stderr


@pytest.mark.slow
def test_what_a_hub_does_not_have_or_garbles_is_one_reason(hub: str, tmp_path: Path) -> None:
    Hub.checksum = hashlib.sha256(b"another file").hexdigest()
    garbled = built(hub, tmp_path / "cache")
    assert "damaged" in garbled.stdout
    assert garbled.stdout.count("\n") == 1
    nobody = built("http://127.0.0.1:9", tmp_path / "empty")
    assert nobody.stdout.startswith("no connection to 127.0.0.1")
    assert nobody.stderr == ""


def test_the_light_default_loads_with_its_classifier_and_its_colours(real_data: Path) -> None:
    """EfficientNet-Lite2 from a file: all weights, the classifier for the image prior, and timm's mean and spread."""
    from u2pl.networks import smp_network

    path = real_data / "weights" / "tf_efficientnet_lite2_imagenet.pt"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    state = torch.load(path, weights_only=True)
    network = smp_network(
        num_classes=3, architecture="FPN", encoder="tu-tf_efficientnet_lite2", embedding_dim=None, weights=path
    )
    assert torch.equal(network.encoder.model.conv_stem.weight.half(), state["conv_stem.weight"].half())
    assert network.vocabulary is not None
    assert network.normalize.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert network.normalize.std.flatten().tolist() == [0.5, 0.5, 0.5]
    described = network.image_encoder()(torch.rand(2, 3, 64, 80))
    assert described.shape[0] == 2
    assert described.norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-4)
    with pytest.raises(InputError, match=r"does not fit the encoder"):
        smp_network(num_classes=3, architecture="FPN", encoder="mobilenet_v2", weights=path)


def test_names_of_dino_are_networks() -> None:
    assert timm.is_model("vit_small_patch16_dinov3")
    assert "dpt" in smp.MODEL_ARCHITECTURES_MAPPING
