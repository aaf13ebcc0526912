"""The predictor: what it returns, at which size, and how a weights file becomes one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from u2pl.build.trained import network_of
from u2pl.commands.remedies import out_of_memory_is_bad_input
from u2pl.config.schema import Config
from u2pl.engine.checkpoint import save_weights
from u2pl.engine.machine import best_precision
from u2pl.engine.many_images import segment_many
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
        # Another memory format rounds differently.
        torch.testing.assert_close(predictor.network(image).logits, network.eval()(image).logits)
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


class Blurred(nn.Module):
    """Classes by the colours around a pixel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 3, 5, padding=2)
        self.batches: list[int] = []
        self.dtypes: list[torch.dtype] = []

    def forward(self, image: Tensor) -> SegmentationOutput:
        self.batches.append(len(image))
        logits = self.layer(image)
        self.dtypes.append(logits.dtype)
        return SegmentationOutput(logits, logits)


SIZES = [(9, 14), (12, 8), (9, 14), (70, 60), (9, 14), (12, 8)]  # the fourth does not fit into the memory


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("inference.SMALL", "inference.whole_pixels", "many_images.whole_pixels"):
        monkeypatch.setattr(f"u2pl.engine.{name}", 20 * 20 if name.endswith("SMALL") else lambda *_: 30 * 30)
    monkeypatch.setattr("u2pl.predictor.SMALL", 20 * 20)
    monkeypatch.setattr("u2pl.predictor.whole_pixels", lambda *_: 30 * 30)


@pytest.mark.parametrize("way", ["threads", "batches", "one core"])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_masks_of_many_images(little_memory: None, way: str, scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is that of the image alone, in the order of the images, whatever their sizes."""
    network, before = Blurred(), torch.get_num_threads()
    predictor = Predictor(network, classes=("r", "g", "b"), scale=scale, evaluation={"window": 16})
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in SIZES * 4]
    alone = [predictor.mask(image) for image in images]
    network.batches.clear()
    if way == "batches":  # as on an accelerator
        cuda = {"device": torch.device("cuda")}
        monkeypatch.setattr("u2pl.predictor.segment_many", lambda *a, **options: segment_many(*a, **options | cuda))
    torch.set_num_threads(3 if way == "threads" else 1)
    try:
        masks = list(predictor.masks(iter(images)))
    finally:
        torch.set_num_threads(before)
    assert len(masks) == len(images)
    assert all(torch.equal(mask, expected) for mask, expected in zip(masks, alone, strict=True))
    assert {mask.dtype for mask in masks} == {torch.uint8}
    assert len(set(map(str, alone))) == len(alone)
    assert (max(network.batches) > 1) == (way == "batches")
    assert list(predictor.masks([])) == []
    masks[0][0, 0] = 7  # an ordinary tensor


def test_a_batch_without_memory_is_done_one_by_one_whoever_explains_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(Blurred):
        def forward(self, image: Tensor) -> SegmentationOutput:
            if len(image) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(image)

    cuda = {"device": torch.device("cuda")}
    monkeypatch.setattr("u2pl.predictor.segment_many", lambda *a, **given: segment_many(*a, **given | cuda))
    monkeypatch.setattr("u2pl.engine.many_images.whole_pixels", lambda *_: 30 * 30)
    predictor = Predictor(Short(), classes=("r", "g", "b"))
    images = [torch.randint(0, 256, (3, 9, 14), dtype=torch.uint8) for _ in range(5)]
    made = list(predictor.masks_of(images, lambda image: image, during=lambda _: out_of_memory_is_bad_input()))
    assert [torch.equal(mask, predictor.mask(image)) for image, mask in made] == 5 * [True]


def test_precision_is_chosen() -> None:
    image = torch.randint(0, 256, (3, 9, 14), dtype=torch.uint8)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        network = Blurred()
        predictor = Predictor(network, classes=("r", "g", "b"), precision=precision)
        assert torch.equal(predictor(image).mask, predictor.mask(image))
        assert torch.equal(next(predictor.masks([image])), predictor.mask(image))
        assert predictor(image).probability.dtype == torch.float32
        assert set(network.dtypes) == {dtype}
    assert Predictor(Blurred(), classes=("r",)).precision == "fp32"
    assert Predictor(Blurred(), classes=("r",), precision="auto").precision == best_precision(on_cpu=True)
    with pytest.raises(InputError, match="--precision fp8: should be fp32, bf16 or auto"):
        Predictor(Blurred(), classes=("r",), precision="fp8")


def test_large_images_have_the_precision_too(little_memory: None) -> None:
    network = Blurred()
    predictor = Predictor(network, classes=("r", "g", "b"), precision="bf16", evaluation={"window": 16})
    predictor.mask(torch.randint(0, 256, (3, 50, 40), dtype=torch.uint8))
    assert len(network.dtypes) > 4
    assert set(network.dtypes) == {torch.bfloat16}
