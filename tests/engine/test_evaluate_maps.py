"""Scores of class activation maps against counts pixel by pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from u2pl.engine.evaluate import Scores
from u2pl.engine.evaluate_maps import evaluate_maps
from u2pl.methods.seeding import Seeding
from u2pl.pixels.cam import PixelAdaptiveRefinement
from u2pl.structures import IGNORE_INDEX

C = 4


class Looker(nn.Module):
    """Activations of the three classes are the colours of 2 x 2 pixels."""

    multiple = 2
    corners = False

    def activate(self, image: Tensor) -> Tensor:
        assert not self.training
        return F.avg_pool2d(image, 2) - 0.2


def samples(seed: int) -> list[tuple[Tensor, Tensor]]:
    """Images of two sizes; masks without class 3, which the maps then never name."""
    torch.manual_seed(seed)
    made = []
    for height, width in ((8, 12), (10, 6)):
        mask = torch.randint(0, 3, (height, width))
        mask[torch.rand(height, width) < 0.2] = IGNORE_INDEX
        made.append((torch.randint(0, 256, (3, height, width), dtype=torch.uint8).float() / 255, mask))
    made[1][1][made[1][1] == 2] = 0
    return made


def loop(pairs: list[tuple[Tensor, Tensor]], seeding: Seeding, refine: bool) -> list[list[int]]:
    confusion = np.zeros((C, C), dtype=int)
    for image, mask in pairs:
        height, width = mask.shape
        activation = Looker().eval().activate(image[None]).clamp(min=0)
        maps = F.interpolate(activation, size=(height // 2, width // 2), mode="bilinear")[0]
        present = [k for k in range(3) if (mask == k + 1).any()]
        for k in range(3):
            maps[k] = maps[k] / maps[k].max() if k in present else 0 * maps[k]
        if refine:
            small = F.interpolate(image[None], size=maps.shape[-2:], mode="bilinear", antialias=True)
            maps = seeding.refinement(small, maps[None])[0]
            for k in present:
                maps[k] /= maps[k].max()
        maps = F.interpolate(maps[None], size=(height, width), mode="bilinear")[0]
        for y in range(height):
            for x in range(width):
                values = maps[:, y, x].tolist()
                predicted = 1 + int(np.argmax(values)) if max(values) > (seeding.high + seeding.low) / 2 else 0
                if mask[y, x] != IGNORE_INDEX:
                    confusion[int(mask[y, x]), predicted] += 1
    return confusion.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_maps_are_scored_by_pixels(seed: int) -> None:
    refinement = PixelAdaptiveRefinement(2, (1,))
    seeding = Seeding(scales=(1.0,), flip=False, stride=2, refinement=refinement, high=0.8, low=0.4)
    network: Any = Looker().train()
    fabric = Fabric(accelerator="cpu", devices=1)
    counts = evaluate_maps(fabric, network, samples(seed), C, seeding=seeding)
    as_bytes = [((255 * image).round().to(torch.uint8), mask.to(torch.uint8)) for image, mask in samples(seed)]
    again = evaluate_maps(fabric, network, as_bytes, C, seeding=seeding)
    assert all(torch.equal(counts[name], again[name]) for name in counts)
    assert network.training
    assert counts["cam"].tolist() == loop(samples(seed), seeding, refine=False)
    assert counts["refined"].tolist() == loop(samples(seed), seeding, refine=True)
    assert counts["cam"][:, 3].sum() == 0
    assert counts["cam"][:, 1:].sum() > 0


def test_stages_are_told_in_json() -> None:
    classes = ("background", "cat")
    good, bad = (
        Scores.from_confusion(torch.tensor(counts), classes) for counts in ([[1, 0], [0, 1]], [[0, 1], [1, 0]])
    )
    assert "stages" not in good.as_json()
    told = Scores(good.miou, good.iou, good.pixel_accuracy, stages={"cam": bad, "refined": good}).as_json()
    assert told["stages"] == {"cam": 0.0, "refined": 100.0, "segmentation": 100.0}
    assert {key: value for key, value in told.items() if key != "stages"} == good.as_json()
