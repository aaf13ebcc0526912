"""Rules by the encoder and its weights: the architecture, the rates and the colour jitter."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

from u2pl.auto.choices import Choice
from u2pl.auto.facts import Facts
from u2pl.auto.rules.reading import is_pretrained, kind_of, steps_of
from u2pl.config.fields import AUTO
from u2pl.config.schema import Config
from u2pl.networks import smp_network


class Rates(NamedTuple):
    lr: float
    head_lr_factor: float
    lr_warmup: int  # steps


#: By the kind of encoder and whether its weights are pretrained.
ADAMW = {
    ("cnn", False): Rates(1e-3, 1.0, 0),  # CamVid
    ("cnn", True): Rates(1e-4, 10.0, 0),  # VOC animals; SGD at 0.01 failed there
    ("mit", False): Rates(1e-4, 1.0, 200),  # not measured
    ("mit", True): Rates(6e-5, 10.0, 200),  # SegFormer's (arXiv 2105.15203)
    ("vit", False): Rates(1e-4, 1.0, 200),  # not measured
    ("vit", True): Rates(5e-6, 40.0, 100),  # UniMatch V2's for DINOv2 (arXiv 2410.10777)
}
SGD = {False: Rates(0.01, 1.0, 0), True: Rates(0.001, 10.0, 0)}  # the paper's on Cityscapes, and on PASCAL VOC
WEIGHT_DECAY = {"adamw": 0.01, "sgd": 1e-4}
OF_SMP = {"name", "freeze", *inspect.signature(smp_network).parameters} - {"output_stride"}  # few architectures have it
ARCHITECTURES = {"cnn": "FPN", "mit": "Segformer", "vit": "DPT"}  # CamVid, 400 steps: FPN 41.9, U-Net 38.4


#: On a GPU with at least so many bytes.
DINO = ((40 * 2**30, "dinov2_base"), (10 * 2**30, "dinov2_small"))
LIGHT = "tu-tf_efficientnet_lite2"  # 77 % top-1 on ImageNet with 6 M parameters
SCRATCH = "resnet18"
FROM_SCRATCH = "costs many points (CamVid, 46 labels: 47.6 instead of 54.0)"


def encoder(config: Config, facts: Facts) -> Choice:
    """A pretrained encoder that the device has memory and time for; one from scratch if no weights can be had."""
    chosen = config.network
    wanted = chosen.weights is not None or chosen.pretrained is not False
    name = chosen.encoder
    if name == AUTO:
        name = preferred(config, facts) if wanted else SCRATCH
    because = f"pretrained, and {'fits the GPU' if facts.device == 'cuda' else 'light enough for ' + facts.device}"
    if chosen.weights is not None or chosen.pretrained != AUTO:
        because = because if wanted else "from scratch, as network.pretrained is false"
        because = "network.weights is set" if chosen.weights is not None else because
        return Choice({"network.encoder": name, "network.pretrained": False}, because)
    why = facts.unfetchable(published_name(name, deeplab=its_own_keys(config) is not None))
    if why is None:
        return Choice({"network.encoder": name, "network.pretrained": True}, because)
    scratch = SCRATCH if chosen.encoder == AUTO else name
    warning = (
        f"network.pretrained: no weights of {name} ({why}): the network starts from scratch, which {FROM_SCRATCH}; "
        "give the file of an encoder, such as network.encoder=mobilenet_v2 network.weights=FILE"
    )
    values = {"network.encoder": scratch, "network.pretrained": False}
    return Choice(values, "no weights can be fetched: from scratch", detail=why, warning=warning)


def preferred(config: Config, facts: Facts) -> str:
    """The encoder to fetch weights of."""
    large = next((name for memory, name in DINO if facts.device == "cuda" and facts.memory >= memory), None)
    if its_own_keys(config) is not None:  # DeepLabv3+ has residual networks only
        return "resnet18" if large is None else "resnet50"
    if config.network.architecture not in (AUTO, None, "DPT", "dpt"):  # another decoder is set
        large = None
    return large or LIGHT


def published_name(encoder: str, *, deeplab: bool) -> str:
    """The name under which the published weights of an encoder are found."""
    if not deeplab:
        return encoder
    return f"tu-{encoder}s.gluon_in1k" if encoder in ("resnet50", "resnet101") else f"tu-{encoder}.tv_in1k"


def its_own_keys(config: Config) -> list[str] | None:
    """The keys that are set and that only DeepLabv3+ has, if it is the network; else None."""
    chosen = config.network
    its_own = [key for key in chosen.model_dump(exclude_defaults=True) if key not in OF_SMP]
    if chosen.name == "deeplabv3plus" or (chosen.name == AUTO and its_own and chosen.architecture in (AUTO, None)):
        return its_own
    return None


def network(config: Config, facts: Facts) -> Choice:
    """The architecture that suits the encoder. DeepLabv3+ if a key is set that only it has."""
    chosen, kind = config.network, kind_of(config)
    its_own = its_own_keys(config)
    name = "smp" if its_own is None else "deeplabv3plus"
    if its_own is not None:
        values: dict[str, Any] = {"network.name": name, "network.architecture": None}
        return Choice(values, f"network.{(its_own or ['name'])[0]} is set", detail=f"keys set: {', '.join(its_own)}")
    what = {"cnn": "convolutional network", "mit": "MiT", "vit": "vision transformer"}[kind]
    values = {"network.name": name, "network.architecture": ARCHITECTURES[kind]}
    return Choice(values, f"the encoder is a {what}", detail=chosen.encoder)


def colours(config: Config, facts: Facts) -> Choice:
    """Whether labeled images get photometric jitter, too."""
    return Choice({"train.jitter": True}, "few labels show few kinds of light")


def optimizer(config: Config, facts: Facts) -> Choice:
    """Rates by the kind of encoder and the source of its weights."""
    kind, pretrained = kind_of(config), is_pretrained(config)
    name = "adamw" if config.train.optimizer == AUTO else config.train.optimizer
    rates = ADAMW[kind, pretrained] if name == "adamw" else SGD[pretrained]
    values = {"optimizer": name, **rates._asdict(), "weight_decay": WEIGHT_DECAY[name]}
    values["lr_warmup"] = min(rates.lr_warmup, steps_of(config, facts) // 10)
    what = "a convolutional encoder" if kind == "cnn" else "a transformer"
    because = f"{what} {'with pretrained weights' if pretrained else 'from scratch'}"
    return Choice({f"train.{key}": value for key, value in values.items()}, because)
