"""The trainable twin of a member: the same function as the paper's network, in a form that trains well.

In: a member's name. Out: :class:`Twin`, a torch module from scaled images to two logits. Refused: nothing beyond unknown
members. :mod:`scanner.training.folding` turns it into the paper's network, exactly, and back.

What differs while training, and why it can be undone:

- **Order.** Convolution, pooling, batch normalisation, ReLU. With a positive BN scale, normalisation and ReLU are increasing
  and so commute with the maximum: the paper's convolution, ReLU, pooling gives the same numbers, from four times the pixels.
- **Batch normalisation** is affine once its statistics are fixed: folded into the weights and bias of the convolution before
  it.
- **Tied head.** See :mod:`scanner.training.head`.
- **Windows.** The twin also takes a central crop: the convolutions after the last but one pooling are then padded by one
  pixel, so that the positions of a crop are the central positions of the full image, and weights learned on crops carry over.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from scanner.networks import architecture_of
from scanner.records import MEMBER_BANDS, MEMBER_PIXELS, MemberName
from scanner.training.head import DenseHead, TiedHead

#: Side of the crop, in pixels of the member's image, that a member of each image size is first trained on.
CROP_PIXELS = {200: 68, 66: 34}
#: A crop must start at a multiple of the twin's total pooling, or its pooled pixels would not be those of the full image.
CROP_STRIDE = {200: 16, 66: 8}
#: Convolutions from this number on are padded when the input is a crop.
FIRST_PADDED = {200: 4, 66: 5}
#: The smallest BN scale: it must stay positive for pooling and normalisation to commute.
SMALLEST_SCALE = 1e-3


class Twin(nn.Module):
    """A member in its trainable form; see the module's docstring.

    Parameters
    ----------
    member
        One of :data:`scanner.records.MEMBERS`.
    seed
        Seed of the He initialisation.
    dropout
        Dropout of the features that enter the head.
    tied
        Whether the head is tied; else it is the paper's, and only full images can be shown.
    batch_norm
        Whether to normalise; else the normalisation is a bias, as in the paper.
    """

    def __init__(
        self, member: MemberName, *, seed: int, dropout: float = 0.05, tied: bool = True, batch_norm: bool = True
    ) -> None:
        super().__init__()
        self.member: MemberName = member
        self.side = MEMBER_PIXELS[member]
        self.frozen = 0
        self.batch_norm = batch_norm
        generator = torch.Generator().manual_seed(seed)
        architecture = architecture_of(member)
        channels = len(MEMBER_BANDS[member])
        self.convolutions = nn.ModuleList()
        self.norms = nn.ModuleList()
        self.pooled: list[bool] = []
        for kernels, pixels, pooled in architecture.convolutions:
            convolution = nn.Conv2d(channels, kernels, pixels, bias=False)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu", generator=generator)
            self.convolutions.append(convolution)
            norm = nn.BatchNorm2d(kernels)
            norm.weight.requires_grad_(batch_norm)
            self.norms.append(norm)
            self.pooled.append(pooled)
            channels = kernels
        self.dropout = nn.Dropout(dropout)
        self.head: TiedHead | DenseHead = (
            TiedHead(channels, self.side, generator)
            if tied
            else DenseHead(architecture.features, architecture.hidden, generator)
        )
        self.train()

    @property
    def tied(self) -> bool:
        """Whether crops can be shown."""
        return isinstance(self.head, TiedHead)

    def expand(self) -> None:
        """Write a tied head out as the paper's dense layers: the same function, with weights of its own at every position."""
        if isinstance(self.head, TiedHead):
            architecture = architecture_of(self.member)
            dense = DenseHead(architecture.features, architecture.hidden)
            dense.take(self.head.written_out(architecture.hidden))
            self.head = dense.to(self.head.position_weight.device)

    def layer(self, number: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
        """Convolution ``number`` and its normalisation."""
        return cast(nn.Conv2d, self.convolutions[number]), cast(nn.BatchNorm2d, self.norms[number])

    def freeze(self, convolutions: int) -> None:
        """Keep the first ``convolutions`` convolutions and their normalisation as they are from now on (0: train all)."""
        self.frozen = convolutions
        for number in range(len(self.norms)):
            convolution, norm = self.layer(number)
            trained = number >= convolutions
            convolution.weight.requires_grad_(trained)
            norm.bias.requires_grad_(trained)
            norm.weight.requires_grad_(trained and self.batch_norm)
        self.train(self.training)

    def train(self, mode: bool = True) -> Twin:
        """Set the mode, but never let a frozen normalisation update its statistics."""
        super().train(mode)
        for number, norm in enumerate(self.norms):
            if number < self.frozen or not self.batch_norm:
                norm.eval()
        return self

    def constrain(self) -> None:
        """Keep the BN scales positive; call after every optimiser step."""
        with torch.no_grad():
            for number in range(len(self.norms)):
                self.layer(number)[1].weight.clamp_(min=SMALLEST_SCALE)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Two logits, (N, 2), of scaled images (N, channels, p, p), p the member's side or its crop."""
        cropped = images.shape[-1] < self.side
        with torch.no_grad():
            for number in range(self.frozen):
                images = self.block(number, images, cropped)
        for number in range(self.frozen, len(self.convolutions)):
            images = self.block(number, images, cropped)
        logits: torch.Tensor = self.head(self.dropout(images))
        return logits

    def block(self, number: int, images: torch.Tensor, cropped: bool) -> torch.Tensor:
        """Convolution ``number`` with its pooling, normalisation and ReLU."""
        return torch.relu(self.layer(number)[1](self.pooled_convolution(number, images, cropped)))

    def pooled_convolution(self, number: int, images: torch.Tensor, cropped: bool) -> torch.Tensor:
        """What the normalisation of convolution ``number`` sees."""
        padding = 1 if cropped and number >= FIRST_PADDED[self.side] else 0
        images = nn.functional.conv2d(images, self.layer(number)[0].weight, padding=padding)
        return nn.functional.max_pool2d(images, 2) if self.pooled[number] else images
