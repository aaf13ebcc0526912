"""Checks before a training: the data, the network, and whether a step fits the machine."""

from __future__ import annotations

from collections.abc import Callable

import torch
from lightning_fabric import Fabric
from torch import nn

from u2pl.build import build_negative_keys, build_network, check_image_prior, start
from u2pl.commands.overview import reading
from u2pl.config.schema import Config, TrainConfig
from u2pl.data.batches import PIXEL_BYTES, step_seed
from u2pl.data.inspection import Inspection, verify
from u2pl.data.loading import fitting_workers
from u2pl.data.source import DataSource
from u2pl.engine.machine import make_fabric
from u2pl.engine.memory import require_contrast, require_memory, require_values, require_weights
from u2pl.report.printing import print_line

_INIT_STREAM = 2  # the random numbers of the network's initial weights
_THOROUGH = 2000  # data sets with at most this many images are decoded before training starts


def fabric_of(train: TrainConfig) -> Fabric:
    """The devices and the precision of a configuration."""
    return make_fabric(
        accelerator=train.accelerator, devices=train.devices, nodes=train.nodes, precision=train.precision
    )


def check_source(source: DataSource, config: Config, say: Callable[[str], None] = print_line) -> Inspection:
    """Inspect the data set. Raises InputError if it cannot be trained on."""
    semi_supervised = config.method.kind.semi_supervised
    if config.method.uses_negative_keys and len(source.classes) > 1:  # else it is an error of the data
        build_negative_keys(config.method, len(source.classes))
    images = len(source.labeled) + len(source.val) + len(source.unlabeled) * semi_supervised
    weak = config.method.kind.uses_tags
    return verify(
        source, semi_supervised=semi_supervised, weak=weak, thorough=images <= _THOROUGH, progress=reading(say)
    )


def checked_network(config: Config, source: DataSource, fabric: Fabric, *, begins: bool = True) -> nn.Module:
    """The network with its initial weights, after a check that a step can fit the device's memory.

    ``begins``: whether a training begins with them. A resumed one does not need the run that it started from.
    """
    check_image_prior(config)
    require_room(config, len(source.classes), fabric.device)
    torch.manual_seed(step_seed(config.seed, _INIT_STREAM))
    network = build_network(config, len(source.classes))
    if begins:
        start(network, config, source.classes)
    height, width = crop_sides(config)
    views = 1 + config.method.strong_views_of_an_image if config.method.kind.semi_supervised else 1
    if config.method.kind.has_teacher and config.method.masked_consistency is not None:
        views += 1
    images = config.train.batch_size * views
    if config.method.kind.uses_tags and source.labeled:  # in addition to weak and strong views
        images += config.train.batch_size
    require_values(network, images=config.train.batch_size, height=height, width=width)
    require_memory(network, fabric.device, images=images, height=height, width=width)
    return network.to(memory_format=torch.channels_last) if config.train.channels_last else network


def require_room(config: Config, classes: int, device: torch.device) -> None:
    """Raise InputError if the weights of the network, or the contrast, cannot fit the device's memory."""
    require_weights(lambda: unfetched_network(config, classes), device)
    contrast = config.method.contrast
    if config.method.trains_embeddings and contrast is not None:
        require_contrast(
            device,
            classes=classes,
            dim=config.network.embedding_dim,
            anchors=contrast.anchors,
            negatives=contrast.negatives,
            keys=contrast.bank_size,
        )


def unfetched_network(config: Config, classes: int) -> nn.Module:
    """The network with random weights, as far as it can be built without reading or fetching any."""
    return build_network(config.with_values({"network.pretrained": False, "network.weights": None}), classes)


def crop_sides(config: Config) -> tuple[int, int]:
    """Height and width of a training crop."""
    crop = config.train.crop_size
    return (crop, crop) if isinstance(crop, int) else (crop[0], crop[1])


def with_fitting_workers(config: Config, inspection: Inspection, say: Callable[[str], None]) -> Config:
    """The configuration with so few loader processes that images fit into the shared memory; ``say`` tells if so."""
    height, width = crop_sides(config)
    crops = config.train.batch_size * (2 if config.method.kind.semi_supervised else 1)
    batch = crops * height * width * (PIXEL_BYTES + 1)  # and the true class, for a diagnosis
    rows, columns = inspection.sizes.get("val", ((0, 0), (0, 0)))[1]
    largest = max(batch, rows * columns * PIXEL_BYTES)
    workers = config.data.workers
    fitting = fitting_workers(workers, largest, config.train.devices)
    if fitting == workers:
        return config
    say(
        f"data.workers: {fitting} instead of {workers}: /dev/shm is too small for more ({largest / 2**20:.0f} MiB a "
        "batch); in a container, set --shm-size=2g"
    )
    return config.with_values({"data.workers": fitting})
