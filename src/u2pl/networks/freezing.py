"""Networks whose encoder can be frozen, whole or in its first stages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from u2pl.errors import InputError
from u2pl.networks.encoded import Encoded
from u2pl.networks.stages import Stages, stages_of


@dataclass(frozen=True)
class Frozen:
    """The part of a network that does not train, by names in the network."""

    modules: tuple[str, ...]  #: they stay in evaluation mode, with everything inside them
    parameters: tuple[str, ...]  #: they get no gradient
    whole: bool  #: whether this is the whole encoder


class FreezableNetwork(nn.Module):
    """A network of an ``encoder`` and what decodes its features."""

    multiple: int = 32  #: both sides of an image may be a multiple of this
    minimum: int = 1  #: smallest side of an image that is not padded
    frozen: Frozen | None = None  #: None: everything trains

    encoder: nn.Module
    projection: nn.Module | None  #: pixels -> embeddings

    def encode(self, image: Tensor) -> Encoded:
        """Images (B, 3, H, W) in [0, 1] -> what the rest of the network needs of them."""
        raise TypeError(f"{type(self).__name__} has no encoder")

    def last_features(self, encoded: Encoded) -> Tensor:
        """The encoder's last features (B, K, h, w) of the images, without those of their padding."""
        raise TypeError(f"{type(self).__name__} has no encoder")

    def freeze(self, stages: bool | int = True) -> None:
        """Freeze the encoder, or so many of its first stages; see :func:`~u2pl.networks.stages.stages_of`.

        What is frozen gets no gradient and stays in evaluation mode: batch normalisation keeps its statistics, and
        nothing is dropped. Since images need no gradient either, autograd keeps nothing of the frozen part.

        Raises:
            InputError: if the encoder has fewer stages, or its stages cannot be told.
        """
        if stages is False:
            return
        part = Stages(("",), tuple(name for name, _ in self.encoder.named_parameters()))
        whole = stages is True
        if not whole:
            found = stages_of(self.encoder, side=2 * max(self.multiple, self.minimum))
            if not found:
                raise InputError(
                    "network.freeze: the stages of this encoder cannot be told; true freezes all of it, false nothing"
                )
            if not 1 <= stages <= len(found):
                raise InputError(
                    f"network.freeze: the encoder has {len(found)} stages, not {stages}; "
                    f"give 1 to {len(found)}, or true for all of it"
                )
            whole = stages == len(found)
            part = part if whole else found[stages - 1]
        self.frozen = Frozen(_inside(part.modules), _inside(part.parameters), whole)
        for name in self.frozen.parameters:
            _found(self, name).requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> FreezableNetwork:
        """Set the mode. What is frozen stays in evaluation mode."""
        super().train(mode)
        for name in () if self.frozen is None else self.frozen.modules:
            self.get_submodule(name).train(False)
        return self


def frozen_parts(network: nn.Module) -> Iterator[nn.Module | nn.Parameter]:
    """The modules and parameters of a network that never change, for a copy of the network to share."""
    if isinstance(network, FreezableNetwork) and network.frozen is not None:
        for name in (*network.frozen.modules, *network.frozen.parameters):
            yield _found(network, name)


def _inside(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names in the network from names in its encoder."""
    return tuple(f"encoder.{name}".rstrip(".") for name in names)


def _found(network: nn.Module, name: str) -> nn.Module | nn.Parameter:
    """A module or parameter by its name."""
    owner, _, last = name.rpartition(".")
    return getattr(network.get_submodule(owner), last)
