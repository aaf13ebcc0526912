"""Transformers as encoders: sizes, gradients, position embeddings, published files of weights, order of layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torch.nn.functional as F
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import Tensor, nn

from u2pl.errors import InputError
from u2pl.networks import SmpNetwork, smp_network
from u2pl.networks.transformers import SHORT_NAMES, layers_of, undecayed

#: DINOv2's ViT-S with 24 channels in place of 384.
VIT = {"embed_dim": 24, "num_heads": 2}
SMALL_DECODER = {"decoder_intermediate_channels": (8, 8, 8, 8), "decoder_fusion_channels": 12}


def dpt(encoder: str = "dinov2_small", **options: Any) -> SmpNetwork:
    torch.manual_seed(0)
    keys = {"num_classes": 5, "architecture": "DPT", "encoder": encoder, "embedding_dim": 6}
    return smp_network(**{**keys, **VIT, **SMALL_DECODER, **options})


def segformer(encoder: str = "mit_b0", **options: Any) -> SmpNetwork:
    torch.manual_seed(0)
    return smp_network(num_classes=5, architecture="Segformer", encoder=encoder, embedding_dim=6, **options)


def vit(name: str = "vit_small_patch14_dinov2", **options: Any) -> nn.Module:
    torch.manual_seed(1)
    return timm.create_model(name, **{**VIT, **options})


def resampled(grid: Tensor, side: int) -> Tensor:
    """Position embeddings (1, N * N, C) -> (1, side * side, C)."""
    n = round(grid.shape[1] ** 0.5)
    image = grid.reshape(1, n, n, -1).permute(0, 3, 1, 2)
    return F.interpolate(image, (side, side), mode="bicubic", antialias=True).flatten(2).transpose(1, 2)


def one_line(error: pytest.ExceptionInfo[InputError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "build",
    [
        dpt,
        lambda: dpt("tu-vit_small_patch14_reg4_dinov2"),
        lambda: dpt("tu-vit_tiny_patch16_224"),
        lambda: dpt("tu-vit_tiny_patch16_224", patch_size=8),
        lambda: dpt("tu-vit_tiny_patch16_224", class_token=False, global_pool="avg"),
        lambda: dpt("tu-vit_tiny_patch16_dinov3_qkvb"),
        segformer,
    ],
    ids=["dinov2", "registers", "patch16", "patch8", "no class token", "dinov3", "segformer"],
)
def test_any_size_one_image_and_a_gradient_for_every_parameter(build: Any, recwarn: pytest.WarningsRecorder) -> None:
    network = build()
    assert not any("prefix tokens" in str(each.message) for each in recwarn)  # an option that users cannot set
    for size, training in (((33, 47), False), ((70, 100), False), ((28, 28), True), ((56, 84), True)):
        output = network.train(training)(torch.rand(1, 3, *size))
        coarse = tuple(-(-side // 4) for side in size)
        assert output.logits.shape == (1, 5, *size)
        assert output.coarse.shape == (1, 5, *coarse)
        assert output.embedding.shape == (1, 6, *coarse)
    (output.logits.square().mean() + output.embedding.square().mean()).backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert not without  # distributed training waits for the gradient of every parameter
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_maps_of_the_decoder_fit_together_for_patches_of_14() -> None:
    network = dpt().eval()
    seen: list[tuple[int, ...]] = []
    for block in network.model.decoder.reassemble_blocks:
        block.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape[-2:])))
    network.model.decoder.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape[-2:])))
    network.model.segmentation_head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[-2:]))
    with torch.no_grad():
        network(torch.rand(1, 3, 84, 112))  # 6 x 8 patches
    assert seen == [(24, 32), (12, 16), (6, 8), (3, 4), (48, 64), (84, 112)]


def test_a_map_stays_where_it_is_in_the_image() -> None:
    """What the last feature says of one patch comes out around that patch, in scores and embeddings."""
    network = dpt().eval()
    features, tokens = network.encoder(torch.rand(1, 3, 280, 280))
    change = torch.zeros(1, 1, 20, 20)
    change[..., 4, 14] = 1e4
    with torch.no_grad():
        before, after = (
            network.model.decoder([*features[:3], each], tokens) for each in (features[3], features[3] + change)
        )
        difference = (
            (network.model.segmentation_head(after) - network.model.segmentation_head(before)).abs().sum((0, 1))
        )
    rows, columns = torch.meshgrid(torch.arange(280.0), torch.arange(280.0), indexing="ij")
    centre = [((difference * at).sum() / difference.sum()).item() for at in (rows, columns)]
    assert centre == pytest.approx([4.5 * 14, 14.5 * 14], abs=14)


def test_powers_of_two_are_the_library_s_own_model() -> None:
    network = dpt("tu-vit_tiny_patch16_224").eval()
    plain = smp.create_model(
        "dpt", "tu-vit_tiny_patch16_224", encoder_weights=None, classes=5, dynamic_img_size=True, **VIT, **SMALL_DECODER
    ).eval()
    missing, unexpected = plain.load_state_dict(network.model.state_dict(), strict=False)
    assert not unexpected
    assert {name.split(".")[2] for name in missing} == {"norm", "head"}  # what no feature is made of
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(network(image).logits, plain(network.normalize(image)))


def test_position_embeddings_are_resampled_to_the_image() -> None:
    network = dpt(img_size=56).eval()
    trunk = network.encoder.model
    fixed = vit(img_size=112).eval()
    state = {name: value for name, value in trunk.state_dict().items() if name != "pos_embed"}
    state["pos_embed"] = torch.cat((trunk.pos_embed[:, :1], resampled(trunk.pos_embed[:, 1:], 8)), dim=1)
    fixed.load_state_dict(state, strict=False)
    image = torch.rand(1, 3, 112, 112)
    with torch.no_grad():
        features, tokens = network.encoder(image)
        expected = fixed.forward_intermediates(
            image, indices=[2, 5, 8, 11], return_prefix_tokens=True, intermediates_only=True
        )
    for feature, token, (other, prefix) in zip(features, tokens, expected, strict=True):
        torch.testing.assert_close(feature, other)
        torch.testing.assert_close(token, prefix)


def test_short_names_are_those_of_published_weights() -> None:
    published = timm.list_models(pretrained=True)
    for name in SHORT_NAMES.values():
        assert name.removeprefix("tu-") in published
        cfg = timm.get_pretrained_cfg(name.removeprefix("tu-"))
        assert (cfg.mean, cfg.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # as `Normalize` has by default
    assert dpt("dinov2_small").encoder.name == "vit_small_patch14_dinov2.lvd142m"


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (
            {"encoder": "tu-beit_base_patch16_224"},
            ("network.encoder", "tu-beit_base_patch16_224", "one image size only"),
        ),
        ({"architecture": "Unet"}, ("network.architecture", "dinov2", "network.architecture=DPT")),
        ({"encoder": "dinov2_smal"}, ("network.encoder", "dinov2_smal", "did you mean dinov2_small")),
        ({"encoder": "tu-vit_small_patch14_dinov2.lvd142"}, ("network.encoder", "lvd142m")),
    ],
)
def test_what_cannot_be_built_is_one_line(options: dict[str, Any], parts: tuple[str, ...]) -> None:
    decoder = {} if options.get("architecture") else SMALL_DECODER
    with pytest.raises(InputError) as caught:
        smp_network(**{"num_classes": 5, "architecture": "DPT", "encoder": "dinov2_small", **VIT, **decoder, **options})
    for part in parts:
        assert part in one_line(caught)


def assert_loaded(encoder: nn.Module, state: dict[str, Tensor]) -> None:
    for key, value in encoder.state_dict().items():
        torch.testing.assert_close(value, state[key.removeprefix("model.")], msg=key)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_of_timm(suffix: str, tmp_path: Path) -> None:
    state = vit(num_classes=3).state_dict()
    assert {"norm.weight", "head.weight", "pos_embed", "blocks.0.ls1.gamma"} <= set(state)
    path = tmp_path / f"w{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    assert_loaded(dpt(weights=path).encoder, state)
    network = dpt(weights=path)
    torch.save(network.encoder.state_dict(), tmp_path / "own.pt")  # and as this library names them
    torch.save(network.state_dict(), tmp_path / "whole.pt")
    for name in ("own.pt", "whole.pt"):
        assert_loaded(dpt(weights=tmp_path / name).encoder, state)


def test_position_embeddings_of_a_file_are_resampled_to_the_encoder(tmp_path: Path) -> None:
    state = vit().state_dict()
    torch.save(state, tmp_path / "w.pt")
    encoder = dpt(weights=tmp_path / "w.pt", img_size=112).encoder
    position = state["pos_embed"]
    assert position.shape == (1, 1 + 37 * 37, 24)
    state["pos_embed"] = torch.cat((position[:, :1], resampled(position[:, 1:], 8)), dim=1)
    assert_loaded(encoder, state)


def test_weights_as_dinov2_released_them(tmp_path: Path) -> None:
    state = vit().state_dict()
    released = {**state, "mask_token": torch.rand(1, 24)}
    torch.save(released, tmp_path / "dinov2_vits14_pretrain.pth")
    assert_loaded(dpt(weights=tmp_path / "dinov2_vits14_pretrain.pth").encoder, state)

    name = "vit_small_patch14_reg4_dinov2"
    state = vit(name).state_dict()
    position = torch.rand(1, 1 + 37 * 37, 24)  # the release adds one to the class token, too; timm keeps the sum
    released = {key: value for key, value in state.items() if key not in ("reg_token", "pos_embed")}
    released |= {"mask_token": torch.rand(1, 24), "register_tokens": state["reg_token"], "pos_embed": position}
    torch.save(released, tmp_path / "reg.pth")
    state |= {"cls_token": state["cls_token"] + position[:, :1], "pos_embed": position[:, 1:]}
    assert_loaded(dpt(f"tu-{name}", weights=tmp_path / "reg.pth").encoder, state)


def test_weights_of_mit_as_published(tmp_path: Path) -> None:
    torch.manual_seed(3)
    state = {key: torch.rand_like(value) for key, value in segformer().encoder.state_dict().items()}
    assert {"patch_embed1.proj.weight", "block1.0.attn.sr.weight", "block4.1.mlp.fc2.bias", "norm4.weight"} <= set(
        state
    )
    torch.save({**state, "head.weight": torch.rand(1000, 256), "head.bias": torch.rand(1000)}, tmp_path / "mit_b0.pth")
    assert_loaded(segformer(weights=tmp_path / "mit_b0.pth").encoder, state)


def test_weights_of_another_network_are_one_line(tmp_path: Path) -> None:
    path, mit = tmp_path / "w.pth", segformer().encoder.state_dict()
    cases: list[tuple[dict[str, Tensor], Any, str]] = [
        (vit(embed_dim=32).state_dict(), dpt, "of another shape (cls_token is (1, 1, 32), not (1, 1, 24)"),
        (vit("vit_small_patch14_reg4_dinov2").state_dict(), dpt, "pos_embed"),
        ({**vit("vit_small_patch14_reg4_dinov2").state_dict(), "mask_token": torch.zeros(1, 24)}, dpt, "pos_embed"),
        (timm.create_model("resnet18").state_dict(), dpt, "tensors missing (model.cls_token"),
        ({**vit().state_dict(), "pos_embed": torch.zeros(1, 1 + 35, 24)}, dpt, "pos_embed is (1, 36, 24)"),
        (
            {**mit, "patch_embed1.proj.weight": torch.zeros(64, 3, 7, 7)},
            segformer,
            "of another shape (patch_embed1.proj",
        ),
        ({**mit, "block3.2.norm1.weight": torch.zeros(160)}, segformer, "1 unexpected (block3.2.norm1.weight)"),
        ({"layers.0.0.projection.weight": torch.zeros(32, 3, 7, 7)}, segformer, "tensors missing (patch_embed1.proj"),
        (vit().state_dict(), segformer, "tensors missing"),
    ]
    for state, build, part in cases:
        torch.save(state, path)
        with pytest.raises(InputError) as caught:
            build(weights=path)
        message = one_line(caught)
        assert message.startswith(f"network.weights: {path} does not fit the encoder: ")
        assert part in message
        assert "network.encoder" in message


def cached(root: Path, repository: str, revision: str, files: dict[str, Any]) -> None:
    """The hub's local cache as a download leaves it."""
    folder = root / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(revision)
    snapshot = folder / "snapshots" / revision
    snapshot.mkdir(parents=True)
    for name, content in files.items():
        save_file(content, snapshot / name) if isinstance(content, dict) else (snapshot / name).write_text(content)


