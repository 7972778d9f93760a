"""Seven torch networks and their preprocessing, merged into one ONNX graph, and back again.

In: the members as built by :func:`scanner.networks.build` (BatchNorm already folded into the convolutions) and the name of the
preprocessing. Out: the bytes of an ONNX model from raw cutouts to seven lens log-odds, or the members read back from such a
model. Refused: missing members, layers that the graph has no node for, weights that are not finite.

The graph is written node by node rather than traced, so the same weights give the same bytes whatever the version of torch.
Weights keep the names ``<member>/<layer>.weight``, which is how they are found again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from scanner.ensemble.bundle import BundleContent, MemberEntry
from scanner.ensemble.preprocessing import PREPROCESSINGS, Preprocessing
from scanner.errors import ContentError
from scanner.networks import LENS, NON_LENS, build
from scanner.records import (
    MEMBER_BANDS,
    MEMBER_PIXELS,
    MEMBERS,
    NISP_BANDS,
    NISP_CUTOUT_PIXELS,
    VIS_CUTOUT_PIXELS,
    MemberName,
)
from scanner.training.onnx_graph import OnnxGraph, add_preprocessing

#: Old enough for every ONNX Runtime of the last years and for OpenVINO and TensorRT; nothing newer is needed.
OPSET = 17
IR_VERSION = 8


def _pair(value: int | tuple[int, ...]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _is_plain(layer: nn.Module) -> bool:
    """Whether a layer has no option that the graph would drop silently."""
    if isinstance(layer, nn.Conv2d):
        return isinstance(layer.padding, tuple) and (layer.dilation, layer.groups, layer.padding_mode) == ((1, 1), 1, "zeros")
    if isinstance(layer, nn.MaxPool2d):
        return (layer.padding, layer.dilation, layer.ceil_mode) == (0, 1, False)
    return isinstance(layer, nn.ReLU | nn.Flatten | nn.Linear | nn.Dropout)


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


def merge_onnx(members: Mapping[MemberName, nn.Sequential], preprocessing: Preprocessing) -> bytes:
    """Merge seven networks and their preprocessing into one ONNX model.

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


def read_members(path: Path) -> dict[MemberName, nn.Sequential]:
    """Read the seven networks back from an exported model, for fine-tuning or for explaining them.

    Parameters
    ----------
    path
        ``ensemble.onnx`` of a bundle.

    Returns
    -------
    dict
        The members in evaluation mode, float32, weights exactly as exported.

    Raises
    ------
    ContentError
        The file is not such a model.
    """
    try:
        model = onnx.load(path)
        weights = {constant.name: numpy_helper.to_array(constant) for constant in model.graph.initializer}
        members = {}
        for member in MEMBERS:
            network = build(member)
            state = {key: torch.from_numpy(weights[f"{member}/{key}"].copy()) for key in network.state_dict()}
            network.load_state_dict(state)
            members[member] = network.eval()
    except (OSError, DecodeError, KeyError, RuntimeError) as error:
        raise ContentError(f"{path}: not an ensemble exported by scanner ({type(error).__name__}); export it again.") from error
    return members
