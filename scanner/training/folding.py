"""From the trainable twin to the paper's network and back, exactly; and from one member's twin to another's.

In: a :class:`~scanner.training.network.Twin`, or a network as :func:`scanner.networks.build` makes it and bundles hold it.
Out: the other. Refused: twins of different architectures (``ValueError``).

A folded network has lost the statistics of its normalisation, so unfolding measures them anew on images
(:func:`renormalise`): any mean and variance describe the same function, if scale and bias make up for them, but only the true
ones let training go on where it was.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import nn

from scanner.networks import build
from scanner.records import MEMBER_BANDS, MEMBER_PIXELS, MemberName
from scanner.training.head import DenseHead, DenseWeights
from scanner.training.network import Twin

#: Norm of a kernel after He initialisation (variance 2 / fan-in, fan-in weights).
KERNEL_NORM = math.sqrt(2.0)


def _layers(network: nn.Sequential) -> tuple[list[nn.Conv2d], nn.Linear, nn.Linear]:
    dense, output = (layer for layer in network if isinstance(layer, nn.Linear))
    return [layer for layer in network if isinstance(layer, nn.Conv2d)], dense, output


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

    The normalisation is left without statistics (mean 0, variance 1): call :func:`renormalise` before training.
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


def mean_of(one: nn.Sequential, other: nn.Sequential, share: float) -> nn.Sequential:
    """A network of the architecture of both, whose weights are ``share`` of those of ``one`` and the rest of ``other``'s.

    Where one was trained on from the other, such a mean has the noise of neither (Wortsman et al. 2022, "Robust fine-tuning of
    zero-shot models", section 4).
    """
    mean = copy.deepcopy(other)
    begun, ended = one.state_dict(), other.state_dict()
    mean.load_state_dict({name: share * begun[name] + (1.0 - share) * ended[name] for name in ended})
    return mean


def renormalise(twin: Twin, batches: Sequence[torch.Tensor]) -> None:
    """Let the normalisation hold the statistics of images, and kernels the norm of fresh ones, without changing the function.

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
