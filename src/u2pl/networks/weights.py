"""Load trained weights into an encoder: a local file, or published weights fetched from the Hugging Face hub."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

import segmentation_models_pytorch as smp
import timm
from huggingface_hub import constants as hub
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file
from torch import Tensor, nn

from u2pl.errors import InputError
from u2pl.networks.tensor_file import first_sentence, mismatch, read_tensor_file
from u2pl.networks.transformers import published_layout
from u2pl.paths import usable

#: Prefixes that training scripts add to the encoder's own names.
_WRAPPERS = ("module.", "encoder.", "backbone.", "model.")

#: Seconds to wait for the hub before concluding that there is no connection.
_CONNECT_TIMEOUT = 5.0


def load_encoder_weights(encoder: nn.Module, path: Path | str) -> dict[str, Tensor]:
    """Load an encoder's published weights from a file: all tensors or none. Returns the file's classifier.

    Reads ``.safetensors``, ``.pt`` and ``.pth`` files, without running code from them. Wrappers around the names are
    ignored (``module.``, ``encoder.``, ``state_dict``). Names are as in torchvision, timm or MiT; for vision
    transformers also as in other releases that timm converts.

    Raises:
        InputError: one line that names ``network.weights`` and the file, if it is unreadable or fits another network.
    """
    return _copy_into(encoder, _read(usable(path, "network.weights:")), source=f"network.weights: {path}")


def fetch_resnet_weights(encoder: nn.Module, name: str) -> dict[str, Tensor]:
    """Load ImageNet weights into a :class:`u2pl.networks.resnet.ResNetEncoder`. Returns their classifier.

    With a plain stem they are torchvision's. With a deep stem they are GluonCV's ResNet-s (He et al. 2019, arXiv
    1812.01187), which has the same three convolutions.
    """
    deep = isinstance(encoder.conv1, nn.Sequential)
    if deep and not timm.is_model(f"{name}s"):
        raise InputError(
            f"network.pretrained: {name} with a deep stem has no published ImageNet weights; set "
            "network.deep_stem=false, or give network.weights=PATH"
        )
    model = f"{name}s.gluon_in1k" if deep else f"{name}.tv_in1k"
    with fetching(name):
        state = timm.create_model(model, pretrained=True).state_dict()
    return _copy_into(encoder, state, source=f"network.pretrained: {model}")


def fetch_classifier(encoder: nn.Module, name: str, tag: str | bool) -> dict[str, Tensor]:
    """The published weights of a segmentation_models_pytorch encoder that are not in the encoder itself.

    Args:
        encoder: the encoder, with these weights loaded.
        name: its name in segmentation_models_pytorch, or ``tu-`` and a name of timm.
        tag: the name of the weights in segmentation_models_pytorch.
    """
    if name.startswith("tu-"):
        model = name.removeprefix("tu-")
        published = timm.get_pretrained_cfg(model)
        if published is None or published.num_classes == 0:  # trained without labels, like DINOv2
            return {}
        state = timm.create_model(model, pretrained=True).state_dict()
    else:
        settings = smp.encoders.encoders[name]["pretrained_settings"][tag]
        state = load_file(hf_hub_download(settings["repo_id"], "model.safetensors", revision=settings["revision"]))
    own = {_canonical(key) for key in encoder.state_dict()}
    return {key: value for key, value in state.items() if _canonical(key) not in own}


@contextmanager
def fetching(name: str) -> Iterator[None]:
    """Context of a download of the weights of ``name``; if it fails, the reason is reported in one line.

    Raises:
        InputError: if the weights can neither be fetched nor found in the local cache.
    """
    with connecting() as reason:
        try:
            yield
        except Exception as error:  # hub, http, timm and safetensors raise different errors
            why = reason or first_sentence(error)
            raise InputError(
                f"network.pretrained: cannot fetch the weights of {name} ({why}); check the network, or give "
                "network.weights=PATH, or set network.pretrained=false"
            ) from error


@contextmanager
def connecting() -> Iterator[str | None]:
    """Context of requests to the hub. Yields why there is no connection; None if there is one.

    Without a network, the hub's client retries for most of a minute. A connection test before the first request
    shortens this to seconds. Without a connection, the client only uses the local cache.
    """
    offline = hub.HF_HUB_OFFLINE
    reason = None if offline else _why_unreachable()
    hub.HF_HUB_OFFLINE = offline or reason is not None
    try:
        yield reason
    finally:
        hub.HF_HUB_OFFLINE = offline


def _why_unreachable() -> str | None:
    """Why there is no connection to the hub; None if there is one, or if a proxy is used."""
    address = urlsplit(hub.ENDPOINT)
    if not address.hostname or address.scheme in getproxies():
        return None
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname, port), timeout=_CONNECT_TIMEOUT).close()
    except OSError as error:
        return f"no connection to {address.hostname}: {error.strerror or error}"
    return None


def _read(path: Path) -> Mapping[str, Tensor]:
    """The state dict in a file, without its wrappers."""
    content = read_tensor_file(path, source=f"network.weights: {path}")
    for wrapper in ("state_dict", "model_state", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if isinstance(content, Mapping):
        state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        if state:
            return state
    raise InputError(f"network.weights: {path} holds no tensors by name; save the encoder's state_dict()")


def _copy_into(encoder: nn.Module, state: Mapping[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """Copy a state dict into an encoder if it has all of its tensors, in the right shape. Returns the rest."""
    wanted = encoder.state_dict()
    state = published_layout(encoder, _unwrap(state, wanted))
    given = {_canonical(key): (key, value) for key, value in state.items()}
    matched, missing, misshapen = {}, [], []
    for key, tensor in wanted.items():
        name, value = given.pop(_canonical(key), (key, None))
        if value is None:
            if not key.endswith("num_batches_tracked"):  # absent from old checkpoints, and not used here
                missing.append(key)
        elif _is_gray(value, tensor):
            matched[key] = value.expand_as(tensor) / 3  # gray images have three equal channels
        elif value.shape != tensor.shape:
            misshapen.append(f"{name} is {tuple(value.shape)}, not {tuple(tensor.shape)}")
        else:
            matched[key] = value
    # A deeper network of the same family has all of these tensors and more, so it does not fit either. Tensors in parts
    # that the encoder does not have belong to the classifier.
    parts = {_part(key) for key in wanted}
    excess = [key for key, _ in given.values() if _part(key) in parts]
    if problem := mismatch(missing=missing, misshapen=misshapen, excess=excess):
        raise InputError(
            f"{source} does not fit the encoder: {problem}; set network.encoder "
            "(and network.deep_stem) to the network of these weights"
        )
    nn.Module.load_state_dict(encoder, matched, strict=False)  # MiT's own method has no `strict`
    return dict(given.values())


def _is_gray(value: Tensor, wanted: Tensor) -> bool:
    """Whether a first convolution is of an encoder of gray images, where one of RGB images is wanted."""
    return wanted.dim() == 4 and wanted.shape[1] == 3 and value.shape == (len(wanted), 1, *wanted.shape[2:])


def _unwrap(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove wrappers from the names until they begin like the encoder's. Names outside the wrapper are dropped."""
    names = dict(state)
    known = {_part(key) for key in wanted}
    while not any(_part(key) in known for key in names):
        wrapper = next((w for w in _WRAPPERS if any(key.startswith(w) for key in names)), None)
        if wrapper is None:
            break
        names = {key.removeprefix(wrapper): value for key, value in names.items() if key.startswith(wrapper)}
    return names


def _canonical(key: str) -> str:
    """The same key for timm's two names of a stage: ``stages.0`` in a classifier, ``model.stages_0`` in an encoder."""
    return key.removeprefix("model.").replace(".", "_")


def _part(key: str) -> str:
    """The part of the network that contains a tensor: ``layer3.6.conv1.weight`` -> ``layer3``."""
    return re.sub(r"_\d+$", "", key.removeprefix("model.").split(".", maxsplit=1)[0])
