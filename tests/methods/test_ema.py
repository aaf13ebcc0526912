from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from u2pl.methods.ema import EmaTeacher
from u2pl.networks import smp_network

Network = Callable[..., nn.Module]


def randomize(network: nn.Module) -> None:
    with torch.no_grad():
        for tensor in [*network.parameters(), *network.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor))
            else:
                tensor.add_(7)


@pytest.mark.parametrize("decay", [0.99, 0.6])
def test_average_over_several_updates(tiny_network: Network, decay: float) -> None:
    student = tiny_network()
    teacher = EmaTeacher(student, ema_decay=decay)
    expected = {name: value.clone() for name, value in teacher.network.state_dict().items()}
    for k in range(6):
        randomize(student)
        teacher.update(student)
        momentum = min(1 - 1 / (k + 1), decay)
        for name, value in student.state_dict().items():
            floating = value.is_floating_point()
            expected[name] = momentum * expected[name] + (1 - momentum) * value if floating else value.clone()
    assert any(not value.is_floating_point() for value in expected.values())
    assert any("running_mean" in name for name in expected)
    for name, value in teacher.network.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)


def test_starts_as_a_copy_of_its_own(tiny_network: Network) -> None:
    student = tiny_network()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    teacher = EmaTeacher(student)
    randomize(student)
    for name, value in teacher.network.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_start_copies_once(tiny_network: Network) -> None:
    student = tiny_network()
    teacher = EmaTeacher(student)
    assert not teacher.started
    randomize(student)
    teacher.start(student)
    assert teacher.started
    copied = {name: value.clone() for name, value in student.state_dict().items()}
    randomize(student)
    teacher.start(student)
    for name, value in teacher.network.state_dict().items():
        assert torch.equal(value, copied[name])


def test_always_evaluates_without_gradient(tiny_network: Network) -> None:
    student = tiny_network().train()
    teacher = EmaTeacher(student)
    assert student.training
    parent = nn.ModuleList([teacher]).train()
    assert parent.training
    assert not any(module.training for module in teacher.modules())
    statistics = teacher.network.stem[1].running_mean.clone()
    output = teacher(torch.rand(2, 3, 8, 8, requires_grad=True))
    assert not output.logits.requires_grad
    assert not output.embedding.requires_grad
    assert torch.equal(teacher.network.stem[1].running_mean, statistics)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_a_restored_teacher_goes_on_with_its_momentum(tiny_network: Network) -> None:
    student = tiny_network()
    teacher, copy = EmaTeacher(student), EmaTeacher(tiny_network(seed=1))
    teacher.start(student)
    for _ in range(3):
        randomize(student)
        teacher.update(student)
    copy.load_state_dict(teacher.state_dict())
    assert copy.started
    assert copy.updates == 3
    randomize(student)
    for one in (teacher, copy):
        one.start(student)
        one.update(student)
    for name, value in copy.network.state_dict().items():
        assert torch.equal(value, teacher.network.state_dict()[name])


def frozen_student(stages: bool | int, name: str = "FPN/resnet18") -> Any:
    architecture, encoder = name.split("/")
    torch.manual_seed(0)
    student = smp_network(num_classes=4, architecture=architecture, encoder=encoder, embedding_dim=3, channels=32)
    student.freeze(stages)
    return student


def addresses(module: nn.Module) -> dict[str, int]:
    """Where the numbers of each parameter and buffer lie."""
    return {name: each.data_ptr() for name, each in (*module.named_parameters(), *module.named_buffers())}


FROZEN = [(True, "FPN/resnet18"), (2, "FPN/resnet18"), (2, "Segformer/mit_b0"), (1, "DPT/tu-vit_tiny_patch16_224")]


