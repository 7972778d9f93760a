"""The trainable twin of a member: the paper's network in a form that trains well, and the exact way back."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import nn

from scanner.networks import LENS, NON_LENS, architecture_of, build
from scanner.records import MEMBER_BANDS, MEMBER_PIXELS, NISP_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS, MemberName

#: The smallest scale of a batch normalisation: it must stay positive for pooling and normalisation to commute.
SMALLEST_SCALE = 1e-3
#: Norm of a kernel after He initialisation (variance 2 / fan-in, fan-in weights).
KERNEL_NORM = math.sqrt(2.0)


class Layout(NamedTuple):
    """Crops and head of the twins of one architecture.

    ``crop_pixels``: side of the crop that a member is first trained on. ``crop_stride``: a crop must start at a multiple of the
    twin's total pooling, or its pooled pixels would not be those of the full image. ``first_padded``: convolutions from this
    number on are padded when the input is a crop. ``positions``: along one side of the last feature map. ``hidden``: units per
    position of the tied head; positions² x hidden must fit in the paper's dense layer.
    """

    crop_pixels: int
    crop_stride: int
    first_padded: int
    positions: int
    hidden: int


#: By the side of a member's image in pixels.
LAYOUTS = {
    VIS_CUTOUT_PIXELS: Layout(crop_pixels=68, crop_stride=16, first_padded=4, positions=6, hidden=9),
    NISP_CUTOUT_PIXELS: Layout(crop_pixels=34, crop_stride=8, first_padded=5, positions=2, hidden=48),
}


class Twin(nn.Module):
    """A member in its trainable form: the function of the paper's network, in another order and with another head.

    What differs while training, and why :func:`fold` can undo it:

    - **Order.** Convolution, pooling, batch normalisation, ReLU. With a positive scale, normalisation and ReLU are increasing
      and commute with the maximum: the paper's convolution, ReLU, pooling gives the same numbers, from four times the pixels.
    - **Batch normalisation** is affine once its statistics are fixed: it is folded into the convolution before it.
    - **Tied head**: see :class:`TiedHead`.
    - **Crops.** The twin also takes a central crop: the convolutions after the last but one pooling are then padded by one
      pixel, so that the positions of a crop are the central positions of the full image, and weights learned on crops hold.

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
        self.layout = LAYOUTS[self.side]
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
            TiedHead(channels, self.layout, generator)
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
        padding = 1 if cropped and number >= self.layout.first_padded else 0
        images = nn.functional.conv2d(images, self.layer(number)[0].weight, padding=padding)
        return nn.functional.max_pool2d(images, 2) if self.pooled[number] else images


class TiedHead(nn.Module):
    """One small network (channels, hidden, 1) for every position of the last feature map; answers are summed with weights.

    Written out, that is a dense layer of positions x hidden units and one of two outputs, which fits in the paper's
    (720, 350, 2) and (120, 500, 2).

    Parameters
    ----------
    channels
        Of the last feature map.
    layout
        Of the member.
    generator
        Of the He initialisation.
    """

    def __init__(self, channels: int, layout: Layout, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.per_position = nn.Linear(channels, layout.hidden)
        self.answer = nn.Linear(layout.hidden, 1)
        for layer in (self.per_position, self.answer):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)
        self.position_weight = nn.Parameter(central_weights(layout.positions))

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


