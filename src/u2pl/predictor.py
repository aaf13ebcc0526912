"""A run folder -> masks for images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from u2pl.build import build_network
from u2pl.config import Config
from u2pl.data.classes import Palette
from u2pl.data.pascal_voc import voc_palette
from u2pl.engine.checkpoint import load_weights, read_description
from u2pl.errors import InputError


@dataclass(frozen=True)
class Prediction:
    """What the network says of one image, at the image's own size."""

    mask: Tensor  #: (H, W) uint8, class index
    probability: Tensor  #: (C, H, W) float32
    entropy: Tensor  #: (H, W) float32, nats


class Predictor:
    """Segments images with a trained network.

    Args:
        network: trained, returns a :class:`~u2pl.structures.SegmentationOutput`.
        classes: names. palette: RGB per class; empty for the colours of PASCAL VOC.
        lookup: raw value of a mask -> class, for masks kept as the training data had them.
        scale: images are resized by this factor before the network sees them, as in training.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        classes: tuple[str, ...],
        palette: Palette = (),
        scale: float = 1.0,
        lookup: tuple[int, ...] | None = None,
    ) -> None:
        self.network = network.eval()
        self.classes = classes
        self.palette = palette or voc_palette(len(classes))
        self.scale = scale
        self.lookup = lookup

    @classmethod
    def from_run(cls, run: Path | str, *, weights: str = "last", device: str | torch.device = "cpu") -> Predictor:
        """The network of a run folder; ``weights`` is ``last`` (end of training) or ``best`` (on validation).

        Raises InputError when the folder holds no such weights.
        """
        if weights not in ("last", "best"):
            raise InputError(f"--weights {weights}: should be last or best")
        path = Path(run) / f"{weights}.safetensors"
        if not path.exists():
            raise InputError(f"{path} is missing; give a run folder made by `u2pl train` that has saved its weights")
        description = read_description(path)
        try:
            network = network_of(description)
            load_weights(path, network)
        except Exception as error:
            raise InputError(f"{path} does not fit the network it describes; train again") from error
        return cls(
            network.to(device),
            classes=tuple(description["classes"]),
            palette=tuple((int(r), int(g), int(b)) for r, g, b in description["palette"]),
            scale=description["scale"],
            lookup=tuple(description["lookup"]) if description.get("lookup") else None,
        )

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Prediction:
        """Segment one (3, H, W) uint8 RGB image."""
        device = next(self.network.parameters()).device
        pixels = image.to(device).float().div(255).unsqueeze(0)
        if self.scale != 1.0:
            size = [max(1, round(side * self.scale)) for side in image.shape[-2:]]
            pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
        logits = self.network(pixels).logits.float()
        if logits.shape[-2:] != image.shape[-2:]:
            logits = F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)
        log_probability = logits[0].log_softmax(dim=0)
        probability = log_probability.exp()
        return Prediction(
            mask=probability.argmax(dim=0).to(torch.uint8).cpu(),
            probability=probability.cpu(),
            entropy=-(probability * log_probability).sum(dim=0).cpu(),
        )


def network_of(description: dict[str, Any]) -> nn.Module:
    """Build the network a weights file describes, without its weights."""
    config = Config.model_validate(
        {"network": description["network"], "method": {"name": description["method"]}}, strict=False
    )
    return build_network(config, len(description["classes"]))
