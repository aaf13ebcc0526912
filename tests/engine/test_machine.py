"""What a device is set to when it is chosen."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from u2pl.engine import machine
from u2pl.engine.machine import make_fabric


@pytest.fixture
def precise() -> Iterator[None]:
    """Products in float32, as torch begins; again at the end."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.usefixtures("precise")
@pytest.mark.parametrize(("device", "fast"), [("cuda", True), ("cpu", False)])
def test_tf32_is_for_gpus(monkeypatch: pytest.MonkeyPatch, device: str, fast: bool) -> None:
    made: dict[str, Any] = {}

    def fabric(**options: Any) -> Any:
        made.update(options)
        return SimpleNamespace(device=torch.device(device))

    monkeypatch.setattr(machine, "Fabric", fabric)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: device == "cuda")
    assert make_fabric(accelerator=device, devices=1, nodes=1, precision="fp32").device.type == device
    assert made["precision"] == "32-true"
    assert torch.get_float32_matmul_precision() == ("high" if fast else "highest")
    assert torch.backends.cudnn.allow_tf32 is fast
