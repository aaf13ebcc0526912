"""Plan the trials: each is built once before any training, so that bad input shows first."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

from torch import nn

from u2pl.auto.choices import Choice, like
from u2pl.auto.resolving import as_begun, resolved
from u2pl.build import (
    build_inference,
    build_method,
    build_optimizer,
    build_source,
    image_prior_parameters,
)
from u2pl.build.tracker import require_tracker
from u2pl.commands.checks import checked_network, fabric_of
from u2pl.commands.run_folder import check_folder
from u2pl.config.overrides import load_config
from u2pl.config.schema import Config
from u2pl.data.source import DataSource
from u2pl.data.structure import structure_errors
from u2pl.engine.parameter_count import inference_parameters, training_parameters
from u2pl.errors import InputError

#: Length of training and data of a step. They are the same for all lines of a comparison, unless a line sets them.
ALIKE = (*(f"train.{key}" for key in ("steps", "batch_size", "crop_size", "scale_range", "jitter", "eval_every")),)
_LONGEST = 120  # characters of a folder's name


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training."""

    name: str  #: of the method, variant or setting
    labeled: str  #: ``data.labeled``, as text
    seed: int
    folder: Path
    config: Config  #: complete, but for values that a measurement before the training may replace
    asked: Config  #: before values were chosen for `auto`
    overrides: tuple[str, ...]  #: on top of the configuration that all trials share
    images: int  #: number of labeled images; with two domains, of the source
    target_images: int = 0  #: number of labeled images of the target, beside those of the source
    parameters: int  #: of the model in use
    training_parameters: int
    baseline: bool = False  #: whether the others are compared with it
    choices: tuple[Choice, ...] = ()  #: one for each group of keys that were `auto`

    @property
    def counted(self) -> str:
        """The number of labeled images: ``200``, or of both domains ``200 + 20``."""
        return f"{self.images} + {self.target_images}" if self.target_images else str(self.images)


@dataclass(frozen=True)
class Setting:
    """A row of an ablation: a value of an axis, with one trial per seed."""

    axis: str
    value: str
    trials: tuple[Trial, ...]


class Planner:
    """Makes the trials of one command.

    Each trial is built in the same way as in its training. Parts that trials share are built once. Nothing is trained
    or written.

    Args:
        source, overrides: the configuration that all trials share, as for ``u2pl train``.
        out: the folder of all runs.
        alike: keys or sections that are chosen once for all trials, where the shared configuration has `auto`.
    """

    def __init__(
        self, source: str | Path, overrides: Sequence[str], out: Path, *, alike: Sequence[str] = ALIKE
    ) -> None:
        self.source, self.overrides, self.out = source, tuple(overrides), out
        self.shared = load_config(source, self.overrides)
        self.alike = {key for key in self.shared.auto_keys() if key in alike or key.partition(".")[0] in alike}
        if out.exists() and not out.is_dir():
            raise InputError(f"--out {out} is a file; give a folder")
        self._sources: dict[str, DataSource] = {}
        self._networks: dict[str, tuple[nn.Module, int]] = {}
        self._named: dict[str, tuple[str, ...]] = {}

    def trial(self, parts: Sequence[str], overrides: Sequence[str], *, seed: int, baseline: bool = False) -> Trial:
        """One trial, in a folder named after ``parts``. The first part is the name of the trial.

        Raises InputError for everything that its training would refuse before the first step, except files that cannot
        be read. The message begins with the trial's name.
        """
        name = parts[0]
        with naming(name):
            config = load_config(self.source, [*self.overrides, *overrides, f"seed={seed}"])
            require_tracker(config.train.tracker)
            source = self._checked_source(config)
            model, choices = self._model
            folder = self._folder(tuple(parts))
            asked = as_begun(like(config, model, self.alike), folder)
            config, _, own = resolved(asked, source, fabric_of(config.train))
            network, parameters = self._checked_network(config, source)
            seen_whole = image_prior_parameters(config, network)
            check_folder(folder, config, resume=True)
        return Trial(
            name=name,
            labeled=labeled_text(config),
            seed=seed,
            folder=folder,
            config=config,
            asked=asked,
            overrides=tuple(overrides),
            images=len(source.labeled) - source.target_labeled,
            target_images=source.target_labeled,
            choices=(*choices, *own),
            parameters=parameters + seen_whole,
            training_parameters=training_parameters(network) + seen_whole,
            baseline=baseline,
        )

    @cached_property
    def _model(self) -> tuple[Config, tuple[Choice, ...]]:
        """The values that all trials share, and the reasons: chosen once, for the shared configuration."""
        if not self.alike:
            return self.shared, ()
        source = self._source(self.shared)
        config, _, choices = resolved(self.shared, source, fabric_of(self.shared.train))
        return config, tuple(replace(choice, detail="") for choice in choices if set(choice.values) <= set(self.alike))

    def _source(self, config: Config) -> DataSource:
        key = f"{config.data.model_dump()} {config.seed}"
        if key not in self._sources:
            self._sources[key] = build_source(config.data, seed=config.seed)
        return self._sources[key]

    def _checked_source(self, config: Config) -> DataSource:
        source = self._source(config)
        for error in structure_errors(source, config.method.name != "supervised", weak=config.method.kind.uses_tags):
            raise InputError(error)
        if not source.val:
            raise InputError("data.val: there is no validation set to compare on; give one")
        return source

    def _checked_network(self, config: Config, source: DataSource) -> tuple[nn.Module, int]:
        """The network of a trial, on the meta device, and the number of its parameters in use.

        Also builds its method and optimizer, to check them.
        """
        train, method = config.train, config.method
        sizes = train.crop_size, train.batch_size, train.accelerator, len(source.classes)
        heads = method.name, method.trains_embeddings, method.strong_views.number
        key = json.dumps([config.network.model_dump(), *heads, *sizes])
        if key not in self._networks:
            built = checked_network(config, source, fabric_of(train)).to("meta")
            height, width = (train.crop_size,) * 2 if isinstance(train.crop_size, int) else train.crop_size
            self._networks[key] = built, inference_parameters(built, height=height, width=width)
        network, parameters = self._networks[key]
        build_optimizer(train, network)
        build_inference(config.evaluation)
        build_method(
            method,
            network,
            num_classes=len(source.classes),
            embedding_dim=config.network.embedding_dim,
            processes=train.devices * train.nodes,
        )
        return network, parameters

    def _folder(self, parts: tuple[str, ...]) -> Path:
        name = safe_name(*parts)
        owner = self._named.setdefault(name.casefold(), parts)  # some file systems ignore case
        if owner != parts:
            raise InputError(f"{' '.join(owner)} and {' '.join(parts)} would share the folder {name}; name them apart")
        return self.out / name


def labeled_text(config: Config) -> str:
    """``data.labeled`` (with two domains, of the source); `all` if it is not set."""
    part = config.data.source if across_domains(config) and not config.data.upper_bound else config.data
    return "all" if part is None or part.labeled is None else str(part.labeled)


def across_domains(config: Config) -> bool:
    """Whether labels come from another data set than the validation images."""
    return config.data.name == "domain"


def safe_name(*parts: str) -> str:
    """A folder name of letters, digits and ``._-``, for any parts."""
    name = "-".join(re.sub(r"[^A-Za-z0-9._-]+", "_", part).strip("._") or "_" for part in parts)
    if len(name) <= _LONGEST:
        return name
    return f"{name[:50]}_{blake2b(name.encode(), digest_size=4).hexdigest()}_{name[-50:]}"


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Put the name of a trial before the message of an InputError."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
