"""Load weights of the code released with the paper (Wang et al. 2022, arXiv 2203.03884) into this library's network.

Its checkpoints hold a student and a teacher, with other parameter names. The encoder, the number of classes, the widths
and the heads are read from the tensors. Dilations and colour normalisation are not in the tensors: they are the same in
all configurations of the release.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor

from u2pl.errors import InputError
from u2pl.networks.deeplabv3plus import DeepLabV3Plus, deeplabv3plus
from u2pl.networks.normalization import IMAGENET_MEAN, IMAGENET_STD
from u2pl.networks.resnet import RESNETS
from u2pl.networks.tensor_file import mismatch, read_tensor_file

#: The key of each network in a checkpoint. The release evaluates the teacher if there is one.
STATES = {"teacher": "teacher_state", "student": "model_state"}

#: Prefix of a name here -> prefix in the release. All other names are the same.
_NAMES = {
    "decoder.aspp.image_pooling.": "decoder.aspp.conv1.",
    "decoder.aspp.pointwise.": "decoder.aspp.conv2.",
    "decoder.aspp.atrous.0.": "decoder.aspp.conv3.",
    "decoder.aspp.atrous.1.": "decoder.aspp.conv4.",
    "decoder.aspp.atrous.2.": "decoder.aspp.conv5.",
    "decoder.low_level.": "decoder.low_conv.",
    "classifier.": "decoder.classifier.",
    "projection.": "decoder.representation.",
    "auxiliary.": "auxor.aux.",
}


class Released(NamedTuple):
    """A released network, and the arguments of :func:`~u2pl.networks.deeplabv3plus` that build it."""

    network: DeepLabV3Plus
    options: dict[str, Any]


def load_released(path: Path | str, *, network: str | None = None, output_stride: int = 8) -> Released:
    """Load the network in a released checkpoint (``model_state``, ``teacher_state``), or in a bare state dict of it.

    Every tensor of the state dict is used, and every tensor of the network is loaded.

    Args:
        path: the checkpoint; it is read without running code from it.
        network: ``teacher`` or ``student``. None: the teacher if there is one.
        output_stride: of the encoder: 8 as in the release, or 16, which is faster and coarser. It sets the dilations.

    Raises:
        InputError: one line that names the file, if it cannot be read or its tensors do not fit the release.
    """
    return released_network(_read(Path(path), network), source=str(path), output_stride=output_stride)


def released_network(state: Mapping[str, Tensor], *, source: str, output_stride: int = 8) -> Released:
    """Build the network that fits a released state dict, and load it. Errors begin with ``source``."""
    options = _options(state, source=source, output_stride=output_stride)
    network = deeplabv3plus(**options)
    # Normalisation is the network's first layer here, but part of the data loader in the release.
    wanted = {key: tensor for key, tensor in network.state_dict().items() if not key.startswith("normalize.")}
    given = dict(state)
    matched, missing, misshapen = {}, [], []
    for key, tensor in wanted.items():
        name = _released_name(key)
        value = given.pop(name, None)
        if value is None:
            missing.append(name)
        elif value.shape != tensor.shape:
            misshapen.append(f"{name} is {tuple(value.shape)}, not {tuple(tensor.shape)}")
        else:
            matched[key] = value
    if problem := mismatch(missing=missing, misshapen=misshapen, excess=list(given)):
        raise InputError(
            f"{source} is not the released DeepLabv3+ on {options['encoder']}: {problem}; give a checkpoint that the "
            "released code saved"
        )
    network.load_state_dict(matched, strict=False)
    return Released(network, options)


def _read(path: Path, network: str | None) -> dict[str, Tensor]:
    """The state dict of one network with its names in the release, without ``module.``."""
    if network is not None and network not in STATES:
        raise InputError(f"--network {network}: should be {' or '.join(STATES)}")
    content = read_tensor_file(path, source=str(path))
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds no tensors by name; give a checkpoint that the released code saved")
    held = [name for name, key in STATES.items() if key in content]
    if network is not None and network not in held:
        there = f"only the {held[0]}" if held else "a single network"
        raise InputError(f"--network {network}: {path} holds {there}; leave --network out")
    state = content[STATES[network or held[0]]] if held else content
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(
            f"{path} holds no network ({' or '.join(STATES.values())}, or tensors by name); give a checkpoint that "
            "the released code saved"
        )
    # Distributed training adds a prefix to every name.
    prefix = "module." if all(str(key).startswith("module.") for key in state) else ""
    return {str(key).removeprefix(prefix): value for key, value in state.items()}


def _options(state: Mapping[str, Tensor], *, source: str, output_stride: int) -> dict[str, Any]:
    """Arguments of :func:`~u2pl.networks.deeplabv3plus`. If a tensor is missing, its width is the paper's."""
    encoder = _encoder(state, source)
    channels = _length(state, "decoder.head.0.weight", 0) or _length(state, "decoder.aspp.conv2.0.weight", 256)
    pyramid = _length(state, "decoder.aspp.conv2.0.weight", channels)
    if pyramid != channels:
        raise InputError(
            f"{source}: its ASPP has {pyramid} channels and its decoder {channels}; only one width of both is supported"
        )
    options: dict[str, Any] = {
        "num_classes": _length(state, "decoder.classifier.8.weight", 21),
        "encoder": encoder,
        "deep_stem": True,
        "output_stride": output_stride,
        "aspp_dilations": [12, 24, 36] if output_stride == 8 else [6, 12, 18],
        "channels": channels,
        "low_level_channels": _length(state, "decoder.low_conv.0.weight", 256),
        "embedding_dim": None,
        "auxiliary": any(key.startswith("auxor.") for key in state),
        "dropout": 0.1,
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
    }
    if any(key.startswith("decoder.representation.") for key in state):
        options["embedding_dim"] = _length(state, "decoder.representation.8.weight", 256)
    if RESNETS[encoder][0] is Bottleneck:
        options["multi_grid"] = [2, 2, 4]
    return options


def _encoder(state: Mapping[str, Tensor], source: str) -> str:
    """The name in ``RESNETS`` with the same block, and as many of them in each stage."""
    numbers = [set(re.findall(rf"^encoder\.layer{stage}\.(\d+)\.", "\n".join(state), re.M)) for stage in (1, 2, 3, 4)]
    layers = tuple(len(blocks) for blocks in numbers)
    bottleneck = any(re.match(r"encoder\.layer\d\.\d+\.conv3\.", key) for key in state)
    for name, (block, expected, _) in RESNETS.items():
        if layers == expected and block is (Bottleneck if bottleneck else BasicBlock):
            return name
    if not any(layers):
        begin = ", ".join(dict.fromkeys(key.split(".", maxsplit=1)[0] for key in state))
        raise InputError(
            f"{source} holds no network of the release: no tensor is named encoder.layer1..., they begin with "
            f"{begin[:100]}; give a checkpoint that the released code saved"
        )
    known = "ResNet-152" if layers == (3, 8, 36, 3) else "no known ResNet"
    raise InputError(
        f"{source}: its encoder has {', '.join(map(str, layers))} {'bottleneck' if bottleneck else 'basic'} blocks in "
        f"its stages ({known}); supported are {', '.join(RESNETS)}"
    )


def _released_name(key: str) -> str:
    for here, released in _NAMES.items():
        if key.startswith(here):
            return released + key.removeprefix(here)
    return key


def _length(state: Mapping[str, Tensor], key: str, default: int) -> int:
    """The number of output channels of a convolution, or ``default`` if it is missing."""
    return state[key].shape[0] if key in state and state[key].dim() else default
