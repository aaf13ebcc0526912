"""Rules by the labels: when the teacher begins, mixing, losses, weights and ranks."""

from __future__ import annotations

import math
from typing import Any

from u2pl.auto.choices import Choice
from u2pl.auto.facts import Facts
from u2pl.auto.rules.reading import is_pretrained, kind_of, shows_scenes, steps_of
from u2pl.build import uses_image_prior
from u2pl.config.fields import AUTO
from u2pl.config.schema import Config
from u2pl.pixels.negative_keys import default_high_rank, default_low_rank

FEW_LABELS, FEW_PER_CLASS = 100, 20  # few: up to the first, or below the second; as the 46 labels of CamVid
WARMUP_FEW, WARMUP, WARMUP_TRANSFORMER = 0.4, 0.25, 0.1  # few labels need longer, pretrained transformers learn fast
RAMP = 0.2  # as in every preset for few labels
SHOWN_APART, SHARPNESS = 2.0, 8.0  # images of VOC animals show 1.2 uncommon classes
BELIEF = ("method.reliability.min_confidence", "method.weighting.name")
PAPER = 0.0, "lambda_u"  # of U2PL
SURE = 0.95  # FixMatch's value
THRESHOLD = SURE, "reliable_share"  # of FixMatch
RIGHT = 0.9  # share of sure pixels that must be right for a threshold: chosen, not measured
LEAST_LABELS = 4  # fewer, divided, say nothing
WARMUP_SURE = 0.1  # long enough to compare with
WARMUP_AGAIN = 0.05  # of a network that goes on
WARMUP_EARLY, RAMP_EARLY = (
    0.1,
    0.1,
)  # where pseudo-labels are good early: CamVid 54.7 instead of 53.9, IDD-Lite the same
EMA_DECAY_UNIMATCH = 0.996
HORIZON, EMA_DECAY = 0.15, (0.95, 0.999)  # share of the teacher's steps in its average; bounds of the decay


def image_prior(config: Config, facts: Facts) -> Choice:
    """If an image shows few of many classes, a pretrained encoder can predict them from similar images."""
    pretrained = is_pretrained(config)
    apart = 0 < facts.uncommon <= SHOWN_APART and not shows_scenes(facts)
    because = f"an image shows {facts.shown:.1f} classes, {facts.uncommon:.1f} of them uncommon"
    if not pretrained:
        because = "an encoder from scratch cannot tell which images are alike"
    values = {"method.image_prior.sharpness": SHARPNESS if pretrained and apart else 0.0}
    kind = config.method.kind
    return Choice(values, because, used=kind.semi_supervised and not kind.uses_tags)


def belief(config: Config, facts: Facts) -> Choice:
    """Which pseudo-labels are reliable, and their weight: by how often a teacher of these labels is right.

    Pretrained vision transformers get the threshold at once: on VOC with 183 labels UniMatch V2 has 85.9 without, 87.9
    with one (arXiv 2410.10777).

    A teacher that is right where it is sure gets FixMatch's threshold and weight, any other those of U2PL. Scenes,
    other domains and tags keep U2PL's, too, which end with all pixels.
    """
    things = not (shows_scenes(facts) or config.data.name == "domain" or config.method.kind.uses_tags)
    choosable = _partitions(config) and all(config.value(key) == AUTO for key in BELIEF)
    if not (things and choosable and facts.labeled >= LEAST_LABELS):
        because = "the paper's choice, as nothing else was better here"
        return Choice(_belief(*PAPER), because, used=_partitions(config))
    if kind_of(config) == "vit" and is_pretrained(config):
        return Choice(_belief(*THRESHOLD), "believing every pixel costs a pretrained transformer 1 to 5")
    if facts.precision is None:
        return Choice(_belief(*PAPER), "to be measured on held-out labels before training", to_measure=True)
    right, share, images = facts.precision.right, facts.precision.share, facts.precision.images
    values = _belief(*THRESHOLD) if right >= RIGHT else _belief(*PAPER)
    because = f"{100 * right:.0f} % right where sure, on {images} held-out labels"
    detail = (
        f"sure of {100 * share:.0f} % of the pixels, with a probability of {SURE}; right on average over the classes; "
        f"a threshold needs {100 * RIGHT:.0f} %"
    )
    return Choice(values, because, detail=detail)


def _belief(min_confidence: float, weighting: str) -> dict[str, Any]:
    return dict(zip(BELIEF, (min_confidence, weighting), strict=True))


def threshold(config: Config, facts: Facts) -> Choice:
    """UniMatch's and UniMatch V2's values: strict for things, which one confuses; none for streets."""
    scenes = shows_scenes(facts)
    because = f"an image shows {facts.shown:.1f} classes: {'scenes need no threshold' if scenes else 'things need one'}"
    return Choice({"method.threshold": 0.0 if scenes else SURE}, because, used=config.method.kind.has_threshold)


