"""The two forms of a member's dense layers while it is trained.

In: the last feature map (N, channels, p, p). Out: two logits (N, 2), and the paper's dense layers written out. Refused: a
crop's feature map by :class:`DenseHead`.

:class:`TiedHead`: one small network (channels, hidden, 1) looks at every position; its answers are summed with one weight per
position. Written out, that is a dense layer of positions x hidden units and one of two outputs, which fits in the paper's
(720, 350, 2) and (120, 500, 2). :class:`DenseHead`: those layers themselves.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from scanner.networks import LENS, NON_LENS

#: Hidden units per position of the tied head; positions x hidden must fit in the paper's dense layer.
HIDDEN = {200: 9, 66: 48}
#: Positions along one side of the last feature map.
POSITIONS = {200: 6, 66: 2}


class DenseWeights(NamedTuple):
    """Weight and bias of the paper's two dense layers, float64."""

    hidden: torch.Tensor
    hidden_bias: torch.Tensor
    output: torch.Tensor
    output_bias: torch.Tensor


def central_weights(side: int) -> torch.Tensor:
    """Weights (side, side) that average the central 2 x 2 positions, which are those of a crop."""
    weights = torch.zeros(side, side)
    weights[side // 2 - 1 : side // 2 + 1, side // 2 - 1 : side // 2 + 1] = 0.25
    return weights


def central_crop(weights: torch.Tensor, side: int) -> torch.Tensor:
    """Return the central (side, side) of square ``weights``."""
    start = (weights.shape[0] - side) // 2
    return weights[start : start + side, start : start + side]


class TiedHead(nn.Module):
    """One small network for all positions; see the module's docstring.

    Parameters
    ----------
    channels
        Of the last feature map.
    side
        Of the member's image, pixels.
    generator
        Of the He initialisation.
    """

    def __init__(self, channels: int, side: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.per_position = nn.Linear(channels, HIDDEN[side])
        self.answer = nn.Linear(HIDDEN[side], 1)
        for layer in (self.per_position, self.answer):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)
        self.position_weight = nn.Parameter(central_weights(POSITIONS[side]))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (N, 2) of the feature map of a full image or of a crop."""
        answers = self.answer(torch.relu(self.per_position(features.flatten(2).transpose(1, 2)))).squeeze(2)
        # The bias of the answer is part of every position's sum: weights of a crop sum to 1 as those of the full image do at
        # first.
        log_odds = answers @ central_crop(self.position_weight, features.shape[-1]).flatten()
        outputs = [log_odds, log_odds]
        outputs[NON_LENS], outputs[LENS] = -0.5 * log_odds, 0.5 * log_odds
        return torch.stack(outputs, dim=1)

    def written_out(self, hidden_units: int) -> DenseWeights:
        """As dense layers of ``hidden_units``, those that are not needed zero."""
        positions, hidden = self.position_weight.numel(), self.per_position.out_features
        channels, used = self.per_position.in_features, positions * hidden
        # The flattened features are ordered (channel, position); unit (position, h) reads its own position only.
        first = torch.zeros(positions, hidden, channels, positions, dtype=torch.float64)
        for position in range(positions):
            first[position, :, :, position] = self.per_position.weight.detach().double().cpu()
        written = DenseWeights(
            torch.zeros(hidden_units, channels * positions, dtype=torch.float64),
            torch.zeros(hidden_units, dtype=torch.float64),
            torch.zeros(2, hidden_units, dtype=torch.float64),
            torch.zeros(2, dtype=torch.float64),
        )
        written.hidden[:used] = first.reshape(used, -1)
        written.hidden_bias[:used] = self.per_position.bias.detach().double().cpu().repeat(positions)
        weights = self.position_weight.detach().double().cpu().flatten()
        log_odds = (weights[:, None] * self.answer.weight.detach().double().cpu()).flatten()
        for unit, half in ((NON_LENS, -0.5), (LENS, 0.5)):
            written.output[unit, :used] = half * log_odds
            written.output_bias[unit] = half * self.answer.bias.item() * weights.sum()
        return written


class DenseHead(nn.Module):
    """The paper's dense layers; full images only."""

    def __init__(self, features: int, hidden_units: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, hidden_units)
        self.output = nn.Linear(hidden_units, 2)
        for layer in (self.hidden, self.output):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (N, 2)."""
        logits: torch.Tensor = self.output(torch.relu(self.hidden(features.flatten(1))))
        return logits

    def written_out(self, hidden_units: int) -> DenseWeights:
        """Its own weights; ``hidden_units`` is what it has."""
        assert hidden_units == self.hidden.out_features
        layers = (self.hidden.weight, self.hidden.bias, self.output.weight, self.output.bias)
        return DenseWeights(*(weights.detach().double().cpu() for weights in layers))

    def take(self, written: DenseWeights) -> None:
        """Take the weights of dense layers."""
        with torch.no_grad():
            for layer, weights in zip(
                (self.hidden.weight, self.hidden.bias, self.output.weight, self.output.bias), written, strict=True
            ):
                layer.copy_(weights)
