"""Seven torch networks and their preprocessing, merged into one ONNX graph, and back again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from scanner.ensemble.bundle import BundleContent, MemberEntry
from scanner.ensemble.preprocessing import (
    ASINH_OFFSET,
    ASINH_RANGE,
    CLIP_SIGMA,
    MINMAX_FLOOR,
    PREPROCESSINGS,
    SOFTENING_SIGMA,
    Preprocessing,
    resize_matrix,
)
from scanner.errors import ContentError
from scanner.networks import LENS, NON_LENS, build
from scanner.records import (
    MEMBER_BANDS,
    MEMBER_PIXELS,
    MEMBERS,
    NISP_BANDS,
    NISP_CUTOUT_PIXELS,
    VIS_CUTOUT_PIXELS,
    Band,
    MemberName,
)

#: Old enough for every ONNX Runtime of the last years and for OpenVINO and TensorRT; nothing newer is needed.
OPSET = 17
IR_VERSION = 8


def bundle_content(
    members: Mapping[MemberName, nn.Sequential],
    preprocessing: Preprocessing,
    *,
    name: str,
    version: str,
    description: str,
    sources: Mapping[MemberName, str],
    trained_on: Sequence[str] = (),
) -> BundleContent:
    """Merge the members into a bundle's content, judged by the mean of their probabilities.

    Parameters
    ----------
    members, preprocessing
        See :func:`merge_onnx`.
    name, version, description, trained_on
        See :class:`~scanner.ensemble.bundle.BundleManifest`.
    sources
        Where the weights of each member come from, one line each.

    Raises
    ------
    ContentError
        The members cannot be exported.
    """
    entries = [
        MemberEntry(
            name=member,
            bands=MEMBER_BANDS[member],
            pixels=MEMBER_PIXELS[member],
            parameters=sum(weights.numel() for weights in members[member].parameters()),
            source=sources[member],
        )
        for member in MEMBERS
    ]
    return BundleContent(
        name=name,
        version=version,
        description=description,
        members=entries,
        preprocessing=preprocessing,
        model=merge_onnx(members, preprocessing),
        trained_on=trained_on,
    )


def merge_onnx(members: Mapping[MemberName, nn.Sequential], preprocessing: Preprocessing) -> bytes:
    """Merge seven networks and their preprocessing into one ONNX model.

    The graph is written node by node rather than traced, so the same weights give the same bytes whatever the version of torch.
    Weights keep the names ``<member>/<layer>.weight``, by which :func:`read_members` finds them.

    Parameters
    ----------
    members
        All of :data:`scanner.records.MEMBERS`, made of the layers of Tables 3 and 4 (convolution, ReLU, pooling, dropout,
        flatten, dense), two outputs each: (non-lens, lens).
    preprocessing
        ``minmax`` or ``asinh_mad``; see :mod:`scanner.ensemble.preprocessing`.

    Returns
    -------
    bytes
        The serialised model. Inputs, all float32: ``vis`` (N, 200, 200) and ``nisp`` (N, 3, 66, 66; Y, J, H) without NaN, and,
        for ``asinh_mad`` only, ``sky`` and ``sigma`` (N, 4; VIS, Y, J, H). Output ``logits`` (N, 7): z_lens - z_non-lens in the
        order of :data:`~scanner.records.MEMBERS`. N is free. The same weights give the same bytes.

    Raises
    ------
    ContentError
        A member is missing, has a layer that cannot be exported, or weights that are not finite.
    ValueError
        Unknown preprocessing.
    """
    if preprocessing not in PREPROCESSINGS:
        raise ValueError(f"unknown preprocessing {preprocessing!r}: one of {', '.join(PREPROCESSINGS)}")
    missing = [name for name in MEMBERS if name not in members]
    if missing:
        raise ContentError(f"the ensemble lacks {', '.join(missing)}: all seven members are needed.")
    graph = OnnxGraph()
    images = add_preprocessing(graph, preprocessing)
    log_odds = []
    for member in MEMBERS:
        side = MEMBER_PIXELS[member]
        channels = [images[band, side] for band in MEMBER_BANDS[member]]
        source = channels[0] if len(channels) == 1 else graph.node("Concat", channels, f"{member}/input", axis=1)
        log_odds.append(_network(graph, member, members[member], source))
    graph.node("Concat", log_odds, "logits", axis=1)

    def floats(name: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])

    inputs = [floats("vis", VIS_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS)]
    inputs.append(floats("nisp", len(NISP_BANDS), NISP_CUTOUT_PIXELS, NISP_CUTOUT_PIXELS))
    if preprocessing == "asinh_mad":
        inputs += [floats("sky", 1 + len(NISP_BANDS)), floats("sigma", 1 + len(NISP_BANDS))]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes, "scanner-ensemble", inputs, [floats("logits", len(MEMBERS))], [*graph.constants.values()]
        ),
        producer_name="scanner",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _network(graph: OnnxGraph, member: MemberName, network: nn.Sequential, source: str) -> str:
    """Add one member; return the name of its (N, 1) lens log-odds."""
    current = source
    for name, layer in network.named_children():
        output = f"{member}/{name}"
        weights = {
            key: graph.constant(f"{output}.{key}", value.detach().to("cpu", torch.float32).numpy())
            for key, value in layer.named_parameters()
        }
        if not all(np.isfinite(numpy_helper.to_array(graph.constants[key])).all() for key in weights.values()):
            raise ContentError(f"{member}, layer {name}: weights that are not finite cannot be exported; train it again.")
        if not _is_plain(layer):
            raise ContentError(f"{member}, layer {name}: {layer} has no place in the exported graph; fold or remove it first.")
        if isinstance(layer, nn.Conv2d) and isinstance(layer.padding, tuple):
            kernel, strides, pads = list(layer.kernel_size), list(layer.stride), list(layer.padding) * 2
            current = graph.node("Conv", [current, *weights.values()], output, kernel_shape=kernel, strides=strides, pads=pads)
        elif isinstance(layer, nn.ReLU):
            current = graph.node("Relu", [current], output)
        elif isinstance(layer, nn.MaxPool2d):
            kernel, strides = _pair(layer.kernel_size), _pair(layer.stride)
            current = graph.node("MaxPool", [current], output, kernel_shape=kernel, strides=strides)
        elif isinstance(layer, nn.Flatten):
            current = graph.node("Flatten", [current], output, axis=1)
        elif isinstance(layer, nn.Linear):
            current = graph.node("Gemm", [current, *weights.values()], output, transB=1)
    difference = np.zeros((2, 1), dtype=np.float32)
    difference[LENS], difference[NON_LENS] = 1.0, -1.0
    return graph.node("MatMul", [current, graph.constant("lens-minus-non-lens", difference)], f"{member}/log-odds")


def _is_plain(layer: nn.Module) -> bool:
    """Whether a layer has no option that the graph would drop silently."""
    if isinstance(layer, nn.Conv2d):
        return isinstance(layer.padding, tuple) and (layer.dilation, layer.groups, layer.padding_mode) == ((1, 1), 1, "zeros")
    if isinstance(layer, nn.MaxPool2d):
        return (layer.padding, layer.dilation, layer.ceil_mode) == (0, 1, False)
    return isinstance(layer, nn.ReLU | nn.Flatten | nn.Linear | nn.Dropout)


def _pair(value: int | tuple[int, ...]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def add_preprocessing(graph: OnnxGraph, preprocessing: Preprocessing) -> dict[tuple[Band, int], str]:
    """Add the scaling and the resizing; return the name of the (N, 1, side, side) image of every band and side."""
    vis = graph.node("Unsqueeze", ["vis", graph.integers(1)], "vis/image")
    sides = (NISP_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS)
    ready: dict[tuple[str, int], str] = {}
    if preprocessing == "minmax":
        raised_vis, raised_nisp = _from_minimum(graph, vis), _from_minimum(graph, "nisp")
        for side in sides:
            ready["vis", side] = _minmax(graph, _resized(graph, raised_vis, VIS_CUTOUT_PIXELS, side))
            ready["nisp", side] = _minmax(graph, _resized(graph, raised_nisp, NISP_CUTOUT_PIXELS, side))
    else:
        level: dict[str, list[str]] = {}
        for name in ("sky", "sigma"):
            parts = graph.split(name, (1, len(NISP_BANDS)), [f"{name}/vis", f"{name}/nisp"], axis=1)
            level[name] = [graph.node("Unsqueeze", [part, graph.integers(2, 3)], f"{part}/image") for part in parts]
        scaled_vis = asinh_mad(graph, vis, level["sky"][0], level["sigma"][0])
        scaled_nisp = asinh_mad(graph, "nisp", level["sky"][1], level["sigma"][1])
        for side in sides:
            ready["vis", side] = _resized(graph, scaled_vis, VIS_CUTOUT_PIXELS, side)
            ready["nisp", side] = _resized(graph, scaled_nisp, NISP_CUTOUT_PIXELS, side)

    images: dict[tuple[Band, int], str] = {}
    for side in sides:
        images["VIS", side] = ready["vis", side]
        names = [f"{band}/{side}" for band in NISP_BANDS]
        graph.split(ready["nisp", side], (1,) * len(NISP_BANDS), names, axis=1)
        images.update({(band, side): name for band, name in zip(NISP_BANDS, names, strict=True)})
    return images


def _minmax(graph: OnnxGraph, source: str) -> str:
    low = graph.node("ReduceMin", [source], f"{source}/low", axes=[-2, -1], keepdims=1)
    high = graph.node("ReduceMax", [source], f"{source}/high", axes=[-2, -1], keepdims=1)
    span = graph.node("Sub", [high, low], f"{source}/span")
    divisor = graph.node("Max", [span, graph.scalar(MINMAX_FLOOR)], f"{source}/divisor")
    shifted = graph.node("Sub", [source, low], f"{source}/shifted")
    return graph.node("Div", [shifted, divisor], f"{source}/scaled")


def _from_minimum(graph: OnnxGraph, source: str) -> str:
    low = graph.node("ReduceMin", [source], f"{source}/minimum", axes=[-2, -1], keepdims=1)
    return graph.node("Sub", [source, low], f"{source}/from-minimum")


def asinh_mad(graph: OnnxGraph, source: str, sky: str, sigma: str) -> str:
    """Scale by asinh; ``sky`` and ``sigma`` already broadcast.

    asinh(x) is spelt log(x + sqrt(x² + 1)): the CUDA provider has no Asinh, and from x = -2 upwards float32 loses nothing.
    """
    excess = graph.node("Sub", [source, sky], f"{source}/excess")
    signal = graph.node("Div", [excess, sigma], f"{source}/signal")
    clipped = graph.node("Clip", [signal, *map(graph.scalar, CLIP_SIGMA)], f"{source}/clipped")
    x = graph.node("Mul", [clipped, graph.scalar(1.0 / SOFTENING_SIGMA)], f"{source}/softened")
    square = graph.node("Mul", [x, x], f"{source}/square")
    beneath = graph.node("Add", [square, graph.scalar(1.0)], f"{source}/beneath")
    root = graph.node("Sqrt", [beneath], f"{source}/root")
    inside = graph.node("Add", [x, root], f"{source}/inside")
    asinh = graph.node("Log", [inside], f"{source}/asinh")
    raised = graph.node("Add", [asinh, graph.scalar(ASINH_OFFSET)], f"{source}/raised")
    return graph.node("Mul", [raised, graph.scalar(1.0 / ASINH_RANGE)], f"{source}/scaled")


def _resized(graph: OnnxGraph, source: str, n_in: int, n_out: int) -> str:
    """Resize the last two axes; ``source`` itself where nothing changes."""
    if n_in == n_out:
        return source
    matrix = resize_matrix(n_in, n_out).astype(np.float32)
    rows = graph.constant(f"resize/{n_in}-{n_out}/rows", matrix)
    columns = graph.constant(f"resize/{n_in}-{n_out}/columns", matrix.T)
    across = graph.node("MatMul", [source, columns], f"{source}/{n_out}/across")
    return graph.node("MatMul", [rows, across], f"{source}/{n_out}")


class OnnxGraph:
    """Nodes and constants in the order they were added; every node gets a readable, unique output name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, values: NDArray[np.float32] | NDArray[np.int64]) -> str:
        """Add a constant unless one of that name is there; return the name."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def scalar(self, value: float) -> str:
        """Add a float32 scalar; return its name."""
        return self.constant(f"scalar/{value!r}", np.array(value, dtype=np.float32))

    def integers(self, *values: int) -> str:
        """Add a vector of int64 (axes, sizes); return its name."""
        return self.constant(f"integers/{','.join(map(str, values))}", np.array(values, dtype=np.int64))

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node of one output; return the output."""
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def split(self, source: str, sizes: tuple[int, ...], outputs: list[str], axis: int) -> list[str]:
        """Split ``source`` along ``axis`` into parts of the given sizes; return ``outputs``."""
        inputs = [source, self.integers(*sizes)]
        self.nodes.append(helper.make_node("Split", inputs, outputs, name=f"{source}/split", axis=axis))
        return outputs


