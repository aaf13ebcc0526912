"""What a training is made of: everything is built and checked before other processes begin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from u2pl.auto.choices import Choice
from u2pl.auto.held_out import measured_precision
from u2pl.auto.resolving import resolved
from u2pl.build import build_class_share, build_method, build_optimizer, build_rare_classes, build_source
from u2pl.build.tracker import require_tracker
from u2pl.commands.checks import check_source, checked_network, fabric_of
from u2pl.commands.remedies import out_of_memory_is_bad_input
from u2pl.config.schema import Config
from u2pl.data.inspection import Inspection
from u2pl.data.rare_classes import DrawsByClass
from u2pl.data.source import DataSource
from u2pl.engine.compiling import compiler_errors_are_bad_input, require_compiler
from u2pl.engine.machine import share_keys, sum_over_processes
from u2pl.methods.base import Method


@dataclass(frozen=True)
class Parts:
    """What a training is made of, before other processes begin."""

    config: Config  #: complete
    fabric: Fabric
    source: DataSource
    inspection: Inspection
    choices: Sequence[Choice]
    rare_classes: DrawsByClass | None
    network: nn.Module
    optimizer: Optimizer
    method: Method


_MEASURED = 0.2  # least share of the steps that a measurement trains, in addition


def prepared(
    config: Config, say: Callable[[str], None], *, source: DataSource | None = None, begins: bool = True
) -> Parts:
    """Check the data and build the parts. Raises InputError for what cannot be used.

    Args:
        source: the data set; None: the one of the configuration.
        begins: whether the training begins; a resumed one has its weights.
    """
    require_tracker(config.train.tracker)
    fabric = fabric_of(config.train)
    source = build_source(config.data, seed=config.seed) if source is None else source
    config, source, choices = resolved(config, source, fabric)
    if config.train.compile:
        require_compiler(fabric.device)
    inspection = check_source(source, config, say)
    rare_classes = build_rare_classes(config.data, source, say=say)
    class_share = build_class_share(config.method, source, say=say)
    network = checked_network(config, source, fabric, begins=begins)
    optimizer = build_optimizer(config.train, network, fabric.device)
    method = prepared_method(config, fabric, network, len(source.classes), class_share)
    return Parts(config, fabric, source, inspection, choices, rare_classes, network, optimizer, method)


def prepared_method(
    config: Config, fabric: Fabric, network: nn.Module, classes: int, class_share: Tensor | None
) -> Method:
    """The method for a freshly built network."""
    processes = config.train.devices * config.train.nodes
    with out_of_memory_is_bad_input("lower method.contrast.bank_size"):
        return build_method(
            config.method,
            network,
            num_classes=classes,
            embedding_dim=config.network.embedding_dim,
            class_share=class_share,
            gather=share_keys(fabric) if processes > 1 else None,
            total=sum_over_processes if processes > 1 else None,
            processes=processes,
        )


def measured(parts: Parts, asked: Config, say: Callable[[str], None]) -> Parts:
    """The parts with what a measurement decides, if a choice waits for one. It takes a part of a training's time.

    All processes call it together.

    Args:
        asked: the configuration before values were chosen.
        say: called with lines of progress.
    """
    config, fabric, source = parts.config, parts.fabric, parts.source
    if not any(choice.to_measure for choice in parts.choices):
        return parts
    steps = round(max(_MEASURED, config.method.schedule.warmup) * config.train.steps)
    with out_of_memory_is_bad_input(), compiler_errors_are_bad_input():
        precision = measured_precision(config, source, fabric, steps=max(1, steps), say=say)
    config, _, choices = resolved(asked, source, fabric, precision)
    class_share = build_class_share(config.method, source)
    method = prepared_method(config, fabric, parts.network, len(source.classes), class_share)
    return replace(parts, config=config, choices=choices, method=method)
