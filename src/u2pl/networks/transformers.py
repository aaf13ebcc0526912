"""Vision transformers as encoders: short names, DPT on any patch size, published weights, layer order."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import segmentation_models_pytorch as smp
from segmentation_models_pytorch.decoders.dpt.decoder import ReassembleBlock
from segmentation_models_pytorch.encoders.mix_transformer import MixVisionTransformer
from timm.models import Eva, VisionTransformer, eva, group_parameters, vision_transformer
from torch import Tensor, nn

from u2pl.errors import InputError

#: Short name of DINOv2 (Oquab et al. 2023, arXiv 2304.07193) or DINOv3 (Simeoni et al. 2025, arXiv 2508.10104) -> name
#: in segmentation_models_pytorch.
SHORT_NAMES = {
    **{f"dinov2_{size}": f"tu-vit_{size}_patch14_dinov2.lvd142m" for size in ("small", "base", "large", "giant")},
    **{f"dinov3_{size}": f"tu-vit_{size}_patch16_dinov3.lvd1689m" for size in ("small", "base", "large")},
}

#: MiT's layers in the format of timm's matchers: a stage is its patch embedding, its blocks, and a norm.
_MIT_LAYERS = {"stages": [(r"^patch_embed(\d)", (-1,)), (r"^block(\d)\.(\d+)", None), (r"^norm(\d)", (99999,))]}


def create_dpt(**options: Any) -> nn.Module:
    """segmentation_models_pytorch's DPT (Ranftl et al. 2021, arXiv 2103.13413) for images of any size.

    Position embeddings are resampled to the size of the image. Patches may have any size. The library scales the
    decoder's maps by integers, which works only for patch sizes that are powers of two; DINOv2's patches have 14
    pixels. For other patch sizes the maps are 4, 2, 1 and 1/2 times the encoder's, as for patches of 16, and the scores
    are scaled to the image by the remaining factor. Layers after the last feature are removed: they would never train.

    Raises:
        InputError: if the encoder takes images of only one size.
    """
    with warnings.catch_warnings():  # of no use here: without a class token, the decoder projects the features alone
        warnings.filterwarnings("ignore", message="Encoder does not have prefix tokens")
        try:
            model = smp.create_model("dpt", **{"dynamic_img_size": True, **options})
        except TypeError as error:
            if "dynamic_img_size" not in str(error):
                raise
            model = smp.create_model("dpt", **options)  # not every family has this option, and most do not need it
    trunk = model.encoder.model
    if getattr(getattr(trunk, "patch_embed", None), "strict_img_size", False):
        raise InputError(
            f"network.encoder: {options['encoder_name']} accepts one image size only; choose another encoder, such as "
            "dinov2_small"
        )
    if "prune_norm" in inspect.signature(trunk.prune_intermediate_layers).parameters:
        trunk.prune_intermediate_layers(prune_norm=True)
    patch = model.encoder.output_strides[0]
    if not _is_power_of_two(patch):
        for index, block in enumerate(model.decoder.reassemble_blocks):
            model.decoder.reassemble_blocks[index] = ReassembleBlock(
                in_channels=block.project_to_out_channel.in_channels,
                mid_channels=block.project_to_out_channel.out_channels,
                out_channels=block.project_to_feature_dim.out_channels,
                upsample_factor=4 / 2**index,
            )
        model.segmentation_head.upsampling_factor = patch / 8
        model.initialize()
    return model


def dpt_multiple(encoder: Any) -> int:
    """Both sides of an image must be a multiple of this: one pixel of the decoder's coarsest map, and one patch."""
    coarsest, patch = 2 ** (len(encoder.output_strides) + 1), encoder.output_strides[-1]
    return max(patch, coarsest if _is_power_of_two(patch) else coarsest * patch // 16)


def published_layout(encoder: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a published state dict to timm's names and shapes, for encoders that timm converts weights for.

    timm converts the files of DINOv2 and others, and resamples position embeddings to the encoder's grid. A state dict
    that it cannot convert is returned unchanged.
    """
    trunk = getattr(encoder, "model", None)
    names = {key.removeprefix("model."): value for key, value in state.items()}
    try:
        if isinstance(trunk, VisionTransformer):
            return vision_transformer.checkpoint_filter_fn(names, trunk)
        if isinstance(trunk, Eva):
            return eva.checkpoint_filter_fn(names, trunk)
    except (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        pass  # of another network: comparing names and shapes later shows the difference
    return dict(state)


def layers_of(encoder: nn.Module) -> dict[str, int] | None:
    """The layer of each parameter by name, 0 closest to the image; None if the encoder's layers have no order.

    The order is timm's: patch and position embeddings, then one layer for each block.
    """
    if isinstance(encoder, MixVisionTransformer):
        return group_parameters(encoder, _MIT_LAYERS, reverse=True)
    prefix, trunk = _layered(encoder)
    if trunk is None:
        return None
    layers = group_parameters(trunk, trunk.group_matcher(coarse=False), reverse=True)  # type: ignore[operator]
    return {prefix + name: layer for name, layer in layers.items()}


def undecayed(encoder: nn.Module) -> set[str]:
    """Parameters, besides norms and biases, that timm exempts from weight decay: position embeddings and tokens."""
    prefix, trunk = _layered(encoder)
    exempt = getattr(trunk, "no_weight_decay", None)
    return set() if exempt is None else {prefix + name for name in exempt()}


def _is_power_of_two(number: int) -> bool:
    return number & (number - 1) == 0


def _layered(encoder: nn.Module) -> tuple[str, nn.Module | None]:
    """The prefix of the parameters of timm's model in an encoder, and that model, if any."""
    for prefix, module in (("", encoder), ("model.", getattr(encoder, "model", None))):
        if hasattr(module, "group_matcher"):
            return prefix, module
    return "", None
