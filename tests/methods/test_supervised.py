from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from u2pl.methods import Supervised
from u2pl.methods.base import Method, supervised_losses
from u2pl.pixels.losses import OhemCrossEntropy, cross_entropy
from u2pl.structures import IGNORE_INDEX, Batch, SegmentationOutput

Network = Callable[..., nn.Module]


def labeled_batch() -> Batch:
    torch.manual_seed(0)
    label = torch.randint(0, 4, (2, 8, 8))
    label[:, 0] = IGNORE_INDEX
    return Batch(torch.rand(2, 3, 8, 8), label)


@pytest.mark.parametrize("auxiliary", [False, True])
def test_losses(tiny_network: Network, auxiliary: bool) -> None:
    student, batch = tiny_network(projection=False, auxiliary=auxiliary).eval(), labeled_batch()
    losses = Supervised()(student, batch, 0.5)
    output = student(batch.image)
    heads = {"supervised": output.logits} | ({"auxiliary": output.auxiliary} if auxiliary else {})
    assert losses.keys() == heads.keys()
    for name, logits in heads.items():
        total, number = 0.0, 0
        for b in range(2):
            for y in range(1, 8):
                for x in range(8):
                    total -= logits[b, :, y, x].log_softmax(dim=0)[batch.label[b, y, x]].item()
                    number += 1
        assert losses[name].item() == pytest.approx(total / number, rel=1e-4)


def test_the_loss_is_a_choice(tiny_network: Network) -> None:
    student, batch = tiny_network(projection=False).eval(), labeled_batch()
    ohem = OhemCrossEntropy(0.3, min_kept=3)
    assert Supervised(supervised_loss=ohem)(student, batch, 0.0)["supervised"] == ohem(
        student(batch.image).logits, batch.label
    )


def test_labels_of_the_first_images_need_their_part_of_the_output() -> None:
    logits, label = torch.randn(3, 4, 2, 2), torch.randint(0, 4, (1, 2, 2))
    losses = supervised_losses(SegmentationOutput(logits, logits, auxiliary=logits + 1)[:1], label, cross_entropy)
    assert losses["supervised"] == cross_entropy(logits[:1], label)
    assert losses["auxiliary"] == cross_entropy(logits[:1] + 1, label)


def test_what_every_method_answers(tiny_network: Network) -> None:
    student, method = tiny_network(), Supervised()
    assert not method.semi_supervised
    assert method.candidates(student) == {"student": student}
    method.after_step(student)
    method.load_state_dict(method.state_dict())
    with pytest.raises(TypeError, match="Method does not define a step"):
        Method()(student, labeled_batch(), 0.0)


def test_a_step_lowers_the_loss(tiny_network: Network) -> None:
    student, batch, method = tiny_network(projection=False), labeled_batch(), Supervised()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    values: list[Tensor] = []
    for step in range(5):
        loss = method(student, batch, step / 5)["supervised"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.detach())
    assert values[-1] < values[0]
