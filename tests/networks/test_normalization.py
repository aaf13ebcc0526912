import pytest
import torch
from torch import nn

from u2pl.networks.normalization import Normalize, PooledBatchNorm2d


def test_normalize_subtracts_the_mean_and_divides_by_the_deviation() -> None:
    image = torch.rand(2, 3, 4, 5)
    output = Normalize(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))(image)
    for channel, (mean, std) in enumerate(((0.1, 0.5), (0.2, 0.25), (0.3, 2.0))):
        torch.testing.assert_close(output[:, channel], (image[:, channel] - mean) / std)


def test_normalize_is_saved_with_the_network() -> None:
    saved = Normalize(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0)).state_dict()
    other = Normalize()
    other.load_state_dict(saved)
    assert other.mean.flatten().tolist() == pytest.approx((0.1, 0.2, 0.3))
    assert other.std.flatten().tolist() == pytest.approx((0.5, 0.25, 2.0))


def test_pooled_batch_norm_uses_running_statistics_for_a_single_value() -> None:
    norm = PooledBatchNorm2d(3)
    norm.running_mean.copy_(torch.tensor((1.0, 2.0, 3.0)))
    norm.running_var.copy_(torch.tensor((4.0, 4.0, 4.0)))
    x = torch.tensor((3.0, 2.0, 1.0)).view(1, 3, 1, 1)
    output = norm.train()(x)
    torch.testing.assert_close(output.flatten(), torch.tensor((1.0, 0.0, -1.0)), atol=1e-4, rtol=0)
    assert norm.running_mean.tolist() == [1.0, 2.0, 3.0]  # one image says nothing about the variance


def test_pooled_batch_norm_is_plain_batch_norm_otherwise() -> None:
    ours, plain = PooledBatchNorm2d(3), nn.BatchNorm2d(3)
    x = torch.randn(4, 3, 1, 1)
    torch.testing.assert_close(ours(x), plain(x))
    torch.testing.assert_close(ours.running_var, plain.running_var)


def test_adopt_changes_every_batch_norm_and_no_tensor() -> None:
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    x = torch.rand(1, 3, 8, 8)
    with pytest.raises(ValueError, match="more than 1 value"):
        module.train()(x)
    PooledBatchNorm2d.adopt(module)
    assert module.train()(x).shape == (1, 4, 1, 1)
    assert before.keys() == module.state_dict().keys()
