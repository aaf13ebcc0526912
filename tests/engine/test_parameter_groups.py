"""Every parameter in one group, at the rate computed by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim import AdamW

from u2pl.build import build_optimizer, build_scheduler
from u2pl.config.schema import Config, TrainConfig
from u2pl.engine.parameter_groups import parameter_groups
from u2pl.errors import InputError
from u2pl.networks import deeplabv3plus, smp_network

RATES = {"lr": 0.01, "head_lr_factor": 40, "weight_decay": 0.05, "layer_decay": 0.7}


def dpt(encoder: str) -> Any:
    small: dict[str, Any] = {"decoder_intermediate_channels": (8, 8, 8, 8), "decoder_fusion_channels": 12}
    return smp_network(
        num_classes=5, architecture="DPT", encoder=encoder, embed_dim=24, num_heads=2, embedding_dim=6, **small
    )


def segformer() -> Any:
    return smp_network(num_classes=5, architecture="Segformer", encoder="mit_b0", embedding_dim=6)


def layer_of(name: str) -> tuple[int, int]:
    """The layer of a parameter of the encoder and how many layers there are, read off its name."""
    parts = name.split(".")
    if parts[0] == "model":  # timm's vision transformer: an embedding and 12 blocks
        return (1 + int(parts[2]) if parts[1] == "blocks" else 0), 13
    stage, kind = int(parts[0][-1]) - 1, parts[0][:-1]  # MiT-B0: in each stage an embedding, two blocks and a norm
    return 3 * stage + {"patch_embed": 0, "block": 1 + int(parts[1]) if kind == "block" else 0, "norm": 2}[kind], 12


@pytest.mark.parametrize(
    "build", [lambda: dpt("tu-vit_small_patch14_reg4_dinov2"), lambda: dpt("tu-vit_tiny_patch16_224"), segformer]
)
def test_rates_by_hand(build: Any) -> None:
    network = build()
    groups = parameter_groups(network, **RATES)
    found: dict[int, tuple[float, float]] = {}
    for group in groups:
        for parameter in group["params"]:
            assert id(parameter) not in found
            found[id(parameter)] = (group["lr"], group["weight_decay"])

    expected: dict[int, tuple[float, float]] = {}
    for name, parameter in network.named_parameters():
        own = name.removeprefix("model.encoder.")
        rate = 0.4
        if own != name:
            layer, layers = layer_of(own)
            rate = 0.01
            for _ in range(layers - 1 - layer):
                rate *= 0.7
        bare = len(parameter.shape) <= 1 or own.split(".")[-1] in ("pos_embed", "cls_token", "reg_token")
        expected[id(parameter)] = (rate, 0.0 if bare else 0.05)
    assert found.keys() == expected.keys()
    for key, (rate, decay) in expected.items():
        assert found[key] == (pytest.approx(rate, rel=1e-9), decay)
    assert groups[0]["lr"] == 0.01  # the rate that is logged is that of the key


def test_without_layer_decay_there_are_two_groups() -> None:
    network = segformer()
    encoder, heads = parameter_groups(network, **{**RATES, "layer_decay": None})
    assert [id(p) for p in encoder["params"]] == [id(p) for p in network.encoder.parameters()]
    assert [id(p) for p in heads["params"]] == [id(p) for p in network.head_parameters()]
    assert (encoder["lr"], heads["lr"]) == (0.01, 0.4)
    assert encoder["weight_decay"] == heads["weight_decay"] == 0.05


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_schedule_scales_every_group(optimizer: str) -> None:
    keys = {"optimizer": optimizer, "steps": 10, "lr": 0.01, "lr_warmup": 1, "layer_decay": 0.5, "head_lr_factor": 10}
    train = TrainConfig.model_validate(keys)
    built = build_optimizer(train, dpt("tu-vit_tiny_patch16_224"))
    assert isinstance(built, AdamW) == (optimizer == "adamw")
    assert optimizer == "adamw" or all(group["momentum"] == 0.9 for group in built.param_groups)
    first = [group["lr"] for group in built.param_groups]
    scheduler = build_scheduler(train, built)
    at_start = [group["lr"] for group in built.param_groups]
    for _ in range(4):
        built.step()
        scheduler.step()
    for before, start, now in zip(first, at_start, (group["lr"] for group in built.param_groups), strict=True):
        assert start == pytest.approx(before / 2)
        assert now == pytest.approx(before * 0.6**0.9)
    assert max(first) == pytest.approx(0.1)
    assert min(first) == pytest.approx(0.01 * 0.5**12)


def test_every_parameter_moves_by_its_rate() -> None:
    """One step of AdamW without decay moves a weight by its rate where the gradient is not zero."""
    network = dpt("dinov2_small")
    optimizer = AdamW(parameter_groups(network, **{**RATES, "weight_decay": 0.0}))
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, value in network.named_parameters():
        own = name.removeprefix("model.encoder.")
        rate = 0.4 if own == name else 0.01 * 0.7 ** (12 - layer_of(own)[0])
        torch.testing.assert_close(before[name] - value, torch.full_like(value, rate), rtol=1e-2, atol=1e-6)


def test_encoders_without_an_order_are_refused() -> None:
    for network in (
        deeplabv3plus(num_classes=3, encoder="resnet18", channels=8),
        smp_network(num_classes=3, encoder="resnet18"),
        smp_network(num_classes=3, encoder="tu-convnext_atto"),
    ):
        with pytest.raises(InputError) as caught:
            parameter_groups(network, **RATES)
        message = str(caught.value)
        assert message.startswith("train.layer_decay: ")
        assert "\n" not in message
        assert "train.layer_decay=null" in message
        assert parameter_groups(network, **{**RATES, "layer_decay": None})
    assert Config().train.layer_decay is None


@pytest.mark.parametrize("layer_decay", [None, 0.7])
@pytest.mark.parametrize("stages", [True, 2])
def test_what_is_frozen_is_in_no_group_and_the_rest_as_before(stages: bool | int, layer_decay: float | None) -> None:
    plain, network = segformer(), segformer()
    network.freeze(stages)
    rates = RATES | {"layer_decay": layer_decay}
    found: dict[str, Any] = {}
    before: dict[str, Any] = {}
    for of, groups in ((network, found), (plain, before)):
        names = {id(parameter): name for name, parameter in of.named_parameters()}
        for group in parameter_groups(of, **rates):
            groups |= {names[id(each)]: (group["lr"], group["weight_decay"]) for each in group["params"]}
    assert found == {name: before[name] for name, each in network.named_parameters() if each.requires_grad}
    assert 0 < len(found) < len(before)


def test_an_optimizer_keeps_no_state_of_what_is_frozen() -> None:
    network = segformer()
    network.freeze(True)
    optimizer = build_optimizer(TrainConfig(optimizer="adamw", lr=0.1), network)
    network(torch.rand(2, 3, 64, 64)).logits.sum().backward()
    build_scheduler(TrainConfig(steps=10), optimizer)
    optimizer.step()
    states = {name for name, each in network.named_parameters() if optimizer.state.get(each)}
    assert states
    assert not any(name.startswith("model.encoder.") for name in states)
    assert optimizer.param_groups[0]["lr"] == 0.1  # what a run reports