def schedule(config: Config, facts: Facts) -> Choice:
    """When the teacher begins."""
    few = facts.labeled <= FEW_LABELS or facts.labeled < FEW_PER_CLASS * facts.classes
    because = f"{facts.labeled} labels for {facts.classes} classes are {'few' if few else 'not few'}"
    warmup, longest = WARMUP_FEW if few else WARMUP, RAMP
    if kind_of(config) != "cnn" and is_pretrained(config):
        warmup = WARMUP_TRANSFORMER
        because = "the encoder is a pretrained transformer, which learns fast"
    if config.method.weighting.name == "reliable_share":
        warmup, longest = WARMUP_SURE, 0.0
        because = "a teacher that is sure of little teaches little"
    elif uses_image_prior(config):
        warmup, longest = WARMUP_EARLY, RAMP_EARLY
        because = "the image prior makes pseudo-labels good early"
    elif _is_early(config, facts):
        warmup, longest = WARMUP_EARLY, RAMP_EARLY
        because = "scenes and a pretrained encoder: pseudo-labels are good early"
    if config.network.start_from is not None:
        warmup = min(warmup, WARMUP_AGAIN)
        because = "the network has learned from labels before"
    set_warmup = config.method.schedule.warmup
    ramp = round(min(longest, 1 - (warmup if set_warmup == AUTO else set_warmup)), 4)
    values = {"method.schedule.warmup": warmup, "method.schedule.ramp": ramp}
    return Choice(values, because, used=_partitions(config))


def _is_early(config: Config, facts: Facts) -> bool:
    """Whether a teacher of these labels soon draws good masks: of scenes of one domain, with a pretrained encoder."""
    one_domain = config.data.name != "domain" and not config.method.kind.uses_tags
    return one_domain and kind_of(config) == "cnn" and is_pretrained(config) and shows_scenes(facts)


def views(config: Config, facts: Facts) -> Choice:
    """Few labels, and labels of another domain, are pasted onto unlabeled images. Tags cannot be pasted.

    If an image shows two classes, one of them is a background. Pasted, it would cover most of the other image.
    """
    across, few = config.data.name == "domain", facts.labeled <= FEW_LABELS
    because = f"{facts.labeled} labels are {'few' if few else 'enough'}"
    if is_pretrained(config) and not shows_scenes(facts):
        few, because = False, f"of {facts.shown:.1f} classes an image, one would cover the other image"
    if across:
        because = "labels are of another domain"
    values = {"method.mixing.name": "cutmix", "method.strong_views.jitter": "unlabeled"}
    if config.method.kind.uses_tags:
        because = "tags cannot be pasted"
    elif few or across:
        because += ": pasted onto other images, they stay true"
        values = {"method.mixing.name": "cross_domain", "method.strong_views.jitter": "mixed"}
    return Choice(values, because, used=config.method.name != "supervised")


def labels(config: Config, facts: Facts) -> Choice:
    """Whether labels of rare classes weigh more."""
    if config.method.kind.uses_tags:
        return Choice({"method.supervised_loss.name": "cross_entropy"}, "seeds are not labels")
    return Choice({"method.supervised_loss.name": "balanced"}, "else the network rarely predicts rare classes")


def pseudo_labels(config: Config, facts: Facts) -> Choice:
    """Whether pseudo-labels of rare classes weigh more."""
    scenes = shows_scenes(facts) and config.data.name != "domain"  # across domains it was not measured
    name, because = "cross_entropy", "with a pretrained encoder, balancing helped in scenes alone"
    if config.method.kind.uses_tags:
        because = "seeds are not labels"
    elif scenes or not is_pretrained(config):
        name, because = "balanced", "else the network rarely predicts rare classes"
    return Choice({"method.unsupervised_loss.name": name}, because, used=config.method.kind.semi_supervised)


def teacher(config: Config, facts: Facts) -> Choice:
    """An average that is short enough to forget outdated weights of its student."""
    steps = (1 - config.method.schedule.warmup) * steps_of(config, facts)
    least, most = EMA_DECAY
    decay = max(least, min(1 - 1 / max(1.0, HORIZON * steps), most))
    decay = math.floor(1000 * decay + 1e-6) / 1000
    remembered = min(steps, 1 / (1 - decay))
    because = f"averages about {remembered:.0f} of {steps:.0f} steps with a teacher"
    if config.method.kind.has_threshold or (kind_of(config) == "vit" and is_pretrained(config)):
        decay, because = EMA_DECAY_UNIMATCH, "UniMatch V2's value"
    return Choice({"method.teacher.ema_decay": decay}, because, used=config.method.kind.has_teacher)


def ranks(config: Config, facts: Facts) -> Choice:
    """Ranks of the negative classes, by the number of classes."""
    values = {
        "method.negative_keys.low_rank": default_low_rank(facts.classes),
        "method.negative_keys.high_rank": default_high_rank(facts.classes),
    }
    return Choice(values, f"there are {facts.classes} classes", used=config.method.uses_negative_keys)


def _partitions(config: Config) -> bool:
    """Whether a teacher's pseudo-labels are partitioned as in U2PL."""
    return config.method.kind.has_teacher and not config.method.kind.has_threshold
