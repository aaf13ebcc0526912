"""The image prior: the classes that an image may show, by label propagation from labeled images that are similar."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK = 1024  # rows of the similarity matrix at a time
_POWER = 3  # power of a similarity, as in Iscen et al.
_ROUNDS = 100  # iterations, also of the regression; 0.9 ** 100 is 3e-5
_DECAY = 1e-4  # weight decay of the regression
_COMMON = 0.5  # a class in more than this share of the labeled images is common
_ALONE = 0.5  # least share of its images in which a class is the only uncommon one
_FLOOR, _TINY = 1e-6, torch.finfo(torch.float32).tiny


def image_prior(
    features: Tensor, shown: Tensor, *, sharpness: float, neighbours: int | None = None, damping: float = 0.9
) -> Tensor:
    """(I, C) float32, at most 0: what to add to the logits of each image's pixels.

    It is ``sharpness`` times the logarithm of how likely an image shows a class, relative to its likeliest class. The
    likelihood is the score of :func:`propagate` over its mean for all images, so a class with few labels does not count
    as rare. Only the classes of :func:`apart` get a value. The column of any other class, such as a background, is 0.

    Args:
        features: (I, K) of length 1, features of whole images; the labeled images come first.
        shown: (L, C) bool, the classes that labeled images show.
        neighbours, damping: see :func:`propagate`.
    """
    told = apart(shown)
    score = propagate(features, shown.float(), neighbours=neighbours, damping=damping)
    ratio = (score / score.mean(dim=0).clamp(min=_TINY)).clamp(min=_FLOOR).where(told, 0.0)
    relative = ratio / ratio.amax(dim=1, keepdim=True).clamp(min=_FLOOR)
    return (sharpness * relative.clamp(min=_FLOOR).log()).where(told, 0.0)


def softmax_regression(features: Tensor, prior: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
    """(C, K) weights and (C,) biases of a softmax that predicts the classes of a new image from its features.

    It minimises the cross-entropy to the softmax of the prior over the classes in ``told``, averaged over images, with
    a small weight decay. Weights and biases of all other classes are zero.

    Args:
        features: (I, K) of length 1.
        prior: (I, C), see :func:`image_prior`.
        told: (C,) bool, see :func:`apart`.
    """
    target = prior[:, told].softmax(dim=1)
    weight = torch.zeros(target.shape[1], features.shape[1], requires_grad=True)
    bias = torch.zeros(target.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS((weight, bias), max_iter=_ROUNDS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(features @ weight.T + bias, target) + _DECAY * weight.square().sum()
        value.backward()
        return value

    if target.shape[1] > 1:
        optimizer.step(loss)
    whole = torch.zeros(len(told), features.shape[1]), torch.zeros(len(told))
    for all_classes, some in zip(whole, (weight, bias), strict=True):
        all_classes[told] = some.detach()
    return whole


def named(features: Tensor, shown: Tensor, *, neighbours: int | None = None, damping: float = 0.9) -> Tensor:
    """(L,) bool: whether the prior's likeliest class is right for a labeled image if its own label is left out.

    The result of :func:`propagate` is linear in the labels, so one call leaves out each label once. Images without a
    class of :func:`apart` are False. Arguments as for :func:`image_prior`.
    """
    told = apart(shown)
    influence = propagate(features, torch.eye(len(shown)), neighbours=neighbours, damping=damping)[: len(shown)]
    score = influence.fill_diagonal_(0) @ shown.float()
    ratio = (score / score.mean(dim=0).clamp(min=_TINY)).where(told, -1.0)
    return (shown & told).gather(1, ratio.argmax(dim=1, keepdim=True)).squeeze(1)


def uncommon(shown: Tensor) -> Tensor:
    """(C,) bool: the classes that at least one, but at most half, of the labeled images show; from (L, C) bool."""
    share = shown.float().mean(dim=0)
    return (share > 0) & (share <= _COMMON)


def apart(shown: Tensor) -> Tensor:
    """(C,) bool: the :func:`uncommon` classes that usually appear without any other of them; from (L, C) bool.

    If an image shows one of these classes, the others are unlikely. This fails for a class, such as a person, that
    mostly appears with one of the others. So the class that is least often the only one is dropped, until each
    remaining class is the only one in at least half of its images.
    """
    told = uncommon(shown)
    while told.any():
        seen = shown & told
        alone = (seen & (seen.sum(dim=1, keepdim=True) == 1)).sum(dim=0) / seen.sum(dim=0).clamp(min=1)
        least = alone.where(told, torch.inf).argmin()
        if alone[least] >= _ALONE:
            break
        told[least] = False
    return told


def propagate(features: Tensor, labels: Tensor, *, neighbours: int | None = None, damping: float = 0.9) -> Tensor:
    """(I, C) float32: labels of the first L images, spread over a graph that connects similar images.

    Label propagation (Zhou et al. 2004) over features, as in Iscen et al. (2019, arXiv 1904.04717). The graph connects
    each image to its ``neighbours``. Its weights are cubed cosine similarities, symmetric and normalised by degrees.
    ``Z <- damping W Z + (1 - damping) Y`` runs on it until it converges.

    Args:
        features: (I, K) of length 1, I >= 2.
        labels: (L, C) float, L <= I.
        neighbours: number per image; None: one in fifty images, from 5 to 20.
    """
    features = features.float()
    if neighbours is None:
        neighbours = min(max(len(features) // 50, 5), 20)
    rows, columns, weights = _graph(features, min(neighbours, len(features) - 1))
    start = F.pad(labels.float(), (0, 0, 0, len(features) - len(labels)))
    spread = start
    for _ in range(_ROUNDS):
        arriving = torch.zeros_like(spread).index_add_(0, rows, weights.unsqueeze(1) * spread[columns])
        spread = damping * arriving + (1 - damping) * start
    return spread


def _graph(features: Tensor, neighbours: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, columns and values, (2 I N) each, of D^-1/2 (W + W^T) D^-1/2 for features (I, K) of length 1.

    W holds the similarities of each image to its N neighbours. Entries at the same place add up.
    """
    count, values, places = len(features), [], []
    for first in range(0, count, _CHUNK):
        similarity = features[first : first + _CHUNK] @ features.T
        chunk = torch.arange(len(similarity), device=features.device)
        similarity[chunk, chunk + first] = -torch.inf  # no image is its own neighbour
        nearest = similarity.topk(neighbours, dim=1)
        values.append(nearest.values.clamp(min=0) ** _POWER)
        places.append(nearest.indices)
    one = torch.arange(count, device=features.device).repeat_interleave(neighbours)
    other, weight = torch.cat(places).flatten(), torch.cat(values).flatten().repeat(2)
    rows, columns = torch.cat((one, other)), torch.cat((other, one))
    degree = torch.zeros(count, device=features.device).index_add_(0, rows, weight)
    scale = degree.clamp(min=_TINY).rsqrt()
    return rows, columns, weight * scale[rows] * scale[columns]