def test_pretrained_weights_that_were_fetched_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    state = vit().state_dict()
    cached(tmp_path, "timm/vit_small_patch14_dinov2.lvd142m", "0" * 40, {"model.safetensors": state})
    network = dpt(pretrained=True)
    assert_loaded(network.encoder, state)
    assert network.eval()(torch.rand(1, 3, 40, 60)).logits.shape == (1, 5, 40, 60)

    settings = smp.encoders.encoders["mit_b0"]["pretrained_settings"]["imagenet"]
    state = {key: torch.rand_like(value) for key, value in segformer().encoder.state_dict().items()}
    config = '{"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}'
    files = {"model.safetensors": state, "config.json": config}
    cached(tmp_path, settings["repo_id"], settings["revision"], files)
    assert_loaded(segformer(pretrained=True).encoder, state)

    with pytest.raises(InputError, match=r"network\.pretrained: cannot fetch the weights of tu-vit_base_patch14"):
        dpt("dinov2_base", pretrained=True)


def test_layers_of_a_vision_transformer() -> None:
    encoder = dpt("tu-vit_small_patch14_reg4_dinov2").encoder
    expected = {}
    for name, _ in encoder.named_parameters():
        parts = name.split(".")
        assert parts[0] == "model"
        expected[name] = int(parts[2]) + 1 if parts[1] == "blocks" else 0
    assert set(expected.values()) == set(range(13))
    assert layers_of(encoder) == expected
    assert {"model.pos_embed", "model.cls_token", "model.reg_token"} <= undecayed(encoder)


def test_layers_of_mit() -> None:
    encoder = segformer("mit_b0").encoder
    order = [part for stage in "1234" for part in (f"patch_embed{stage}", f"block{stage}.0", f"block{stage}.1")]
    expected = {}
    for name, _ in encoder.named_parameters():
        owner = f"block{name[4]}.1." if name.startswith("norm") else name
        (expected[name],) = [layer for layer, part in enumerate(order) if owner.startswith(f"{part}.")]
    assert layers_of(encoder) == expected


def test_other_encoders_have_no_order() -> None:
    for options in ({"encoder": "resnet18"}, {"encoder": "tu-convnext_atto"}):
        encoder = smp_network(num_classes=3, architecture="FPN", **options).encoder
        assert layers_of(encoder) is None
        assert undecayed(encoder) == set()
    convnext = smp_network(
        num_classes=3, architecture="DPT", encoder="tu-convnext_atto", decoder_readout="ignore", **SMALL_DECODER
    ).encoder
    layers = layers_of(convnext)
    assert layers is not None
    assert layers.keys() == dict(convnext.named_parameters()).keys()
