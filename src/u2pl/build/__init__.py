"""Builds objects from a configuration."""

from u2pl.build.data import build_batches, build_class_share, build_diagnosis, build_rare_classes
from u2pl.build.image_prior import build_image_prior, check_image_prior, image_prior_parameters, uses_image_prior
from u2pl.build.method import build_method, build_negative_keys, build_seeding
from u2pl.build.network import build_inference, build_network, build_optimizer, build_scheduler
from u2pl.build.source import build_source
from u2pl.build.starting import start

__all__ = [
    "build_batches",
    "build_class_share",
    "build_diagnosis",
    "build_image_prior",
    "build_inference",
    "build_method",
    "build_negative_keys",
    "build_network",
    "build_optimizer",
    "build_rare_classes",
    "build_scheduler",
    "build_seeding",
    "build_source",
    "check_image_prior",
    "image_prior_parameters",
    "start",
    "uses_image_prior",
]
