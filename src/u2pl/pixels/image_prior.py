"""What an image may show, by the labeled images that are like it: label propagation over whole images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK = 1024  # rows of the similarity matrix at a time
_POWER = 3  # of a similarity, as in Iscen et al.
_ROUNDS = 100  # 0.9 ** 100 is 3e-5; also of the regression
_DECAY = 1e-4  # of the weights of the regression
_COMMON = 0.5  # a class that more than this share of the labeled images show is no news
_ALONE = 0.5  # of its images, a class that speaks against others is the only one in this share
_FLOOR, _TINY = 1e-6, torch.finfo(torch.float32).tiny


def image_prior(
    features: Tensor, shown: Tensor, *, sharpness: float, neighbours: int | None = None, damping: float = 0.9
) -> Tensor:
    """(I, C) float32, at most 0: what to add to the logits of each image's pixels.

    ``sharpness`` times the logarithm of how likely an image shows a class, relative to its likeliest class. How likely
    that is comes from :func:`propagate`, over the mean of all images: a class with few labels is not thought rare for
    that. Other classes than those :func:`apart`, such as a background, are left alone: their column is 0.

    Args:
        features: (I, K) of length 1, what images show as a whole; the labeled ones come first.
        shown: (L, C) bool, the classes of the labeled images.
        neighbours, damping: see :func:`propagate`.
    """
    told = apart(shown)
    score = propagate(features, shown.float(), neighbours=neighbours, damping=damping)
    ratio = (score / score.mean(dim=0).clamp(min=_TINY)).clamp(min=_FLOOR).where(told, 0.0)
    relative = ratio / ratio.amax(dim=1, keepdim=True).clamp(min=_FLOOR)
    return (sharpness * relative.clamp(min=_FLOOR).log()).where(told, 0.0)


def softmax_regression(features: Tensor, prior: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
    """(C, K) weights and (C,) biases that tell the classes an image shows from its features: what a new image is asked.

    Cross-entropy to the softmax of the prior over the classes that are ``told`` apart, averaged over images, and a
    little weight decay; zero for all other classes.

    Args:
        features: (I, K) of length 1. prior: (I, C), see :func:`image_prior`. told: (C,) bool.
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
    """(L,) bool: labeled images of which the prior's likeliest class is right when their own label is left out.

    What :func:`propagate` gives is linear in the labels, so that all are left out in turn at once. Images that show no
    class of those :func:`apart` are not asked; they are False. Arguments are those of :func:`image_prior`.
    """
    told = apart(shown)
    influence = propagate(features, torch.eye(len(shown)), neighbours=neighbours, damping=damping)[: len(shown)]
    score = influence.fill_diagonal_(0) @ shown.float()
    ratio = (score / score.mean(dim=0).clamp(min=_TINY)).where(told, -1.0)
    return (shown & told).gather(1, ratio.argmax(dim=1, keepdim=True)).squeeze(1)


def uncommon(shown: Tensor) -> Tensor:
    """(C,) bool: classes that some, but at most half, of the labeled images show; of (L, C) bool."""
    share = shown.float().mean(dim=0)
    return (share > 0) & (share <= _COMMON)


def apart(shown: Tensor) -> Tensor:
    """(C,) bool: the :func:`uncommon` classes that, as a rule, no other of them is seen with; of (L, C) bool.

    One that is in an image speaks against the others. It does not where a class, a person for example, mostly comes
    with one of the others: the class that is seen alone least is dropped until all are in half of their images.
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
    """(I, C) float32: labels of the first L images, spread over a graph of all I images that are alike.

    Label propagation (Zhou et al. 2004), over features as Iscen et al. (2019, arXiv 1904.04717): a graph of the cubed
    cosine similarities of each image to its ``neighbours``, symmetric and normalised by degrees, over which
    ``Z <- damping W Z + (1 - damping) Y`` converges.

    Args:
        features: (I, K) of length 1, I >= 2. labels: (L, C) float, L <= I.
        neighbours: of each image; None for one in fifty images, from 5 to 20.
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

    W holds the similarities of each image to its N neighbours; entries at the same place add up.
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
