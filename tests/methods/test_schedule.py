import pytest

from u2pl.methods import Schedule


def test_the_weight_of_the_unsupervised_loss_grows_over_the_ramp() -> None:
    schedule = Schedule(warmup=0.2, ramp=0.4)
    assert [schedule.ramped(progress) for progress in (0.2, 0.3, 0.6, 0.9)] == pytest.approx([0, 0.25, 1, 1])
    assert Schedule().ramped(0.0) == 1


def test_the_warm_up_ends_where_unlabeled_images_begin() -> None:
    schedule = Schedule(warmup=0.2)
    assert [schedule.is_warmup(progress) for progress in (0.0, 0.19, 0.2, 0.9)] == [True, True, False, False]
    assert not Schedule().is_warmup(0.0)
