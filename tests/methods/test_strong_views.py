"""What strong views change beyond mixing, which is tested in the steps of the methods."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from assemble import look, mean_teacher, with_teacher
from test_cross_domain import domains
from torch import Tensor, nn

from u2pl.methods import FixMatch, StrongViews
from u2pl.methods.strong_views import jittered
from u2pl.pixels import CrossDomainClassMix

Network = Callable[..., nn.Module]
C, SIZE = 4, 8


def test_mixed_images_are_jittered_and_nothing_else(tiny_network: Network) -> None:
    """Pasted pixels with them; labeled images and the teacher's weak view stay as they are."""
    student, batch = tiny_network(1).eval(), domains(2, 3, 1)
    seen: list[Tensor] = []

    def jitter(image: Tensor) -> Tensor:
        seen.append(image)
        return image + len(seen)

    results = []
    for chosen in (None, jitter):
        method = with_teacher(mean_teacher(student, mixing=CrossDomainClassMix(C), jitter=chosen), tiny_network(51))
        torch.manual_seed(3)
        results.append(look(method, batch, 0.2))
    bare, changed = results
    assert [image.shape for image in seen] == [(3, SIZE, SIZE)] * 3
    shift = torch.tensor([0.0, 0, 1, 2, 3]).view(-1, 1, 1, 1)
    assert torch.equal(changed.images, bare.images + shift)
    assert torch.equal(torch.stack(seen), bare.images[2:])
    assert torch.equal(changed.mixed.pseudo.label, bare.mixed.pseudo.label)
    assert torch.equal(changed.teacher.logits, bare.teacher.logits)

    fixmatch = FixMatch(mix=StrongViews(CrossDomainClassMix(C), jitter=jitter))
    images = fixmatch.mix(batch, bare.pseudo).image
    assert [image.shape for image in seen] == [(3, SIZE, SIZE)] * 6
    assert torch.equal(images, torch.stack(seen[3:]) + torch.tensor([4.0, 5, 6]).view(-1, 1, 1, 1))


def test_jitter_is_not_rounded() -> None:
    def blur(image: Tensor) -> Tensor:
        return F.conv2d(image, torch.full((3, 1, 3, 3), 1 / 9), padding=1, groups=3)

    images = torch.rand(2, 3, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert blur(images[0]).dtype == torch.bfloat16
        found = jittered(images, blur)
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.stack([blur(image) for image in images]))
    assert jittered(images, None) is images
