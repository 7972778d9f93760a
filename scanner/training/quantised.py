"""A bundle whose convolutions compute in 8-bit integers, for half of the time, and what that changes, measured."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quant_pre_process, quantize_static

from scanner.ensemble.bundle import CARD_FILE, Bundle, Metric, content_of, write_bundle
from scanner.ensemble.session import Scorer
from scanner.errors import ContentError, UsageError
from scanner.evaluation.promotion import TITLE
from scanner.labelled_set import LabelledSet
from scanner.processes import cores
from scanner.records import Float64, Int64
from scanner.training.cascade import ALL_SETS, FEWEST_OF_CLASS, Report, change_at, changes, member_graph, metric_section

#: Objects that the ranges of all layers are taken from.
RANGE_OBJECTS = 256
#: Objects scored in one call.
BATCH = 256
#: What computes in integers. Scaling, resizing and the dense layers stay in float32: they cost next to nothing.
IN_INTEGERS = ("Conv", "Relu", "MaxPool")
HEADING = "## 8-bit integers"


@dataclass(frozen=True)
class Quantised:
    """The new bundle, and the paired change of recall at low false-positive rates, of each set's lenses and of all."""

    bundle: Bundle
    changes: tuple[Metric, ...]


def quantise(
    bundle: Bundle,
    datasets: Sequence[LabelledSet],
    out: Path,
    *,
    version: str,
    seed: int = 0,
    provider: str = "auto",
    threads: int = 1,
    report: Report = lambda text: None,
) -> Quantised:
    """Write a bundle whose networks compute in 8-bit integers; calibration, grid, screen and thresholds stay as they are.

    Weights are rounded with a scale for each kernel, activations with one for each layer, from the range that it has on
    :data:`RANGE_OBJECTS` objects. All other objects are scored by both bundles as a scan scores them, each with its screen.

    Parameters
    ----------
    bundle
        It stays as it is.
    datasets
        Labelled sets that it was not trained on.
    out, version
        Folder of the new bundle, replaced if it is one, and its version.
    seed
        Of the choice of objects for the ranges.
    provider, threads
        Of the sessions that score.
    report
        Called with one line per step.

    Raises
    ------
    UsageError
        The version is the bundle's, it computes in integers already, or was trained on a set.
    ContentError
        The sets have too few objects.
    OutputError
        ``out`` cannot be written.
    """
    manifest = bundle.manifest
    if version == manifest.version:
        raise UsageError(f"{bundle.location}: is {manifest.name} {version} already; name another --version.")
    if manifest.arithmetic == "int8":
        raise UsageError(f"{bundle.location}: computes in 8-bit integers already; give the bundle that it was made from.")
    for dataset in datasets:
        if dataset.was_seen_by(manifest.trained_on):
            raise UsageError(f"{dataset.path}: {manifest.name} was trained on it; give held-out sets as --data.")
    labels = np.concatenate([dataset.truth.is_lens for dataset in datasets])
    fewest = RANGE_OBJECTS // 2 + FEWEST_OF_CLASS
    if min(labels.sum(), (~labels).sum()) < fewest:
        raise ContentError(
            f"{', '.join(str(dataset.path) for dataset in datasets)}: {fewest} lenses and as many others are needed; give "
            "larger sets, or more of them."
        )
    generator = np.random.default_rng(seed)
    ranged = np.zeros(len(labels), dtype=np.bool_)
    for kind in (np.flatnonzero(labels), np.flatnonzero(~labels)):
        ranged[generator.choice(kind, RANGE_OBJECTS // 2, replace=False)] = True
    parts = np.split(ranged, np.cumsum([len(dataset) for dataset in datasets])[:-1])

    report(f"taking the ranges of all layers from {RANGE_OBJECTS} objects")
    feeds = [feed for dataset, part in zip(datasets, parts, strict=True) for feed in _feeds(dataset, np.flatnonzero(part))]
    model, screen, turning = quantised_graph(bundle.model, feeds), manifest.screen, manifest.second_look
    content = replace(
        content_of(bundle),
        version=version,
        arithmetic="int8",
        model=model,
        further=[quantised_graph(graph, feeds) for graph in bundle.further],
        # Parts of the same graph, so that an object has the same bits whoever asks for them.
        screen_model=None if screen is None else member_graph(model, screen.members),
        augmentation_model=None if turning is None or turning.members is None else member_graph(model, turning.members),
    )
    with tempfile.TemporaryDirectory() as scratch:
        made = write_bundle(Path(scratch) / "unmeasured", content)
        scores = []
        for one in (bundle, made):
            report(f"scoring {(~ranged).sum():,} objects as {one.manifest.name} {one.manifest.version} does")
            scorer = Scorer(one, provider, threads, parallel=max(1, cores() // threads), screen="auto")
            found = [_scores(scorer, dataset, np.flatnonzero(~part)) for dataset, part in zip(datasets, parts, strict=True)]
            scores.append(np.concatenate(found))
    before, after = scores
    is_lens, owner = labels[~ranged], np.repeat(np.arange(len(datasets)), [(~part).sum() for part in parts])
    groups = {dataset.path.resolve().name: owner == number for number, dataset in enumerate(datasets)}
    measured = [
        metric
        for name, rows in (groups | {ALL_SETS: np.ones_like(is_lens)}).items()
        if (rows & is_lens).any()
        for metric in changes(name, (before[rows & is_lens], before[~is_lens]), (after[rows & is_lens], after[~is_lens]))
    ]
    overall = [metric for metric in measured if metric.set == ALL_SETS]
    card = _card(content.texts.get(CARD_FILE, ""), manifest.name, manifest.version, version, measured)
    texts = {**content.texts, CARD_FILE: card}
    return Quantised(write_bundle(out, replace(content, metrics=[*content.metrics, *overall], texts=texts)), tuple(measured))


def quantised_graph(model: bytes, feeds: Sequence[Mapping[str, NDArray[np.float32]]]) -> bytes:
    """A graph whose convolutions compute in 8-bit integers; the same one where it has none.

    Parameters
    ----------
    model
        A member's graph, or that of the paper's seven.
    feeds
        Objects, one each, by the names of a session's inputs, whether the graph reads them or not.
    """
    graph = onnx.load_model_from_string(model).graph
    if not any(node.op_type == "Conv" for node in graph.node):
        return model
    wanted = [node.name for node in graph.input]

    class Ranges(CalibrationDataReader):  # type: ignore[misc]
        """The objects, one at a time."""

        def __init__(self) -> None:
            self._feeds = iter(feeds)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            feed = next(self._feeds, None)
            return None if feed is None else {name: feed[name] for name in wanted}

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "quantised.onnx"
        path.write_bytes(model)
        quant_pre_process(path, path, skip_optimization=True, skip_symbolic_shape=True)
        quantize_static(
            path,
            path,
            Ranges(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=list(IN_INTEGERS),
        )
        return bytes(onnx.load(path).SerializeToString(deterministic=True))


def _feeds(dataset: LabelledSet, rows: Int64) -> list[dict[str, NDArray[np.float32]]]:
    return [
        {"vis": vis[i : i + 1], "nisp": nisp[i : i + 1], "sky": batch.sky[i : i + 1], "sigma": batch.sigma[i : i + 1]}
        for batch, vis, nisp in dataset.batches(rows, BATCH)
        for i in range(len(vis))
    ]


def _scores(scorer: Scorer, dataset: LabelledSet, rows: Int64) -> Float64:
    """Calibrated probabilities as a scan has them, (n,); 0 for what it does not score."""
    found = [
        scorer.score(vis, nisp, batch.sky, batch.sigma, batch.bad_fraction, batch.flags).calibrated
        for batch, vis, nisp in dataset.batches(rows, BATCH)
    ]
    # None are left of a small set that gave all of its objects for the ranges.
    scores: Float64 = np.nan_to_num(np.concatenate([np.empty(0), *found]))
    return scores


def _card(card: str, name: str, before: str, version: str, measured: Sequence[Metric]) -> str:
    """The card with a section on what integers change."""
    text = (
        "The convolutions compute in 8-bit integers, which needs a processor with VNNI. All other figures of this card are "
        f"those of {before}. Recall as a scan has it, with its screen, less that of {before} on the same lenses and "
        "non-lenses, with paired 95% intervals:"
    )
    section = metric_section(HEADING, text, measured, "change of recall", change_at)
    titled = TITLE.sub(lambda _: f"# {name} {version}", card or f"# {name}\n")
    return f"{titled.rstrip()}\n\n{section}\n"
