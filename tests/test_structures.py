import math
from dataclasses import replace

import pytest
import torch

from u2pl.structures import IGNORE_INDEX, Batch, PseudoLabel


@pytest.mark.parametrize("seed", range(3))
def test_pseudo_label_from_logits(seed: int) -> None:
    logits = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(seed)) * 3
    pseudo = PseudoLabel.from_logits(logits)
    for b in range(2):
        for y in range(3):
            for x in range(5):
                weights = [math.exp(value) for value in logits[b, :, y, x].tolist()]
                p = [weight / sum(weights) for weight in weights]
                assert pseudo.label[b, y, x] == p.index(max(p))
                assert pseudo.confidence[b, y, x].item() == pytest.approx(max(p), rel=1e-5)
                expected = -sum(value * math.log(value) for value in p)
                assert pseudo.entropy[b, y, x].item() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert pseudo.valid.all()
    assert pseudo.reliable.all()
    assert not pseudo.unreliable.any()


def test_entropy_of_extreme_logits_is_finite() -> None:
    logits = torch.tensor([[1000.0, 0.0], [-1000.0, 0.0]]).view(1, 2, 1, 2)
    pseudo = PseudoLabel.from_logits(logits)
    assert pseudo.entropy.flatten().tolist() == pytest.approx([0.0, math.log(2)])
    assert pseudo.label.flatten().tolist() == [0, 0]  # the lower class wins a tie


def test_half_precision_logits_are_scored_in_single_precision() -> None:
    logits = torch.randn(1, 5, 4, 4).bfloat16()
    pseudo, exact = PseudoLabel.from_logits(logits), PseudoLabel.from_logits(logits.float())
    assert pseudo.entropy.dtype == pseudo.confidence.dtype == torch.float32
    assert torch.equal(pseudo.entropy, exact.entropy)


def test_target_ignores_what_is_not_reliable() -> None:
    valid = torch.tensor([[[True, False, True]]])
    pseudo = PseudoLabel.from_logits(torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, -1.0]]).view(1, 2, 1, 3), valid)
    assert not pseudo.unreliable.any()
    assert pseudo.target().tolist() == [[[1, IGNORE_INDEX, 0]]]
    partitioned = replace(pseudo, reliable=torch.tensor([[[False, False, True]]]))
    assert partitioned.target().tolist() == [[[IGNORE_INDEX, IGNORE_INDEX, 0]]]


def test_batch_moves_every_tensor_and_names_a_missing_view() -> None:
    image, label = torch.rand(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long)
    labeled_only = Batch(image, label)
    assert labeled_only.to("meta").label.device.type == "meta"
    assert labeled_only.to("meta").weak is None
    with pytest.raises(ValueError, match="unlabeled"):
        labeled_only.unlabeled_views()
    full = Batch(image, label, weak=image, strong=image + 1, valid=label == 0)
    moved = full.to("meta")
    assert {getattr(moved, name).device.type for name in ("image", "label", "weak", "strong", "valid")} == {"meta"}
    weak, strong = full.unlabeled_views()
    assert weak is full.weak
    assert strong == [full.strong]
    two = Batch(image, label, image, image + 1, label == 0, image + 2)
    assert two.to("meta").strong_2.device.type == "meta"
    assert two.unlabeled_views()[1] == [two.strong, two.strong_2]


def test_pseudo_labels_of_several_batches_become_one() -> None:
    parts = [PseudoLabel.from_logits(torch.randn(size, 3, 2, 2)) for size in (1, 2)]
    whole = PseudoLabel.cat(parts)
    for name in ("label", "entropy", "confidence", "valid", "reliable", "unreliable"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts])), name