def belongs_to_frozen(key: str, stages: bool | int, name: str) -> bool:
    """By the names of the layers, for the networks above."""
    key = key.removeprefix("model.encoder.")
    if stages is True:
        return not key.startswith(("model.", "projection", "normalize"))
    frozen = {
        "FPN/resnet18": ("conv1", "bn1", "layer1"),
        "Segformer/mit_b0": ("patch_embed1", "block1", "norm1", "patch_embed2", "block2", "norm2"),
        "DPT/tu-vit_tiny_patch16_224": (
            *("model.cls_token", "model.pos_embed", "model.patch_embed"),
            *(f"model.blocks.{number}." for number in range(3)),
        ),
    }[name]
    return key.startswith(frozen)


@pytest.mark.parametrize(("stages", "name"), FROZEN)
def test_what_is_frozen_is_shared_and_saved_once(stages: bool | int, name: str) -> None:
    student = frozen_student(stages, name)
    teacher = EmaTeacher(student)
    own, theirs = addresses(teacher.network), addresses(student)
    shared = {key for key, address in own.items() if address == theirs[key]}
    assert shared == {key for key in own if belongs_to_frozen(key, stages, name)}
    assert 0 < len(shared) < len(own)
    assert all(each.requires_grad != (key in shared) for key, each in student.named_parameters())
    saved = teacher.state_dict()
    assert {key.removeprefix("network.") for key in saved} == {*(set(own) - shared), "_extra_state"}
    if stages is True:
        assert teacher.network.encoder is student.encoder


@pytest.mark.parametrize(("stages", "name"), FROZEN)
def test_the_rest_is_averaged_as_if_nothing_were_frozen(stages: bool | int, name: str) -> None:
    student = frozen_student(stages, name)
    teacher = EmaTeacher(student, ema_decay=0.6)
    written = {key: each._version for key, each in student.state_dict(keep_vars=True).items()}
    still = {key: value.clone() for key, value in student.state_dict().items() if belongs_to_frozen(key, stages, name)}
    expected = {}
    for k in range(5):
        with torch.no_grad():
            for key, value in student.state_dict().items():
                if key not in still:
                    value.copy_(torch.rand_like(value)) if value.is_floating_point() else value.add_(7)
        if k == 0:
            teacher.start(student)
            expected = {key: value.clone() for key, value in student.state_dict().items()}
            continue
        teacher.update(student)
        momentum = min(1 - 1 / k, 0.6)
        for key, value in student.state_dict().items():
            floating = value.is_floating_point()
            expected[key] = momentum * expected[key] + (1 - momentum) * value if floating else value.clone()
    for key, value in teacher.network.state_dict().items():
        if key in still:
            assert torch.equal(value, still[key]), key
            assert student.state_dict(keep_vars=True)[key]._version == written[key]  # not even with the same value
        else:
            torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stages", [True, 2])
def test_a_restored_teacher_has_the_frozen_part_of_the_student(stages: bool | int) -> None:
    student, other = frozen_student(stages), frozen_student(stages)
    randomize(student)
    teacher, copy = EmaTeacher(student), EmaTeacher(other)
    randomize(teacher.network)
    other.load_state_dict(student.state_dict())
    parent = nn.ModuleDict({"teacher": copy})
    parent.load_state_dict({f"teacher.{key}": value for key, value in teacher.state_dict().items()})
    for key, value in copy.network.state_dict().items():
        assert torch.equal(value, teacher.network.state_dict()[key])
    assert addresses(other.encoder.conv1) == addresses(copy.network.encoder.conv1)
    with pytest.raises(RuntimeError, match="Missing key"):  # what is not shared has to be there
        copy.load_state_dict({key: value for key, value in teacher.state_dict().items() if "decoder" not in key})


def test_training_the_student_leaves_the_shared_layers_alone() -> None:
    student = frozen_student(2)
    teacher = EmaTeacher(student)
    student.train()
    assert not student.encoder.bn1.training
    assert student.encoder.layer3.training
    assert not any(module.training for module in teacher.network.modules())
    statistics = teacher.network.encoder.bn1.running_mean.clone()
    student(torch.rand(2, 3, 64, 64))
    assert torch.equal(teacher.network.encoder.bn1.running_mean, statistics)