def central_weights(side: int) -> torch.Tensor:
    """Weights (side, side) that average the central 2 x 2 positions, which are those of a crop."""
    weights = torch.zeros(side, side)
    weights[side // 2 - 1 : side // 2 + 1, side // 2 - 1 : side // 2 + 1] = 0.25
    return weights


def central_crop(weights: torch.Tensor, side: int) -> torch.Tensor:
    """Return the central (side, side) of square ``weights``."""
    start = (weights.shape[0] - side) // 2
    return weights[start : start + side, start : start + side]


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


class DenseWeights(NamedTuple):
    """Weight and bias of the paper's two dense layers, float64."""

    hidden: torch.Tensor
    hidden_bias: torch.Tensor
    output: torch.Tensor
    output_bias: torch.Tensor


def fold(twin: Twin) -> nn.Sequential:
    """Write the twin as the paper's network, in evaluation mode.

    Parameters
    ----------
    twin
        Trained or not; its running statistics are what is folded in.

    Returns
    -------
    torch.nn.Sequential
        What :func:`scanner.networks.build` returns, float32, on the CPU, with weights that give the logits of ``twin.eval()``
        on full images up to rounding (float64 inside, 1e-5 in float32).
    """
    network = build(twin.member, seed=0)
    targets, dense, output = _layers(network)
    with torch.no_grad():
        for number, target in enumerate(targets):
            convolution, norm = twin.layer(number)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            assert target.bias is not None
            scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
            target.weight.copy_(convolution.weight.double() * scale[:, None, None, None])
            target.bias.copy_(norm.bias.double() - norm.running_mean.double() * scale)
        written = twin.head.written_out(dense.out_features)
        for layer, weights in zip((dense.weight, dense.bias, output.weight, output.bias), written, strict=True):
            layer.copy_(weights)
    return network.eval()


def unfold(network: nn.Sequential, twin: Twin) -> None:
    """Give ``twin`` the function of a network as bundles hold it; its head becomes that network's dense layers.

    The normalisation is left without statistics (mean 0, variance 1), which folding has lost: call :func:`renormalise` before
    training.
    """
    convolutions, dense, output = _layers(network)
    with torch.no_grad():
        for number, source in enumerate(convolutions):
            convolution, norm = twin.layer(number)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            assert source.bias is not None
            convolution.weight.copy_(source.weight)
            norm.running_mean.zero_()
            norm.running_var.fill_(1.0 - norm.eps)
            norm.weight.fill_(1.0)
            norm.bias.copy_(source.bias)
    twin.expand()
    assert isinstance(twin.head, DenseHead)
    twin.head.take(DenseWeights(*(weights.detach() for layer in (dense, output) for weights in (layer.weight, layer.bias))))


def _layers(network: nn.Sequential) -> tuple[list[nn.Conv2d], nn.Linear, nn.Linear]:
    dense, output = (layer for layer in network if isinstance(layer, nn.Linear))
    return [layer for layer in network if isinstance(layer, nn.Conv2d)], dense, output


def renormalise(twin: Twin, batches: Sequence[torch.Tensor]) -> None:
    """Let the normalisation hold the statistics of images, and kernels the norm of fresh ones, without changing the function.

    Any mean and variance describe the same function if scale and bias make up for them, but only those of the images let
    training go on where it was.

    Parameters
    ----------
    twin
        Changed in place: running statistics, scales, biases and kernel norms.
    batches
        Scaled images (n, channels, p, p), full or cropped, all of one size.
    """
    twin.eval()
    current = list(batches)
    with torch.no_grad():
        for number in range(len(twin.convolutions)):
            convolution, norm = twin.layer(number)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            cropped = batches[0].shape[-1] < twin.side
            seen = [twin.pooled_convolution(number, images, cropped) for images in current]
            channels = torch.cat([values.transpose(0, 1).flatten(1) for values in seen], dim=1).double()
            mean, variance = channels.mean(dim=1), channels.var(dim=1)
            slope = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
            bias = norm.bias.double() + slope * (mean - norm.running_mean.double())
            size = convolution.weight.double().flatten(1).norm(dim=1).clamp(min=1e-12)
            stretch = KERNEL_NORM / size
            convolution.weight.mul_(stretch[:, None, None, None])
            norm.running_mean.copy_(mean * stretch)
            norm.running_var.copy_(variance * stretch**2)
            norm.weight.copy_(slope / stretch * torch.sqrt(norm.running_var.double() + norm.eps))
            norm.bias.copy_(bias)
            current = [twin.block(number, images, cropped) for images in current]


def mean_of(one: nn.Sequential, other: nn.Sequential, share: float) -> nn.Sequential:
    """A network of the architecture of both, whose weights are ``share`` of those of ``one`` and the rest of ``other``'s.

    Where one was trained on from the other, such a mean has the noise of neither (Wortsman et al. 2022, "Robust fine-tuning of
    zero-shot models", section 4).
    """
    mean = copy.deepcopy(other)
    begun, ended = one.state_dict(), other.state_dict()
    mean.load_state_dict({name: share * begun[name] + (1.0 - share) * ended[name] for name in ended})
    return mean


def transplant(source: dict[str, torch.Tensor], member: MemberName, twin: Twin) -> None:
    """Give ``twin`` the weights of a trained twin of the same architecture that sees other bands.

    The first convolution keeps the kernels of the bands that both see; those of bands that only ``twin`` sees become zero, so
    that it begins as the same function of what it knows already. A head that was written out as dense layers stays behind, and
    ``twin`` keeps its own.

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
    if not any(key.startswith("head.per_position") for key in source):
        state = {key: value for key, value in source.items() if not key.startswith("head.")}
        state |= {key: value for key, value in twin.state_dict().items() if key.startswith("head.")}
    first = "convolutions.0.weight"
    seen, kernels = MEMBER_BANDS[member], twin.state_dict()[first].clone()
    for channel, band in enumerate(MEMBER_BANDS[twin.member]):
        kernels[:, channel] = source[first][:, seen.index(band)] if band in seen else 0.0
    state[first] = kernels
    twin.load_state_dict(state)