def read_members(path: Path) -> dict[MemberName, nn.Sequential]:
    """Read the seven networks back from an exported model, for fine-tuning or for explaining them.

    Parameters
    ----------
    path
        ``ensemble.onnx`` of a bundle.

    Returns
    -------
    dict
        The members in evaluation mode, float32, weights exactly as exported; of a bundle in 8-bit integers as rounded there.

    Raises
    ------
    ContentError
        The file is not such a model.
    """
    try:
        model = onnx.load(path)
        weights = {constant.name: numpy_helper.to_array(constant) for constant in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "DequantizeLinear" and node.input[0] in weights:
                weights[node.input[0].removesuffix("_quantized")] = _dequantised(*(weights[name] for name in node.input))
        members = {}
        for member in MEMBERS:
            network = build(member)
            state = {key: torch.from_numpy(weights[f"{member}/{key}"].copy()) for key in network.state_dict()}
            network.load_state_dict(state)
            members[member] = network.eval()
    except (OSError, DecodeError, KeyError, RuntimeError) as error:
        raise ContentError(f"{path}: not an ensemble exported by scanner ({type(error).__name__}); export it again.") from error
    return members


def _dequantised(values: NDArray[Any], scale: NDArray[np.float32], zero: NDArray[Any]) -> NDArray[np.float32]:
    """Integers with a scale, or one for each entry of the first axis, as the numbers that they stand for."""
    shape = (-1,) + (1,) * (values.ndim - 1) if scale.ndim else ()
    return (values - zero.reshape(shape).astype(np.int64)).astype(np.float32) * scale.reshape(shape)
