"""Checks before a training that the shared memory of the machine decides."""

from __future__ import annotations

import pytest

from u2pl.commands.checks import with_fitting_workers
from u2pl.config.overrides import load_config
from u2pl.data.inspection import inspect
from u2pl.data.scenes.reader import scenes

MIB = 2**20


@pytest.mark.parametrize(("free", "workers"), [(None, 4), (1024 * MIB, 4), (5 * MIB, 2), (1 * MIB, 0)])
def test_loader_processes_fit_the_shared_memory(
    monkeypatch: pytest.MonkeyPatch, free: int | None, workers: int
) -> None:
    monkeypatch.setattr("u2pl.data.loading.free_shared_memory", lambda: free)
    config = load_config("scenes", ["data.workers=4", "train.batch_size=4", "train.crop_size=128"])
    inspection = inspect(scenes(train=4, labeled=2, val=2, seed=0), semi_supervised=True)
    told: list[str] = []
    assert with_fitting_workers(config, inspection, told.append).data.workers == workers
    assert len(told) == (workers < 4)
    assert all(f"data.workers: {workers} instead of 4: /dev/shm is too small" in line for line in told)
