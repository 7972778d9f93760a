"""Writing an ONNX graph by hand: nodes, constants, and the preprocessing of the ensemble as nodes.

In: an :class:`OnnxGraph` under construction and the name of the preprocessing. Out: the names of the scaled images that the
members read, one of every band and side. Refused: nothing; the numbers are those of :mod:`scanner.ensemble.preprocessing`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from scanner.ensemble.preprocessing import (
    ASINH_OFFSET,
    ASINH_RANGE,
    CLIP_SIGMA,
    MINMAX_FLOOR,
    SOFTENING_SIGMA,
    Preprocessing,
    resize_matrix,
)
from scanner.records import NISP_BANDS, NISP_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS, Band


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


def _resized(graph: OnnxGraph, source: str, n_in: int, n_out: int) -> str:
    """Resize the last two axes; ``source`` itself where nothing changes."""
    if n_in == n_out:
        return source
    matrix = resize_matrix(n_in, n_out).astype(np.float32)
    rows = graph.constant(f"resize/{n_in}-{n_out}/rows", matrix)
    columns = graph.constant(f"resize/{n_in}-{n_out}/columns", matrix.T)
    across = graph.node("MatMul", [source, columns], f"{source}/{n_out}/across")
    return graph.node("MatMul", [rows, across], f"{source}/{n_out}")


def _from_minimum(graph: OnnxGraph, source: str) -> str:
    low = graph.node("ReduceMin", [source], f"{source}/minimum", axes=[-2, -1], keepdims=1)
    return graph.node("Sub", [source, low], f"{source}/from-minimum")


def _minmax(graph: OnnxGraph, source: str) -> str:
    low = graph.node("ReduceMin", [source], f"{source}/low", axes=[-2, -1], keepdims=1)
    high = graph.node("ReduceMax", [source], f"{source}/high", axes=[-2, -1], keepdims=1)
    span = graph.node("Sub", [high, low], f"{source}/span")
    divisor = graph.node("Max", [span, graph.scalar(MINMAX_FLOOR)], f"{source}/divisor")
    shifted = graph.node("Sub", [source, low], f"{source}/shifted")
    return graph.node("Div", [shifted, divisor], f"{source}/scaled")


def _asinh_mad(graph: OnnxGraph, source: str, sky: str, sigma: str) -> str:
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
        scaled_vis = _asinh_mad(graph, vis, level["sky"][0], level["sigma"][0])
        scaled_nisp = _asinh_mad(graph, "nisp", level["sky"][1], level["sigma"][1])
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
