"""Files of weights of small networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from u2pl.build.trained import network_of
from u2pl.engine.checkpoint import save_weights

NETWORKS: dict[str, dict[str, Any]] = {
    "deeplab": {"encoder": "resnet18", "channels": 8, "low_level_channels": 8, "embedding_dim": 6},
    "fpn": {"name": "smp", "architecture": "FPN", "encoder": "mobilenet_v2", "channels": 32},
}


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``weights("fpn", scale=0.5, evaluation={...})``: a network whose classes differ, with three classes."""
    folder = tmp_path_factory.mktemp("weights")

    def write(network: str = "deeplab", *, scale: float = 1.0, evaluation: dict[str, Any] | None = None) -> Path:
        description = {
            "classes": ["sky", "road", "car"],
            "palette": [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
            "scale": scale,
            "method": "u2pl" if network == "deeplab" else "supervised",
            "network": NETWORKS[network],
            "evaluation": evaluation or {},
        }
        torch.manual_seed(0)
        model = network_of(description)
        last = [part for part in model.modules() if isinstance(part, nn.Conv2d) and part.out_channels == 3][-1]
        nn.init.normal_(last.weight, std=30.0)
        path = folder / f"{len(list(folder.iterdir()))}.safetensors"
        save_weights(path, model, description)
        return path

    return write
