"""Every kind of network in every format, and files that must not be written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from u2pl.build.exported import Exported
from u2pl.commands.export import refuse_foreign
from u2pl.commands.export_check import Agreement, agreement, refuse_disagreement
from u2pl.commands.export_formats import check_format, load, save, trace
from u2pl.commands.export_sidecar import left_out_of
from u2pl.errors import InputError
from u2pl.networks import deeplabv3plus, smp_network
from u2pl.predictor import Predictor
from u2pl.structures import SegmentationOutput

CLASSES = tuple("abcde")


def smp(architecture: str, encoder: str) -> Callable[[], nn.Module]:
    return lambda: smp_network(num_classes=5, architecture=architecture, encoder=encoder, embedding_dim=None)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "deeplab": lambda: deeplabv3plus(num_classes=5, encoder="resnet18", channels=8, low_level_channels=4),
    "fpn": smp("FPN", "mobilenet_v2"),
    "lite": smp("FPN", "tu-tf_efficientnet_lite2"),
    "segformer": smp("Segformer", "mit_b0"),
    "dpt": smp("DPT", "dinov2_small"),
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def settled(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = NETWORKS[name]().train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(4, 3, 56, 84))
    return network.eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_holds_every_network(name: str, tmp_path: Path) -> None:
    network = settled(name)
    traced = trace(Exported(network), "onnx", name)
    save(traced, "onnx", tmp_path / "model.onnx", name)
    found = agreement(load(tmp_path / "model.onnx", "onnx"), Predictor(network, classes=CLASSES), [])
    assert found.images == 5
    assert found.equal >= 0.999
    assert found.difference < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["segformer", "dpt"])
def test_pt2_holds_one_image_of_a_transformer(name: str, tmp_path: Path) -> None:
    network = settled(name)
    traced = trace(Exported(network), "pt2", name)
    assert not traced.any_batch
    save(traced, "pt2", tmp_path / "model.pt2", name)
    run, predictor = load(tmp_path / "model.pt2", "pt2"), Predictor(network, classes=CLASSES)
    found = agreement(run, predictor, [], any_batch=False)
    assert (found.images, found.equal) == (3, 1.0)


class Branching(nn.Module):
    """Does one of two things, depending on the image: no graph can hold it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 5, 1)

    def forward(self, image: Tensor) -> SegmentationOutput:
        scores = self.layer(image)
        return SegmentationOutput(scores if image.mean() > 0.5 else -scores, scores)


@pytest.mark.parametrize("name", ["onnx", "pt2"])
def test_what_a_format_cannot_hold_is_named(name: str) -> None:
    with pytest.raises(InputError, match=f"--format {name}: cannot hold a branching network") as error:
        trace(Exported(Branching()), name, "a branching network")
    assert "\n" not in str(error.value)


def test_a_difference_is_found_and_refused() -> None:
    predictor = Predictor(settled("deeplab"), classes=CLASSES)
    images = [torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)]

    def right(image: Tensor) -> Tensor:
        return predictor.network(image).logits

    same = agreement(right, predictor, images)
    assert (same.equal, same.images) == (1.0, 6)
    assert same.difference < 1e-5
    refuse_disagreement(same, "onnx", "this network")

    def only_first_size(image: Tensor) -> Tensor:
        return right(image) if image.shape[-1] == 50 else right(image).roll(1, dims=1)

    def cropped(image: Tensor) -> Tensor:
        return right(image)[..., 1:]

    def broken(image: Tensor) -> Tensor:
        return right(image) * torch.nan

    for wrong in (only_first_size, cropped, broken):
        with pytest.raises(InputError, match="differs from the network"):
            refuse_disagreement(agreement(wrong, predictor, images), "onnx", "this network")
    with pytest.raises(InputError, match=r"99\.80 % of pixels"):
        refuse_disagreement(Agreement(1e-6, 0.998, 1), "onnx", "this network")
    with pytest.raises(InputError, match=r"differs by 0\.5"):
        refuse_disagreement(Agreement(0.5, 1.0, 1), "onnx", "this network")


def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("u2pl.commands.export_formats.find_spec", lambda name: None if name == "onnxruntime" else 1)
    with pytest.raises(InputError, match=r"onnxruntime is not installed; run `pip install 'u2pl\[export\]'`"):
        check_format("onnx")
    check_format("pt2")


def test_only_own_files_are_replaced(tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    refuse_foreign(out, "onnx")
    out.write_text("mine")
    with pytest.raises(InputError, match="did not write it"):
        refuse_foreign(out, "onnx")
    (tmp_path / "model.onnx.json").write_text('{"written_by": "another"}')
    with pytest.raises(InputError, match="did not write it"):
        refuse_foreign(out, "onnx")
    (tmp_path / "model.onnx.json").write_text('{"written_by": "u2pl export"}')
    refuse_foreign(out, "onnx")
    with pytest.raises(InputError, match=r"ends in \.pt2"):
        refuse_foreign(out, "pt2")


def test_a_read_only_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)  # root may write everywhere
    with pytest.raises(InputError, match="is read-only; choose another folder"):
        refuse_foreign(tmp_path / "new" / "model.onnx", "onnx")


def test_what_is_left_out() -> None:
    assert left_out_of({"evaluation": {}}, False) == ()
    evaluation = {"flip": True, "scales": [1.0, 2.0], "protocol": "sliding", "image_prior": 1.0}
    lines = left_out_of({"evaluation": evaluation, "images": {"bands": [2, 1, 0]}}, True)
    words = ("image prior", "mirror", "scales", "windows", "data.bands")
    assert all(word in line for word, line in zip(words, lines, strict=True))
    assert left_out_of({"evaluation": {"image_prior": 0.0}}, True) == ()
