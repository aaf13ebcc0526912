"""The numbers of photometric jitter: their distribution is that of torchvision's transforms."""

import pytest
import torch
from torchvision.transforms import v2

from u2pl.data.photometric import Photometric

COUNT = 20_000


def drawn(**options):
    torch.manual_seed(0)
    return Photometric(**options).draw(COUNT)


def order_of(blends, hue):
    """The order of brightness (0), contrast (1), saturation (2) and hue (3) in one row of numbers."""
    order = []
    for step, (factor, mean, pixel) in enumerate(blends.tolist()):
        if step == 3 and hue:
            order.append(3)
        if factor != 1:
            order.append(1 if mean else 2 if pixel else 0)
    return order


def test_each_order_is_as_likely_as_any_other():
    jitter = drawn(jitter_probability=1)
    rows = zip(jitter.blends, jitter.hue.tolist(), strict=True)
    orders = [tuple(order_of(blends, hue)) for blends, hue in rows]
    counts = {order: orders.count(order) for order in set(orders)}
    assert all(sorted(order) == [0, 1, 2, 3] for order in counts)
    assert len(counts) == 24
    assert all(abs(count - COUNT / 24) < 5 * (COUNT / 24) ** 0.5 for count in counts.values())


def test_factors_lie_where_torchvision_draws_them():
    jitter = drawn(jitter_probability=1, jitter=(0.5, 0.25, 2.0, 0.1))
    reference = v2.ColorJitter(0.5, 0.25, 2.0, 0.1)
    blends = jitter.blends.flatten(0, 1)
    found = {
        "brightness": blends[(blends[:, 1] == 0) & (blends[:, 2] == 0) & (blends[:, 0] != 1), 0],
        "contrast": blends[blends[:, 1] == 1, 0],
        "saturation": blends[blends[:, 2] == 1, 0],
        "hue": jitter.hue,
    }
    for name, values in found.items():
        low, high = getattr(reference, name)
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.02 * (high - low))
        assert len(values) == COUNT


def test_probabilities():
    jitter = drawn()
    changed = (jitter.blends[..., 0] != 1).any(dim=1)
    assert torch.equal(changed, jitter.hue != 0)
    assert changed.float().mean() == pytest.approx(0.8, abs=0.02)
    assert jitter.gray.unique().tolist() == [0, 1]
    assert jitter.gray.mean() == pytest.approx(0.2, abs=0.02)
    blurred = jitter.kernel[:, 4] != 1
    assert blurred.float().mean() == pytest.approx(0.5, abs=0.03)  # the smallest sigma changes nothing
    together = changed & (jitter.gray == 1) & blurred
    assert together.float().mean() == pytest.approx(0.8 * 0.2 * 0.5, abs=0.01)


def test_kernels_are_gaussian():
    kernel = drawn(blur_probability=1, blur_sigma=(0.5, 2.0), blur_kernel=5).kernel.double()
    assert kernel.shape == (COUNT, 5)
    sigma = (-0.5 / (kernel[:, 3] / kernel[:, 2]).log()).sqrt()
    assert 0.5 <= sigma.min() + 1e-3 < 0.52
    assert 1.98 < sigma.max() < 2.001
    expected = torch.stack([torch.exp(-0.5 * (torch.arange(-2, 3) / one) ** 2) for one in sigma[:50]])
    torch.testing.assert_close(kernel[:50], expected / expected.sum(1, keepdim=True), atol=1e-5, rtol=1e-4)


def test_nothing_changes_where_nothing_is_asked_for():
    jitter = Photometric(jitter_probability=0, gray_probability=0, blur_probability=0).draw(5)
    assert (jitter.blends[..., 0] == 1).all()
    assert not jitter.hue.any()
    assert not jitter.gray.any()
    assert (jitter.kernel[:, 4] == 1).all()


def test_as_many_random_numbers_for_any_result():
    states = []
    for options in ({}, {"jitter_probability": 0.0, "blur_probability": 0.0}):
        torch.manual_seed(0)
        Photometric(**options).draw(3)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="odd"):
        Photometric(blur_kernel=8)
