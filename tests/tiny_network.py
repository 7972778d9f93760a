"""A small ONNX network for tests and what it computes, and a bundle that has it as a member."""

import numpy as np
import onnx
from made_dataset import write_dataset
from onnx import TensorProto, helper, numpy_helper
from scans import light_bundle

from scanner.ensemble import bundles
from scanner.ensemble.preprocessing import scale_asinh_mad, scale_minmax
from scanner.labelled_set import LabelledSet
from scanner.records import BANDS, NISP_BANDS
from scanner.training.added_member import NewMember, add_member

ALL = ("VIS", "Y", "J", "H")


def weights(bands=ALL, pixels=100, outputs=1):
    """Of the network: a ring of 1.4" in VIS counts for a lens, and every other band a little."""
    half = (pixels - 1) / 2
    y, x = np.mgrid[:pixels, :pixels] - half
    step = 0.1 if "VIS" in bands else 0.3
    radius = np.hypot(x, y) * step
    ring = np.exp(-(((radius - 1.4) / 0.3) ** 2)) - 0.3 * np.exp(-((radius / 0.6) ** 2))
    rows = np.stack([ring if band == bands[0] else 0.1 * (number + 1) * ring for number, band in enumerate(bands)])
    return (
        np.stack([-rows, rows, rows][:outputs] if outputs > 1 else [rows]).reshape(outputs, -1) / np.abs(rows).sum()
    ).astype(np.float32)


def write_network(path, bands=ALL, pixels=100, *, last=None, outputs=1, batch="N", extra=(), kind=TensorProto.FLOAT, opset=17):
    """Write it; ``last``: an operator after it, ``extra``: nodes before it, from ``images`` to ``changed``."""
    nodes = [
        *extra,
        helper.make_node("Flatten", ["changed" if extra else "images"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["answer" if last is None else "sum"], transB=1),
        *([] if last is None else [helper.make_node(last, ["sum"], ["answer"])]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", kind, [batch, len(bands), pixels, pixels])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, [batch, outputs])],
        [
            numpy_helper.from_array(weights(bands, pixels, outputs), "weights"),
            numpy_helper.from_array(np.linspace(-0.2, 0.3, outputs).astype(np.float32), "bias"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def seen(bands, pixels, scaling, vis, nisp, sky, sigma):
    """What the network sees (N, bands, pixels, pixels), in float64 and by another way than the graph: point by point."""
    channels = []
    for band in bands:
        number = BANDS.index(band)
        image = (vis if band == "VIS" else nisp[:, NISP_BANDS.index(band)]).astype(np.float64)
        level = sky[:, number].astype(np.float64), sigma[:, number].astype(np.float64)
        if scaling == "sigma":
            image = np.clip((image - level[0][:, None, None]) / level[1][:, None, None], -1e6, 1e6)
        elif scaling == "asinh_mad":
            image = scale_asinh_mad(image, *level)
        side = image.shape[-1]
        step = 1 / 3 if band != "VIS" and "VIS" in bands else 1.0
        place = np.clip((side - 1) / 2 + step * (np.arange(pixels) - (pixels - 1) / 2), 0, side - 1)
        known = np.arange(side)
        image = np.apply_along_axis(lambda line: np.interp(place, known, line), 1, image)  # noqa: B023
        image = np.apply_along_axis(lambda line: np.interp(place, known, line), 2, image)  # noqa: B023
        channels.append(scale_minmax(image) if scaling == "minmax" else image)
    return np.stack(channels, axis=1)


def answers(bands, pixels, scaling, *cutouts, outputs=1):
    """What the network says of cutouts, (N, outputs) float64."""
    images = seen(bands, pixels, scaling, *cutouts)
    return images.reshape(len(images), -1) @ weights(bands, pixels, outputs).astype(np.float64).T + np.linspace(
        -0.2, 0.3, outputs
    )


def write_rings(folder, n=48, seed=5):
    """A labelled set of discs, half of which have a ring."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:200, :200] - 99.5
    radius = np.hypot(y, x)
    is_lens = np.arange(n) % 2 == 0
    vis = rng.normal(5, 1, (n, 200, 200)).astype(np.float32) + 30 * np.exp(-((radius / 6) ** 2)).astype(np.float32)
    nisp = rng.normal(5, 1, (n, 3, 66, 66)).astype(np.float32)
    brightness = rng.uniform(0.2, 1.0, is_lens.sum())[:, None, None].astype(np.float32)
    vis[is_lens] += brightness * np.exp(-(((radius - 14) / 3) ** 2)).astype(np.float32)
    columns = {
        "target_id": np.arange(n),
        "is_lens": is_lens,
        "class_name": np.where(is_lens, "lens", "elliptical").tolist(),
        "arc_snr": np.where(is_lens, 60, np.nan).astype(np.float32),
        "visible": is_lens,
        "x_arcsec": np.zeros(n),
        "y_arcsec": np.zeros(n),
    }
    levels = np.full((n, 4), 5, np.float32), np.ones((n, 4), np.float32)
    return write_dataset(folder, columns, vis, nisp, *levels, {"request": {"preset": "rings", "seed": seed}})


def with_eighth(folder, **changed):
    """The light bundle with the network as its eighth member ``ring``, and what it gains."""
    network = write_network(folder / "ring.onnx")
    member = NewMember(network, **{"name": "ring", "bands": ALL, "pixels": 100, **changed})
    dataset = LabelledSet(write_rings(folder / "rings"))
    rule = bundles.load(None).manifest.second_look.model_copy(update={"members": None})
    return add_member(light_bundle(folder / "light", second_look=rule), member, dataset, folder / "bundle", provider="cpu")
