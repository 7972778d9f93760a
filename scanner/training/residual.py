"""A member beyond the paper's seven: a small residual network of four bands at VIS's resolution, its training, its graph."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import nn

from scanner.ensemble.preprocessing import ASINH_OFFSET, ASINH_RANGE, nisp_on_vis
from scanner.networks import LENS, NON_LENS
from scanner.records import MEMBER_BANDS, VIS_CUTOUT_PIXELS, Band
from scanner.training.data import ScaledImages
from scanner.training.export import IR_VERSION, OPSET, OnnxGraph
from scanner.training.presets import Stage
from scanner.training.trainer import Feed, Trainer

#: What it sees, and the side of its input in pixels of 0.1": 12.8".
BANDS: tuple[Band, ...] = MEMBER_BANDS["OU-200"]
PIXELS = 128
#: Channels, and residual blocks, at 0.4", 0.8" and 1.6".
WIDTHS, BLOCKS = (64, 128, 192), (1, 2, 1)
HIDDEN, DROPOUT = 96, 0.2
#: Of the scaled sky, and what multiplies its excess: bfloat16 is finest near 0.
SKY, GAIN = ASINH_OFFSET / ASINH_RANGE, 8.0


class ResidualNetwork(nn.Module):
    """From scaled images (N, 4, 128, 128; :data:`BANDS`, NISP on VIS's pixels) to ``outputs`` logits: two for a member.

    VIS and its difference to itself turned come as four channels each of every second pixel, NISP as means of 2 x 2 pixels, on
    64 x 64. Of the last 8 x 8 positions the head sees the mean, the maximum, and a sum with weights of its own: a lens stands
    in the centre.
    """

    def __init__(self, seed: int = 0, outputs: int = 2) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            channels = 2 * 4 + len(BANDS) - 1
            self.stages = nn.Sequential(
                *(
                    nn.Sequential(_Convolution(before, width, 5 if before == channels else 3, 2), *map(_Block, [width] * n))
                    for (before, width), n in zip(pairwise((channels, *WIDTHS)), BLOCKS, strict=True)
                )
            )
            last, positions = WIDTHS[-1], PIXELS // 2 ** (len(WIDTHS) + 1)
            self.weighted = nn.Conv2d(last, last, positions, groups=last, bias=False)
            nn.init.constant_(self.weighted.weight, 1.0 / positions**2)
            self.dropout = nn.Dropout(DROPOUT)
            self.hidden, self.output = nn.Linear(3 * last, HIDDEN), nn.Linear(HIDDEN, outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits; in bfloat16 where the caller casts."""
        images = (images - SKY) * GAIN
        vis, nisp = images[:, -1:], nn.functional.avg_pool2d(images[:, :-1], 2)
        odd = vis - vis.flip((2, 3))
        joined = torch.cat([nn.functional.pixel_unshuffle(vis, 2), nn.functional.pixel_unshuffle(odd, 2), nisp], dim=1)
        features = self.stages(joined.contiguous(memory_format=torch.channels_last))
        seen = torch.cat([self.weighted(features).flatten(1), features.mean((2, 3)), features.amax((2, 3))], dim=1)
        answer: torch.Tensor = self.output(self.dropout(torch.relu(self.hidden(self.dropout(seen)))))
        return answer


class _Convolution(nn.Module):
    """Convolution, normalisation and, unless it ends a block, ReLU."""

    def __init__(self, before: int, width: int, kernel: int, stride: int = 1, *, ends: bool = False) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(before, width, kernel, stride, kernel // 2, bias=False)
        self.norm, self.ends = nn.BatchNorm2d(width), ends

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.norm(self.convolution(images))
        return found if self.ends else torch.relu(found)


class _Block(nn.Module):
    """What it is given, plus what two convolutions make of it: at first nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _Convolution(width, width, 3), _Convolution(width, width, 3, ends=True)
        nn.init.zeros_(self.second.norm.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.relu(images + self.second(self.first(images)))


class ResidualTrainer(Trainer):
    """The residual network in training: other images and another network; loss, batches and validation are every member's."""

    def _network(self) -> nn.Module:
        network = ResidualNetwork(self.seed).to(self.device)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def feed(self, stage: Stage) -> Feed:
        """The central 12.8"; ``stage`` does not matter."""
        return CentralFeed(self.images, self.device)


class CentralFeed(Feed):
    """Reads the centre of VIS, and NISP on its pixels: ``pixels`` a side, an even number."""

    def __init__(self, images: ScaledImages, device: torch.device, pixels: int = PIXELS) -> None:
        super().__init__(images, "OU-200", pixels, device)
        self.start = (VIS_CUTOUT_PIXELS - pixels) // 2
        self.enlarge = torch.from_numpy(nisp_on_vis(VIS_CUTOUT_PIXELS).astype(np.float32)).to(device)


def to_onnx(network: ResidualNetwork) -> bytes:
    """The network as ``scanner models add-member`` takes it: input ``images`` (N, 4, 128, 128), output ``log_odds`` (N, 1)."""
    graph = OnnxGraph()
    logits = added_network(graph, network)
    difference = np.zeros((2, 1), dtype=np.float32)
    difference[LENS], difference[NON_LENS] = 1.0, -1.0
    graph.node("MatMul", [logits, graph.constant("lens-minus-non-lens", difference)], "log_odds")
    return serialised(graph, "scanner-residual", "log_odds", 1)


def added_network(graph: OnnxGraph, network: ResidualNetwork) -> str:
    """Add the network to a graph, from its input ``images`` on; return the output that has its logits.

    Written node by node, normalisation folded into the convolutions: the same weights give the same bytes.
    """
    halves = graph.split("images", (len(BANDS) - 1, 1), ["nisp", "vis"], axis=1)
    nisp = graph.node("AveragePool", [halves[0]], "nisp/coarse", kernel_shape=[2, 2], strides=[2, 2])
    excess = [graph.node("Sub", [source, graph.scalar(SKY)], f"{source}/excess") for source in (halves[1], nisp)]
    vis, nisp = (graph.node("Mul", [source, graph.scalar(GAIN)], f"{source}/in") for source in excess)
    backwards = graph.integers(-1, -1)
    turned = graph.node(
        "Slice", [vis, backwards, graph.integers(*[-PIXELS - 1] * 2), graph.integers(2, 3), backwards], "vis/turned"
    )
    odd = graph.node("Sub", [vis, turned], "vis/odd")
    parts = [graph.node("SpaceToDepth", [source], f"{source}/channels", blocksize=2) for source in (vis, odd)]
    current = graph.node("Concat", [*parts, nisp], "joined", axis=1)
    for name, layer in network.stages.named_children():
        for part, module in layer.named_children():
            current = _added(graph, module, f"stages/{name}/{part}", current)
    kernel = graph.constant("weighted.weight", _numbers(network.weighted.weight))
    weighted = graph.node("Conv", [current, kernel], "weighted", group=network.weighted.groups)
    pooled = [weighted, *(graph.node(f"Global{kind}Pool", [current], kind.lower()) for kind in ("Average", "Max"))]
    seen = graph.node("Flatten", [graph.node("Concat", pooled, "seen", axis=1)], "flat", axis=1)
    hidden = graph.node("Relu", [_dense(graph, network.hidden, "hidden", seen)], "hidden/relu")
    return _dense(graph, network.output, "output", hidden)


def serialised(graph: OnnxGraph, name: str, output: str, width: int) -> bytes:
    """A checked model of a graph that :func:`added_network` began; its output is (N, ``width``)."""
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            name,
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", len(BANDS), PIXELS, PIXELS])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", width])],
            [*graph.constants.values()],
        ),
        producer_name="scanner",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _added(graph: OnnxGraph, module: nn.Module, name: str, current: str) -> str:
    if isinstance(module, _Block):
        inner = _added(graph, module.second, f"{name}/second", _added(graph, module.first, f"{name}/first", current))
        return graph.node("Relu", [graph.node("Add", [current, inner], f"{name}/sum")], name)
    assert isinstance(module, _Convolution)
    convolution, norm = module.convolution, module.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    weights = graph.constant(f"{name}.weight", _numbers(convolution.weight.double() * scale[:, None, None, None]))
    bias = graph.constant(f"{name}.bias", _numbers(norm.bias.double() - norm.running_mean.double() * scale))
    kernel, stride, pad = convolution.kernel_size[0], convolution.stride[0], convolution.kernel_size[0] // 2
    found = graph.node(
        "Conv", [current, weights, bias], f"{name}/sum", kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4
    )
    return found if module.ends else graph.node("Relu", [found], name)


def _dense(graph: OnnxGraph, layer: nn.Linear, name: str, source: str) -> str:
    constants = [graph.constant(f"{name}.{kind}", _numbers(getattr(layer, kind))) for kind in ("weight", "bias")]
    return graph.node("Gemm", [source, *constants], name, transB=1)


def _numbers(values: torch.Tensor) -> NDArray[np.float32]:
    return values.detach().to("cpu", torch.float32).numpy()
