"""The trainable twin of a member: the same function as the paper's network, in a form that trains well.

In: a member's name. Out: :class:`Twin`, a torch module from scaled images to two logits, and :func:`fold`, which turns it into
the network of :func:`scanner.networks.build`, layer for layer and exactly. Refused: nothing beyond unknown members.

What differs while training, and why it can be undone:

- **Order.** Convolution, pooling, batch normalisation, ReLU. With a positive BN scale, normalisation and ReLU are increasing
  and so commute with the maximum: the paper's convolution, ReLU, pooling gives the same numbers, from four times the pixels.
- **Batch normalisation** is affine once its statistics are fixed: folded into the weights and bias of the convolution before
  it.
- **Tied head.** One small network (channels, hidden, 1) looks at every position of the last feature map; its answers are
  summed with one weight per position. Written out, that is a dense layer of positions x hidden units and one of two outputs,
  which fits in the paper's (720, 350, 2) and (120, 500, 2).
- **Windows.** The twin also takes a central crop: the convolutions after the last but one pooling are then padded by one
  pixel, so that the positions of a crop are the central positions of the full image, and weights learned on crops carry over.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from scanner.networks import LENS, NON_LENS, build
from scanner.networks.architecture import architecture_of
from scanner.records import MEMBER_BANDS, MEMBER_PIXELS, MemberName

#: Side of the crop, in pixels of the member's image, that a member of each image size is first trained on.
CROP_PIXELS = {200: 68, 66: 34}
#: A crop must start at a multiple of the twin's total pooling, or its pooled pixels would not be those of the full image.
CROP_STRIDE = {200: 16, 66: 8}
#: Convolutions from this number on are padded when the input is a crop.
FIRST_PADDED = {200: 4, 66: 5}
#: Hidden units per position of the tied head; positions x hidden must fit in the paper's dense layer.
HIDDEN = {200: 9, 66: 48}
#: Positions along one side of the last feature map.
POSITIONS = {200: 6, 66: 2}
#: The smallest BN scale: it must stay positive for pooling and normalisation to commute.
SMALLEST_SCALE = 1e-3


class Twin(nn.Module):
    """A member in its trainable form; see the module's docstring.

    Parameters
    ----------
    member
        One of :data:`scanner.records.MEMBERS`.
    seed
        Seed of the initialisation.
    dropout
        Dropout of the features that enter the head.
    """

    def __init__(self, member: MemberName, *, seed: int, dropout: float = 0.05) -> None:
        super().__init__()
        self.member: MemberName = member
        self.side = MEMBER_PIXELS[member]
        self.frozen = 0
        generator = torch.Generator().manual_seed(seed)
        channels = len(MEMBER_BANDS[member])
        self.convolutions = nn.ModuleList()
        self.norms = nn.ModuleList()
        self.pooled: list[bool] = []
        for kernels, pixels, pooled in architecture_of(member).convolutions:
            convolution = nn.Conv2d(channels, kernels, pixels, bias=False)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu", generator=generator)
            self.convolutions.append(convolution)
            self.norms.append(nn.BatchNorm2d(kernels))
            self.pooled.append(pooled)
            channels = kernels
        self.dropout = nn.Dropout(dropout)
        self.per_position = nn.Linear(channels, HIDDEN[self.side])
        self.answer = nn.Linear(HIDDEN[self.side], 1)
        for layer in (self.per_position, self.answer):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)
        self.position_weight = nn.Parameter(central_weights(POSITIONS[self.side]))

    def layer(self, number: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
        """Convolution ``number`` and its normalisation."""
        return cast(nn.Conv2d, self.convolutions[number]), cast(nn.BatchNorm2d, self.norms[number])

    def freeze(self, convolutions: int) -> None:
        """Keep the first ``convolutions`` convolutions and their normalisation as they are from now on (0: train all)."""
        self.frozen = convolutions
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            for parameter in (*convolution.parameters(), *norm.parameters()):
                parameter.requires_grad_(number >= convolutions)
        self.train(self.training)

    def train(self, mode: bool = True) -> Twin:
        """Set the mode, but never let a frozen normalisation update its statistics."""
        super().train(mode)
        for norm in list(self.norms)[: self.frozen]:
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
                images = self._block(number, images, cropped)
        for number in range(self.frozen, len(self.convolutions)):
            images = self._block(number, images, cropped)
        features = self.dropout(images).flatten(2).transpose(1, 2)
        answers = self.answer(torch.relu(self.per_position(features))).squeeze(2)
        # The bias of the answer is part of every position's sum: weights of a crop sum to 1 as those of the full image do at
        # first.
        weights = central_crop(self.position_weight, images.shape[-1]).flatten()
        log_odds = answers @ weights
        outputs = [log_odds, log_odds]
        outputs[NON_LENS], outputs[LENS] = -0.5 * log_odds, 0.5 * log_odds
        return torch.stack(outputs, dim=1)

    def _block(self, number: int, images: torch.Tensor, cropped: bool) -> torch.Tensor:
        padding = 1 if cropped and number >= FIRST_PADDED[self.side] else 0
        convolution, norm = self.layer(number)
        images = nn.functional.conv2d(images, convolution.weight, padding=padding)
        if self.pooled[number]:
            images = nn.functional.max_pool2d(images, 2)
        return torch.relu(norm(images))


def transplant(source: dict[str, torch.Tensor], member: MemberName, twin: Twin) -> None:
    """Give ``twin`` the weights of a trained twin of the same architecture that sees other bands.

    The first convolution keeps the kernels of the bands that both see; those of bands that only ``twin`` sees become zero, so
    that it begins as the same function of what it knows already.

    Parameters
    ----------
    source
        State of the trained twin.
    member
        Which it is.
    twin
        Changed in place.

    Raises
    ------
    ValueError
        The two members have images of different size.
    """
    if MEMBER_PIXELS[member] != twin.side:
        raise ValueError(f"{member} and {twin.member} have different architectures")
    state = dict(source)
    first = "convolutions.0.weight"
    seen, kernels = MEMBER_BANDS[member], twin.state_dict()[first].clone()
    for channel, band in enumerate(MEMBER_BANDS[twin.member]):
        kernels[:, channel] = source[first][:, seen.index(band)] if band in seen else 0.0
    state[first] = kernels
    twin.load_state_dict(state)


def central_weights(side: int) -> torch.Tensor:
    """Weights (side, side) that average the central 2 x 2 positions, which are those of a crop."""
    weights = torch.zeros(side, side)
    weights[side // 2 - 1 : side // 2 + 1, side // 2 - 1 : side // 2 + 1] = 0.25
    return weights


def central_crop(weights: torch.Tensor, side: int) -> torch.Tensor:
    """Return the central (side, side) of square ``weights``."""
    start = (weights.shape[0] - side) // 2
    return weights[start : start + side, start : start + side]


def fold(twin: Twin) -> nn.Sequential:
    """Write the twin as the paper's network, in evaluation mode.

    Parameters
    ----------
    twin
        Trained or not; its running statistics are what is folded in.

    Returns
    -------
    torch.nn.Sequential
        What :func:`scanner.networks.build` returns, float32, with weights that give the logits of ``twin.eval()`` on full
        images up to rounding (float64 inside, 1e-5 in float32).
    """
    network = build(twin.member, seed=0)
    targets = [layer for layer in network if isinstance(layer, nn.Conv2d)]
    dense, output = (layer for layer in network if isinstance(layer, nn.Linear))
    with torch.no_grad():
        for number, target in enumerate(targets):
            convolution, norm = twin.layer(number)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
            target.weight.copy_(convolution.weight.double() * scale[:, None, None, None])
            assert target.bias is not None
            target.bias.copy_(norm.bias.double() - norm.running_mean.double() * scale)
        positions = twin.position_weight.numel()
        hidden = twin.per_position.out_features
        for layer in (dense, output):
            layer.weight.zero_()
            layer.bias.zero_()
        # The flattened features are ordered (channel, position); unit (position, h) reads its own position only.
        first = dense.weight.new_zeros(positions, hidden, twin.per_position.in_features, positions, dtype=torch.float64)
        for position in range(positions):
            first[position, :, :, position] = twin.per_position.weight.double()
        dense.weight[: positions * hidden] = first.reshape(positions * hidden, -1).float()
        dense.bias[: positions * hidden] = twin.per_position.bias.repeat(positions)
        weights = twin.position_weight.double().flatten()
        log_odds = (weights[:, None] * twin.answer.weight.double()).flatten()
        bias = twin.answer.bias.double() * weights.sum()
        for unit, half in ((NON_LENS, -0.5), (LENS, 0.5)):
            output.weight[unit, : positions * hidden] = (half * log_odds).float()
            output.bias[unit] = (half * bias).float().item()
    return network.eval()
