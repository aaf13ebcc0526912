"""What strong views change beyond mixing, which is tested in the steps of the methods."""

from collections.abc import Callable

import torch
from assemble import look, mean_teacher, with_teacher
from test_cross_domain import domains
from torch import nn

from u2pl.data.photometric import Photometric
from u2pl.methods import FixMatch, StrongViews
from u2pl.pixels import CrossDomainClassMix
from u2pl.pixels.jitter import jittered
from u2pl.structures import Jitter

Network = Callable[..., nn.Module]
C, SIZE = 4, 8


class Drawn:
    """Draws jitter, and keeps it."""

    def __init__(self) -> None:
        self.photometric = Photometric(gray_probability=0.5, blur_kernel=3)
        self.seen: list[Jitter] = []

    def draw(self, count: int) -> Jitter:
        with torch.random.fork_rng():
            torch.manual_seed(len(self.seen))
            self.seen.append(self.photometric.draw(count))
        return self.seen[-1]


def test_mixed_images_are_jittered_and_nothing_else(tiny_network: Network) -> None:
    """Pasted pixels with them; labeled images and the teacher's weak view stay as they are."""
    student, batch = tiny_network(1).eval(), domains(2, 3, 1)
    jitter = Drawn()
    results = []
    for chosen in (None, jitter):
        method = with_teacher(mean_teacher(student, mixing=CrossDomainClassMix(C), jitter=chosen), tiny_network(51))
        torch.manual_seed(3)
        results.append(look(method, batch, 0.2))
    bare, changed = results
    expected = jittered(bare.images[2:], jitter.seen[0])
    assert torch.equal(changed.images, torch.cat((bare.images[:2], expected)))
    assert all(not torch.equal(*pair) for pair in zip(expected, bare.images[2:], strict=True))
    assert torch.equal(changed.mixed.pseudo.label, bare.mixed.pseudo.label)
    assert torch.equal(changed.teacher.logits, bare.teacher.logits)

    fixmatch = FixMatch(mix=StrongViews(CrossDomainClassMix(C), jitter=jitter))
    torch.manual_seed(3)
    images = fixmatch.mix(batch, bare.pseudo).image
    torch.manual_seed(3)
    mixed = FixMatch(mix=StrongViews(CrossDomainClassMix(C))).mix(batch, bare.pseudo).image
    assert torch.equal(images, jittered(mixed, jitter.seen[1]))


def test_jitter_is_not_rounded() -> None:
    images = torch.rand(2, 3, 16, 16)
    jitter = Photometric(blur_probability=1).draw(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = jittered(images, jitter)
    assert found.dtype == torch.float32
    assert torch.equal(found, jittered(images, jitter))
