"""A network of a few hundred weights with every head and hook that a method may ask for."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from u2pl.networks.image_encoder import ImageEncoder
from u2pl.structures import SegmentationOutput


class GoldenNetwork(nn.Module):
    """Two layers with batch normalisation and dropout, and all heads: of a segmentation, embeddings and tags."""

    multiple = 4
    corners = True

    def __init__(self, *, num_classes: int, embedding: bool, classification: bool) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Conv2d(8, num_classes, 1)
        self.auxiliary = nn.Conv2d(8, num_classes, 1)
        self.projection = nn.Conv2d(8, 8, 1) if embedding else None
        self.classification = nn.Conv2d(8, num_classes - 1, 1, bias=False) if classification else None

    def forward(self, image: Tensor, *, dropped: int = 0) -> SegmentationOutput:
        """With ``dropped``, the last so many images come once more at the end, with half of their features dropped."""
        encoded = self.encoder(image)
        if dropped:
            encoded = torch.cat((encoded, F.dropout2d(encoded[-dropped:], 0.5)))
        features = self.dropout(encoded)
        coarse = self.classifier(features)

        def at_size(scores: Tensor) -> Tensor:
            return F.interpolate(scores, size=image.shape[-2:], mode="bilinear")

        return SegmentationOutput(
            at_size(coarse),
            coarse,
            None if self.projection is None else self.projection(features),
            auxiliary=at_size(self.auxiliary(features)) if self.training else None,
            activation=None if self.classification is None else self.classification(encoded),
        )

    def activate(self, image: Tensor) -> Tensor:
        """Class activations of images, as a network with a classification head gives them."""
        assert self.classification is not None
        return self.classification(self.encoder(image))

    def image_encoder(self) -> ImageEncoder:
        """What images are compared by."""
        return ImageEncoder(normalize=nn.Identity(), encoder=self.encoder, last=lambda features: features, multiple=4)

    def encoder_parameters(self) -> list[nn.Parameter]:
        return list(self.encoder.parameters())

    def head_parameters(self) -> list[nn.Parameter]:
        encoder = {id(parameter) for parameter in self.encoder.parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in encoder]
