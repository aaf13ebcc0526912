"""Configuration -> objects, and nothing else."""

from u2pl.build.data import build_batches, build_diagnosis, build_rare_classes, build_source
from u2pl.build.method import (
    build_contrast,
    build_method,
    build_mixing,
    build_seeding,
    contrasts,
    default_ranks,
    ranks,
    strong_views,
    uses_ranks,
    uses_tags,
)
from u2pl.build.network import build_inference, build_network, build_optimizer, build_scheduler

__all__ = [
    "build_batches",
    "build_contrast",
    "build_diagnosis",
    "build_inference",
    "build_method",
    "build_mixing",
    "build_network",
    "build_optimizer",
    "build_rare_classes",
    "build_scheduler",
    "build_seeding",
    "build_source",
    "contrasts",
    "default_ranks",
    "ranks",
    "strong_views",
    "uses_ranks",
    "uses_tags",
]
