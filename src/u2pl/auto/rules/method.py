"""What suits the labels: when the teacher begins, what is mixed and weighed, ranks."""

from __future__ import annotations

import math

from u2pl.auto.choices import Choice
from u2pl.auto.facts import Facts
from u2pl.auto.rules.reading import has_teacher, is_pretrained, kind_of, shows_scenes, steps_of
from u2pl.build import default_ranks, uses_image_prior, uses_ranks, uses_tags
from u2pl.config.fields import AUTO
from u2pl.config.schema import Config

FEW_LABELS, FEW_PER_CLASS = 100, 20  # up to, or below: as the 46 labels of CamVid
WARMUP_FEW, WARMUP, WARMUP_TRANSFORMER = 0.4, 0.25, 0.1  # few labels take longer, pretrained transformers learn fast
RAMP = 0.2  # as in every preset for few labels
SHOWN_APART, SHARPNESS = 2.0, 8.0  # VOC animals show 1.2 each
SURE = 0.95  # FixMatch's; VOC animals with 218 labels, in short runs
WARMUP_PRIOR, RAMP_PRIOR = 0.1, 0.1  # with a prior, pseudo-labels are good before the student is: VOC animals
HORIZON, EMA_DECAY = 0.15, (0.95, 0.999)  # share of the teacher's steps it remembers; bounds


def image_prior(config: Config, facts: Facts) -> Choice:
    """Where an image shows few of many classes, a pretrained encoder tells which from images that are alike."""
    pretrained = is_pretrained(config)
    apart = 0 < facts.uncommon <= SHOWN_APART and not shows_scenes(facts)
    reason = f"an image shows {facts.shown:.1f} classes, {facts.uncommon:.1f} beside those that most show"
    if not pretrained:
        reason = "an encoder from scratch does not know which images are alike"
    values = {"image_prior": SHARPNESS if pretrained and apart else 0.0}
    return Choice("method", values, reason, used=config.method.name in ("mean_teacher", "u2pl"))


def belief(config: Config, facts: Facts) -> Choice:
    """Which pseudo-labels to believe, and how much they weigh: as U2PL or, with a pretrained encoder, as FixMatch.

    With a prior of images, U2PL's own were ahead by 1.2 at 218 labels of VOC animals, and 0.5 behind at 109.
    """
    told, scenes = uses_image_prior(config), shows_scenes(facts)
    sure = is_pretrained(config) and not (told or scenes or config.data.name == "domain" or uses_tags(config.method))
    enough = sure and facts.labeled > FEW_LABELS
    reason = f"{facts.labeled} labels are {'enough' if enough else 'few'} for a teacher to know what it is sure of"
    if not sure:
        reason = f"the paper's, {'with a prior of images' if told else 'as for scenes, domains, tags and from scratch'}"
    values = {"min_confidence": 0.0, "unsupervised_weighting": "lambda_u"}
    if enough:
        values = {"min_confidence": SURE, "unsupervised_weighting": "reliable_share"}
    return Choice("method", values, reason, used=has_teacher(config))


def schedule(config: Config, facts: Facts) -> Choice:
    """When the teacher begins."""
    few = facts.labeled <= FEW_LABELS or facts.labeled < FEW_PER_CLASS * facts.classes
    reason = f"{facts.labeled} labels for {facts.classes} classes are {'few' if few else 'not few'}"
    warmup = WARMUP_FEW if few else WARMUP
    if kind_of(config) != "cnn" and is_pretrained(config):
        warmup = WARMUP_TRANSFORMER
        reason += ", but the encoder is a pretrained transformer"
    longest = RAMP
    if config.method.unsupervised_weighting == "reliable_share":
        warmup, longest = 0.0, 0.0
        reason = "a teacher that is sure of little teaches little"
    elif uses_image_prior(config):
        warmup, longest = WARMUP_PRIOR, RAMP_PRIOR
        reason += ", but images that are alike help"
    ramp = round(min(longest, 1 - (warmup if config.method.warmup == AUTO else config.method.warmup)), 4)
    return Choice("method", {"warmup": warmup, "ramp": ramp}, reason, used=has_teacher(config))


def views(config: Config, facts: Facts) -> Choice:
    """Few labels, and those of another domain, are pasted onto images without; tags cannot be pasted.

    Where an image shows two classes, one of them is a background, which would cover most of the other image.
    """
    across, tags = config.data.name == "domain", uses_tags(config.method)
    few = facts.labeled <= FEW_LABELS
    reason = f"{facts.labeled} labels are {'few' if few else 'enough'}"
    if is_pretrained(config) and not shows_scenes(facts):
        few, reason = False, f"an image shows {facts.shown:.1f} classes, which would cover what they are pasted onto"
    if across:
        reason = "labels are of another domain"
    values = {"mixing": "cutmix", "jitter": "unlabeled"}
    if tags:
        reason = "tags cannot be pasted"
    elif few or across:
        reason += ": pasted onto images without any, they stay true"
        values = {"mixing": "cross_domain", "jitter": "mixed"}
    return Choice("method", values, reason, used=config.method.name != "supervised")


def labels(config: Config, facts: Facts) -> Choice:
    """Whether labels of rare classes weigh more."""
    tags = uses_tags(config.method)
    reason = "seeds are not labels" if tags else "rare classes are otherwise lost"
    return Choice("method", {"loss": "cross_entropy" if tags else "balanced"}, reason)


def pseudo_labels(config: Config, facts: Facts) -> Choice:
    """Whether pseudo-labels of rare classes weigh more."""
    scenes = shows_scenes(facts) and config.data.name != "domain"  # across domains it was not measured
    values, reason = {"unsupervised_loss": "cross_entropy"}, "with a pretrained encoder it helped in scenes alone"
    if uses_tags(config.method):
        reason = "as for labels"
    elif config.method.symmetric > 0:
        reason = "method.symmetric is set"
    elif scenes or not is_pretrained(config):
        where = "in scenes" if scenes else "from scratch"
        values, reason = {"unsupervised_loss": "balanced"}, f"{where}, rare classes are otherwise lost"
    return Choice("method", values, reason, used=has_teacher(config))


def teacher(config: Config, facts: Facts) -> Choice:
    """An average that has forgotten what is no longer true of its student."""
    steps = (1 - config.method.warmup) * steps_of(config, facts)
    least, most = EMA_DECAY
    decay = max(least, min(1 - 1 / max(1.0, HORIZON * steps), most))
    decay = math.floor(1000 * decay + 1e-6) / 1000
    reason = f"an average over about {1 / (1 - decay):.0f} steps, of {steps:.0f} with a teacher"
    return Choice("method", {"ema_decay": decay}, reason, used=has_teacher(config))


def ranks(config: Config, facts: Facts) -> Choice:
    """Those of the contrast for so many classes."""
    low, high = default_ranks(facts.classes)
    values = {"low_rank": low, "high_rank": high}
    return Choice("method", values, f"{facts.classes} classes", used=uses_ranks(config.method))
