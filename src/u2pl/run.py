"""Train a configuration into a run folder, and score what is in one."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities import rank_zero_only
from torch import Tensor, nn

from u2pl.build import (
    build_batches,
    build_method,
    build_network,
    build_optimizer,
    build_scheduler,
    build_source,
    check_ranks,
)
from u2pl.config import Config, load_config
from u2pl.data.batches import Evaluation, loader, step_seed
from u2pl.data.inspection import verify
from u2pl.data.source import DataSource
from u2pl.engine.checkpoint import write_atomically
from u2pl.engine.evaluate import Scores, evaluate
from u2pl.engine.fit import Run, Watcher, fit
from u2pl.engine.memory import require_memory
from u2pl.errors import InputError

_INIT_STREAM = 2  # the random numbers of the network's initial weights
_THOROUGH = 2000  # data sets up to this many images are decoded before training starts
_PRECISION = {"bf16": "bf16-mixed", "fp16": "16-mixed", "fp32": "32-true"}


@dataclass(frozen=True)
class Trained:
    """A finished run."""

    folder: Path
    source: DataSource
    scores: dict[str, Scores]  #: of the student and, with one, the teacher; the last is the model to use


def train(
    config: Config,
    out: Path,
    *,
    resume: bool = False,
    watchers: tuple[Watcher, ...] = (),
    say: Callable[[str], None] = print,
) -> Trained:
    """Train ``config`` into the folder ``out``.

    With ``resume``, a run that was killed goes on from its last save, to the weights it would have had. Raises
    InputError before training where the data, the configuration or the folder cannot be used.
    """
    fabric = make_fabric(config)
    config = resolve(config, fabric)
    source = build_source(config.data, seed=config.seed)
    semi_supervised = config.method.name != "supervised"
    if config.method.name == "u2pl":
        check_ranks(config.method, len(source.classes))
    images = len(source.labeled) + len(source.val) + len(source.unlabeled) * semi_supervised
    verify(source, semi_supervised=semi_supervised, thorough=images <= _THOROUGH)

    torch.manual_seed(step_seed(config.seed, _INIT_STREAM))
    network = build_network(config, len(source.classes))
    crop = config.train.crop_size
    height, width = (crop, crop) if isinstance(crop, int) else crop
    count = config.train.batch_size * (2 if semi_supervised else 1)
    require_memory(network, fabric.device, images=count, height=height, width=width)
    if config.train.channels_last:
        network.to(memory_format=torch.channels_last)
    check_folder(out, config, resume=resume)
    fabric.launch()  # other processes begin here: bad input is told once, by the first
    method = build_method(
        config.method,
        network,
        num_classes=len(source.classes),
        embedding_dim=config.network.embedding_dim,
        gather=share_keys(fabric) if fabric.world_size > 1 else None,
        processes=fabric.world_size,
    )
    if fabric.is_global_zero:
        make_folder(out, config)
    fabric.barrier()
    fabric.to_device(method)
    optimizer = build_optimizer(config.train, network)
    student, optimizer = fabric.setup(network, optimizer)
    if fabric.is_global_zero:
        say(describe(config, source, network))
    run = Run(
        folder=out,
        steps=config.train.steps,
        seed=config.seed,
        loss_weights={
            "unsupervised": config.method.unsupervised_weight,
            "contrastive": config.method.contrastive_weight,
            "auxiliary": config.method.auxiliary_weight,
        },
        description=network_description(config, source),
        eval_every=config.train.eval_every,
        save_every=config.train.save_every,
        log_every=config.train.log_every,
        watchers=list(watchers) if fabric.is_global_zero else [],
    )
    try:
        scores = fit(
            fabric,
            run,
            student=student,
            method=method,
            optimizer=optimizer,
            scheduler=build_scheduler(config.train, optimizer),
            batches=build_batches(
                config, source, semi_supervised=semi_supervised, rank=fabric.global_rank, world_size=fabric.world_size
            ),
            score=scorer(fabric, config, source) if source.val else None,
            resume=resume,
        )
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise InputError("out of memory: lower train.crop_size or train.batch_size") from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        raise InputError("out of memory: lower train.crop_size or train.batch_size") from error
    return Trained(out, source, scores)


def is_main_process() -> bool:
    """Whether this process speaks for the run; the others of a distributed one keep quiet."""
    return getattr(rank_zero_only, "rank", 0) == 0


def make_fabric(config: Config) -> Fabric:
    """Devices and precision."""
    train = config.train
    if train.accelerator == "cuda" and not torch.cuda.is_available():
        raise InputError("train.accelerator: no CUDA device here; use train.accelerator=auto")
    on_cpu = train.accelerator == "cpu" or (train.accelerator == "auto" and not _has_accelerator())
    if on_cpu and train.precision == "fp16":
        raise InputError("train.precision: fp16 needs a GPU; use bf16 or fp32")
    precision: Any = _PRECISION[train.precision if train.precision != "auto" else best_precision(on_cpu)]
    # What Fabric tells of precision and processes is no warning, but goes to stderr.
    for name in ("lightning_fabric", "lightning_fabric.utilities.rank_zero", "lightning_fabric.utilities.distributed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*all_gather is deprecated.*")  # a call of Fabric's own
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Fabric(
            accelerator=train.accelerator,
            devices=train.devices,
            num_nodes=train.nodes,
            strategy="ddp" if train.devices * train.nodes > 1 else "auto",
            precision=precision,
        )


def _has_accelerator() -> bool:
    return torch.cuda.is_available() or torch.backends.mps.is_available()


def best_precision(on_cpu: bool) -> str:
    """bf16 where the processor multiplies it natively, else fp32."""
    if on_cpu:
        tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        native = any(getattr(torch.cpu, test, lambda: False)() for test in tests)
    else:
        native = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return "bf16" if native else "fp32"


def resolve(config: Config, fabric: Fabric) -> Config:
    """The configuration with nothing left to choose, as it is saved with the run."""
    names = {value: name for name, value in _PRECISION.items()}
    chosen = names[str(fabric._precision.precision)]
    return config.model_copy(update={"train": config.train.model_copy(update={"precision": chosen})})


def check_folder(out: Path, config: Config, *, resume: bool) -> None:
    """Raise InputError when the folder holds a run that is not to be, or cannot be, resumed."""
    saved = out / "config.yaml"
    if saved.exists():
        if not resume:
            raise InputError(f"{out} already holds a run; add --resume to go on with it or choose another --out")
        before, now = load_config(saved).model_dump(), config.model_dump()
        for section in ("data", "network", "method", "train"):
            for key, value in now[section].items():
                if before[section][key] != value and key != "workers":
                    raise InputError(
                        f"{section}.{key}: is {value!r} now but {before[section][key]!r} in {saved}; "
                        "a run resumes with the configuration it began with"
                    )
        if before["seed"] != now["seed"]:
            raise InputError(f"seed: is {now['seed']} now but {before['seed']} in {saved}; resume with the same seed")


def make_folder(out: Path, config: Config) -> None:
    """Make the run folder with the configuration in it, unless it is there. Raises InputError when it cannot be."""
    saved = out / "config.yaml"
    if saved.exists():
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(saved, lambda partial: _write_text(partial, config.to_yaml()))
    except OSError as error:
        raise InputError(f"--out {out}: cannot write there ({error.strerror})") from error


def _write_text(path: Path, text: str) -> None:
    path.write_text(text)


def network_description(config: Config, source: DataSource) -> dict[str, Any]:
    """What it takes to build the trained network again and to name and colour its classes."""
    return {
        "classes": list(source.classes),
        "palette": [list(colour) for colour in source.palette],
        "scale": config.data.scale or 1.0,
        "method": config.method.name,
        "network": config.network.model_dump(exclude={"pretrained", "weights"}, exclude_none=True),
    }


def describe(config: Config, source: DataSource, network: nn.Module) -> str:
    """One line on what is about to be trained."""
    parameters = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    return (
        f"{config.method.name} on {config.data.name}: {len(source.labeled)} labeled, {len(source.unlabeled)} "
        f"unlabeled, {len(source.val)} validation images, {len(source.classes)} classes; "
        f"{config.network.name} {config.network.encoder}, {parameters:.1f} M parameters; "
        f"{config.train.steps} steps in {config.train.precision}"
    )


def scorer(fabric: Fabric, config: Config, source: DataSource) -> Callable[[nn.Module], Scores]:
    """Evaluates a network on the validation set, shared out among the processes."""

    def score(network: nn.Module) -> Scores:
        images = loader(
            Evaluation(source.val), start=fabric.global_rank, stride=fabric.world_size, workers=config.data.workers
        )
        return Scores.from_confusion(evaluate(fabric, network, images, len(source.classes)), source.classes)

    return score


def share_keys(fabric: Fabric) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Concatenates the keys of all processes, so that every bank is the same."""

    def gather(keys: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        all_keys, all_keep = fabric.all_gather(keys), fabric.all_gather(keep)
        return (
            all_keys.transpose(0, 1).flatten(1, 2),  # type: ignore[union-attr]
            all_keep.transpose(0, 1).flatten(1, 2),  # type: ignore[union-attr]
        )

    return gather
