"""The features of a frozen encoder, computed once for all networks that share it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from u2pl.networks.encoded import Encoded
from u2pl.networks.freezing import FreezableNetwork


class FrozenFeatures:
    """Encodes images with a wholly frozen encoder, and remembers the features as long as a tensor of images lives.

    The same tensor object means the same images: nothing may change a tensor of images in place. Each tensor is encoded
    by itself, so its features are the same numbers whatever images come beside it.

    Args:
        network: has the encoder.
    """

    def __init__(self, network: FreezableNetwork) -> None:
        self.network = network
        self.known = WeakTensorKeyDictionary()

    def __call__(self, *images: Tensor) -> Encoded:
        """(B_1, 3, H, W), (B_2, 3, H, W), ... -> features of all B_1 + B_2 + ... images."""
        return Encoded.cat([self._of(each) for each in images])

    def _of(self, image: Tensor) -> Encoded:
        encoded = self.known.get(image)
        if encoded is None:
            self.known[image] = encoded = self.network.encode(image)
        return encoded


def frozen_features(network: nn.Module) -> FrozenFeatures | None:
    """The features of the frozen encoder of a network; None if a part of it trains."""
    if isinstance(network, FreezableNetwork) and network.frozen is not None and network.frozen.whole:
        return FrozenFeatures(network)
    return None
