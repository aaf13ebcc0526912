from collections.abc import Callable

import pytest
import torch
from torch import nn

from u2pl.methods.ema import EmaTeacher

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
