"""The classes of a very large image, window by window, in memory that does not grow with its height."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from u2pl.engine.evaluate import labels_and_confidence, sure_labels
from u2pl.engine.inference import Segment, window_starts


@torch.no_grad()
def labels_by_strips(
    image: Tensor,
    segment: Segment,
    *,
    device: torch.device,
    window: int,
    overlap: float,
    shift: Tensor | None = None,
    min_confidence: float = 0.0,
    confidence: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """(H, W) uint8, the most likely class of each pixel, as through :class:`~u2pl.engine.inference.Sliding`.

    At a time, probabilities exist for the rows of one window only.

    Args:
        image: (3, H, W) uint8 RGB, which stays where it is.
        segment: images (1, 3, h, w) float32 in [0, 1] on ``device`` -> probabilities (1, C, h, w).
        window, overlap: see :func:`u2pl.engine.inference.window_starts`.
        shift: (C,) added to the logarithms of the averaged probabilities; None: nothing.
        min_confidence: see :func:`u2pl.engine.evaluate.sure_labels`.
        confidence: return (2, H, W) uint8, see :func:`u2pl.engine.evaluate.labels_and_confidence`.
        progress: called with (windows done, windows in total).
    """
    height, width = image.shape[-2:]
    h, w = min(height, window), min(width, window)
    rows, columns = (window_starts(side, window=window, overlap=overlap) for side in (height, width))
    labels = torch.empty(2 if confidence else 1, height, width, dtype=torch.uint8)
    read = partial(labels_and_confidence if confidence else sure_labels, min_confidence=min_confidence)
    total: Tensor | None = None  # (C, h, W) sums of probabilities of the rows from `top` on
    cover = torch.zeros(h, width, device=device)
    for number, top in enumerate(rows):
        for place, left in enumerate(columns):
            part = image[:, top : top + h, left : left + w].to(device).float().div(255)
            probability = segment(part.unsqueeze(0))[0]
            if total is None:
                total = probability.new_zeros(len(probability), h, width, dtype=torch.float32)
            total[:, :, left : left + w] += probability
            cover[:, left : left + w] += 1
            if progress is not None:
                progress(number * len(columns) + place + 1, len(rows) * len(columns))
        assert total is not None
        below = rows[number + 1] if number + 1 < len(rows) else height
        done = below - top  # no later window covers these rows
        scores = total[:, :done]
        if shift is not None or min_confidence > 0 or confidence:
            scores = _log_probability(scores, cover[:done], shift)
        labels[:, top:below] = read(scores[None])[0].to(torch.uint8).cpu()
        total, cover = (_moved_up(rest, done) for rest in (total, cover))
    return labels if confidence else labels[0]


def _log_probability(total: Tensor, cover: Tensor, shift: Tensor | None) -> Tensor:
    """(C, h, W) sums over windows -> logarithms of probabilities, with the shift."""
    logs = (total / cover).clamp(min=torch.finfo(total.dtype).tiny).log()
    return logs if shift is None else logs + shift[:, None, None]


def _moved_up(rows: Tensor, by: int) -> Tensor:
    """(..., h, W) without its first rows, and with zeros below."""
    return torch.cat([rows[..., by:, :], torch.zeros_like(rows[..., :by, :])], dim=-2)
