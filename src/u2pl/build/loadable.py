"""A predictor from a run folder, from a file of weights, or from the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from u2pl.build.hub import address, fetch_weights
from u2pl.build.trained import WEIGHTS_SUFFIX, read_trained, weights_file
from u2pl.data.image_files import ImageReader
from u2pl.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self


class Loadable:
    """Makes an object of a trained network and of what its file says about it; :class:`u2pl.predictor.Predictor` is
    one."""

    if TYPE_CHECKING:

        def __init__(self, network: nn.Module, **about: Any) -> None: ...

    @classmethod
    def from_run(
        cls,
        run: Path | str,
        *,
        weights: str = "last",
        device: str | torch.device = "cpu",
        overrides: Sequence[str] = (),
        precision: str = "fp32",
    ) -> Self:
        """Load the network of a run folder. ``weights`` is ``last`` (end of training) or ``best`` (on validation).

        Raises InputError if the folder does not hold these weights.
        """
        path = weights_file(Path(run), weights)
        return cls.from_file(path, device=device, overrides=overrides, precision=precision)

    @classmethod
    def from_file(
        cls,
        path: Path | str,
        *,
        device: str | torch.device = "cpu",
        overrides: Sequence[str] = (),
        precision: str = "fp32",
    ) -> Self:
        """Load the network of a ``.safetensors`` file from `u2pl train` or `u2pl import-weights`.

        Args:
            overrides: keys of ``evaluation`` to change, such as ``evaluation.flip=true``, ``data.bands``, and
                ``data.value_range``.

        Raises InputError if the file is missing or another file.
        """
        trained = read_trained(Path(path), device, overrides)
        description = trained.description
        return cls(
            trained.network.to(memory_format=torch.channels_last),  # faster on most devices
            classes=tuple(description["classes"]),
            palette=tuple((int(r), int(g), int(b)) for r, g, b in description["palette"]),
            scale=description["scale"],
            lookup=tuple(description["lookup"]) if description.get("lookup") else None,
            inference=trained.inference,
            image_prior=trained.image_prior,
            reader=ImageReader(**{key: tuple(value) for key, value in description["images"].items()}),
            evaluation=description["evaluation"],
            precision=precision,
        )

    @classmethod
    def from_hub(
        cls,
        repository: str,
        *,
        revision: str | None = None,
        weights: str | None = None,
        device: str | torch.device = "cpu",
        overrides: Sequence[str] = (),
        precision: str = "fp32",
    ) -> Self:
        """Load the network of a repository of the Hugging Face Hub, ``user/name``. Runs no code from it.

        Raises InputError like :func:`u2pl.build.hub.fetch_weights`, which explains ``revision`` and ``weights``.
        """
        path = fetch_weights(repository, revision=revision, weights=weights)
        return cls.from_file(path, device=device, overrides=overrides, precision=precision)

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        weights: str = "last",
        device: str | torch.device = "cpu",
        overrides: Sequence[str] = (),
        precision: str = "fp32",
    ) -> Self:
        """Call :meth:`from_file`, :meth:`from_run`, or :meth:`from_hub` for ``hf://user/name[@revision]``."""
        if found := address(path):
            options: dict[str, Any] = {"device": device, "overrides": overrides, "precision": precision}
            return cls.from_hub(found[0], revision=found[1], weights=None if weights == "last" else weights, **options)
        if Path(path).suffix != WEIGHTS_SUFFIX:
            return cls.from_run(path, weights=weights, device=device, overrides=overrides, precision=precision)
        if weights != "last":
            raise InputError(f"--weights {weights}: {path} is one file of weights; leave --weights out")
        return cls.from_file(path, device=device, overrides=overrides, precision=precision)
