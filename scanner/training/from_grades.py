"""What enters the last layers of a bundle's networks, as short vectors of a run's cutouts; last layers learnt from grades."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from scipy.optimize import minimize

from scanner.cutouts.quality import fill_bad_pixels
from scanner.ensemble.bundle import CARD_FILE, MODEL_FILE, Bundle, BundleContent, content_of
from scanner.ensemble.calibration import EQUAL_OBJECTS, LOGIT_LIMIT, Calibration, CalibrationSet, OperatingCurve, sigmoid
from scanner.ensemble.session import BATCH, open_graph
from scanner.errors import ContentError, UsageError
from scanner.evaluation.promotion import Promotion, markdown_table
from scanner.evaluation.tables import signed
from scanner.grading import similar
from scanner.grading.similar import MEMBER, Basis
from scanner.labelled_set import TRUTH, LabelledSet
from scanner.networks import LENS, NON_LENS
from scanner.records import MEMBERS, CommitRecord, CutoutBatch, Float32, Float64, Int64, MemberName
from scanner.sky.local_files import temporary_folder
from scanner.sphere import cell_numbers
from scanner.survey.folder.ledger import RunFolder
from scanner.training.data import WEIGHT_COLUMN

#: Objects, the first of the run's, whose features the axes of the short vectors are taken from.
BASIS_OBJECTS = 2000
_BATCH = 64


@dataclass(frozen=True)
class Head:
    """The last layer of a member in an ensemble's graph: names of what enters it, and of its two constants."""

    member: MemberName
    features: str
    weight: str
    bias: str


@dataclass(frozen=True)
class Features:
    """What enters the last layers: ``values`` (N, F) float32 by member; ``logits`` (N, 7) float32: what all members say.

    Without log-odds, ``logits`` is (N, 0).
    """

    values: dict[MemberName, Float32]
    logits: Float32


def heads(graph: onnx.GraphProto) -> tuple[Head, ...]:
    """The last layer of each of the paper's seven.

    Raises
    ------
    ContentError
        The graph was not exported by scanner.
    """
    made = {output: node for node in graph.node for output in node.output}
    found = []
    for member in MEMBERS:
        difference = made.get(f"{member}/log-odds")
        last = None if difference is None else made.get(difference.input[0])
        if last is None or last.op_type != "Gemm" or len(last.input) != 3:
            raise ContentError(f"{MODEL_FILE}: was not exported by scanner, so its last layers are not known; export it again.")
        found.append(Head(member, *last.input))
    return tuple(found)


def features_graph(model: bytes, members: Sequence[MemberName], *, logits: bool) -> bytes:
    """The graph of an ensemble that gives what enters the last layers of some members, in this order; then all log-odds.

    What none of it needs is left out.
    """
    whole = onnx.load_model_from_string(model)
    graph = whole.graph
    wanted = [head for head in heads(graph) if head.member in members]
    sizes = {constant.name: constant.dims for constant in graph.initializer}
    said = graph.output[0]
    del graph.output[:]
    for head in wanted:
        size = int(sizes[head.weight][1])
        graph.output.append(helper.make_tensor_value_info(head.features, TensorProto.FLOAT, ["N", size]))
    if logits:
        graph.output.append(said)
    needed = {output.name for output in graph.output}
    for number in reversed(range(len(graph.node))):
        if needed.isdisjoint(graph.node[number].output):
            del graph.node[number]
        else:
            needed.update(graph.node[number].input)
    for constants in (graph.initializer, graph.input):
        for number in reversed(range(len(constants))):
            if constants[number].name not in needed:
                del constants[number]
    return bytes(whole.SerializeToString(deterministic=True))


class FeatureSession:
    """Computes the features of cutouts with members of a bundle, and all log-odds where they are asked for, on the CPU."""

    def __init__(self, bundle: Bundle, members: Sequence[MemberName] = MEMBERS, *, logits: bool = True) -> None:
        self.members = tuple(name for name in MEMBERS if name in members)
        #: Of these members.
        self.graph = features_graph(bundle.model, self.members, logits=logits)
        self._session = open_graph(onnxruntime, self.graph, bundle.path / MODEL_FILE, "cpu", 1)
        self._inputs = [node.name for node in self._session.get_inputs()]

    def __call__(self, batch: CutoutBatch) -> Features:
        """Features of a batch; missing pixels are filled as a scan fills them."""
        vis, nisp = fill_bad_pixels(batch)
        arrays = {"vis": vis, "nisp": nisp, "sky": batch.sky, "sigma": batch.sigma}
        # One by one, as a scan on a CPU: an object's numbers depend on nothing else, and the memory is small.
        step = BATCH["cpu"]
        parts = [
            self._session.run(None, {name: np.ascontiguousarray(arrays[name][row : row + step]) for name in self._inputs})
            for row in range(0, len(batch), step)
        ]
        found = [np.concatenate(part) for part in zip(*parts, strict=True)]
        logits = found[-1] if len(found) > len(self.members) else np.empty((len(batch), 0), np.float32)
        return Features(dict(zip(self.members, found, strict=False)), logits)


def _features(folder: RunFolder, commit: CommitRecord, session: FeatureSession) -> tuple[Int64, list[Float32]]:
    """Ids of a tile's stored objects, and their features, batch by batch."""
    with temporary_folder(None) as scratch:
        store = folder.cutouts(commit, scratch)
        if store is None:
            return np.empty(0, np.int64), []
        return store.target_id, [session(batch).values[MEMBER] for batch in store.batches(_BATCH)]


def write_run_features(folder: RunFolder, bundle: Bundle, report: Callable[[int, int], None]) -> int:
    """Compute the short feature vectors of a run's stored cutouts, tile by tile; what is there already is left.

    The vectors are the features of :data:`~scanner.grading.similar.MEMBER` on the principal axes of some of the run's objects.

    Parameters
    ----------
    folder, bundle
        The run, held, and its bundle.
    report
        Called with how many tiles of how many are done.

    Returns
    -------
    int
        Objects that have features now.

    Raises
    ------
    UsageError
        No cutout is stored.
    """
    session = FeatureSession(bundle, (MEMBER,), logits=False)
    commits = [commit for tile_id in sorted(folder.committed()) if (commit := folder.commit_of(tile_id)) is not None]
    basis, n = similar.read_basis(folder, bundle.fingerprint), 0
    known: dict[str, tuple[Int64, list[Float32]]] = {}
    if basis is None:
        for commit in commits:
            known[commit.tile_id] = _features(folder, commit, session)
            if sum(len(target_id) for target_id, _ in known.values()) >= BASIS_OBJECTS:
                break
        some = [part for _, parts in known.values() for part in parts]
        if not some:
            raise UsageError(f"{folder.location}: no cutouts are stored; scan with --keep candidates, sample:F or all.")
        basis = Basis.of(np.concatenate(some)[:BASIS_OBJECTS], session.graph)
        similar.write_basis(folder, bundle.fingerprint, basis)
    for number, commit in enumerate(commits, start=1):
        there = similar.read_tile(folder, bundle.fingerprint, commit)
        if there is None:
            if commit.tile_id not in known:
                known[commit.tile_id] = _features(folder, commit, session)
            target_id, parts = known.pop(commit.tile_id)
            values = np.concatenate([np.empty((0, len(basis.axes)), np.float32), *(basis.apply(part) for part in parts)])
            similar.write_tile(folder, bundle.fingerprint, commit, target_id, values)
            n += len(values)
        else:
            n += len(there)
        report(number, len(commits))
    return n


#: How much a last layer is held to what it was, as a ridge on what is added, in features of unit spread: the best of these by
#: cross-validation; infinity leaves the layer as it is.
RIDGES = (np.inf, 1e4, 1e3, 1e2, 1e1)
#: Parts of cross-validation; fields that lie together are in one part.
FOLDS = 5
#: A band with more bad pixels than this says nothing of the object: it is not fitted to.
MOST_BAD = 0.25


@dataclass(frozen=True)
class Fitted:
    """``model``: the graph with its new last layers; ``logits`` (N, 7): of each object by layers that were fitted without it.

    ``ridges``: chosen for each member; ``moved``: members whose layer changed.
    """

    model: bytes
    logits: Float64
    ridges: dict[MemberName, float]

    @property
    def moved(self) -> tuple[MemberName, ...]:
        """Members whose last layer changed."""
        return tuple(name for name, ridge in self.ridges.items() if np.isfinite(ridge))


def features_of(
    bundle: Bundle, dataset: LabelledSet, rows: Int64, report: Callable[[int, int], None] = lambda *_: None
) -> Features:
    """Features of some objects of a labelled set.

    Parameters
    ----------
    bundle, dataset, rows
        What computes them, and the objects.
    report
        Called with how many of how many are done.
    """
    session, parts = FeatureSession(bundle), []
    for start in range(0, len(rows), _BATCH):
        parts.append(session(dataset.store.read(rows[start : start + _BATCH])))
        report(min(start + _BATCH, len(rows)), len(rows))
    return Features(
        {name: np.concatenate([part.values[name] for part in parts]) for name in MEMBERS},
        np.concatenate([part.logits for part in parts]),
    )


def fit_last_layers(model: bytes, features: Features, is_lens: NDArray[np.bool_], weight: Float64, fold: Int64) -> Fitted:
    """Fit what is added to each member's last layer.

    The loss is the weighted cross-entropy of log-odds = what the member says + features · δ + c, with a ridge on δ in units of
    the features' spread. The ridge is the best in cross-validation, none of whose parts shares a field with another. The offset
    c takes up that graders saw another share of lenses than training did; it is not kept, as calibration sets it.

    Parameters
    ----------
    model, features
        The graph, and the features (N, …) of the objects by it.
    is_lens, weight
        (N,) answers, and how much each counts.
    fold
        (N,) part of the cross-validation.
    """
    whole = onnx.load_model_from_string(model)
    constants = {constant.name: constant for constant in whole.graph.initializer}
    logits = np.empty(features.logits.shape)
    ridges: dict[MemberName, float] = {}
    for column, head in enumerate(heads(whole.graph)):
        now = np.clip(features.logits[:, column].astype(np.float64), -LOGIT_LIMIT, LOGIT_LIMIT)
        found = fit_added(features.values[head.member].astype(np.float64), now, is_lens, weight, fold)
        ridges[head.member], logits[:, column] = found.ridge, found.without_own
        if np.isfinite(found.ridge):
            _add(constants[head.weight], constants[head.bias], found.slope, found.constant)
    return Fitted(bytes(whole.SerializeToString(deterministic=True)), logits, ridges)


@dataclass(frozen=True)
class Added:
    """What is added to log-odds: ``constant`` + features · ``slope`` (F,), and ``offset``, which only the graded sample has.

    ``ridge``: what holds it; infinity: nothing is added but the offset. ``without_own`` (N,): log-odds of the objects that it
    was fitted to, each with what was fitted without its part, and without the offset.
    """

    slope: Float64
    constant: float
    offset: float
    ridge: float
    without_own: Float64


def fit_added(values: Float64, now: Float64, is_lens: NDArray[np.bool_], weight: Float64, fold: Int64) -> Added:
    """Fit what is added to log-odds ``now`` (N,) for features ``values`` (N, F); see :func:`fit_last_layers`."""
    mean, spread = values.mean(axis=0), values.std(axis=0)
    scaled = np.divide(values - mean, spread, out=np.zeros_like(values), where=spread > 1e-6)
    tried = {ridge: _without_own(scaled, now, is_lens, weight, fold, ridge) for ridge in RIDGES}
    best = min(tried, key=lambda ridge: _loss(tried[ridge][1], is_lens, weight))
    found = _ridge(scaled, now, is_lens, weight, best)
    slope = found[:-1] / np.where(spread > 1e-6, spread, np.inf)
    return Added(slope, -float(mean @ slope), float(found[-1]), best, tried[best][0])


def _without_own(
    scaled: Float64, now: Float64, is_lens: NDArray[np.bool_], weight: Float64, fold: Int64, ridge: float
) -> tuple[Float64, Float64]:
    """Log-odds of each object by a layer fitted on the other folds, without and with the offset of the graded sample."""
    without, offset = now.copy(), now.copy()
    for part in np.unique(fold):
        mine = fold == part
        if len(np.unique(is_lens[~mine])) < 2:
            continue
        found = _ridge(scaled[~mine], now[~mine], is_lens[~mine], weight[~mine], ridge)
        without[mine] += scaled[mine] @ found[:-1]
        offset[mine] = without[mine] + found[-1]
    return without, offset


def _ridge(scaled: Float64, now: Float64, is_lens: NDArray[np.bool_], weight: Float64, ridge: float) -> Float64:
    """δ in units of the spread, and c, (F + 1,)."""
    n = scaled.shape[1] if np.isfinite(ridge) else 0
    design = np.column_stack([scaled[:, :n], np.ones(len(scaled))])

    def loss(added: Float64) -> tuple[float, Float64]:
        log_odds = now + design @ added
        value = (weight * (np.logaddexp(0.0, log_odds) - is_lens * log_odds)).sum() + 0.5 * ridge_of(added) @ added
        return float(value), design.T @ (weight * (sigmoid(log_odds) - is_lens)) + ridge_of(added)

    def ridge_of(added: Float64) -> Float64:
        held = np.zeros_like(added)
        held[:n] = (ridge if n else 0.0) * added[:n]
        return held

    found = minimize(loss, np.zeros(n + 1), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    added = np.zeros(scaled.shape[1] + 1)
    added[:n], added[-1] = found.x[:n], found.x[n]
    # The last digits depend on the machine's linear algebra.
    return np.asarray(np.round(added, 9), dtype=np.float64)


def _loss(log_odds: Float64, is_lens: NDArray[np.bool_], weight: Float64) -> float:
    return float((weight * (np.logaddexp(0.0, log_odds) - is_lens * log_odds)).sum())


def _add(weight: TensorProto, bias: TensorProto, added: Float64, constant: float) -> None:
    """Add to a layer of two outputs, half to the one and less half to the other: only their difference counts."""
    weights, biases = numpy_helper.to_array(weight).copy(), numpy_helper.to_array(bias).copy()
    for row, sign in ((LENS, 0.5), (NON_LENS, -0.5)):
        weights[row] += (sign * added).astype(np.float32)
        biases[row] += np.float32(sign * constant)
    weight.CopyFrom(numpy_helper.from_array(weights, weight.name))
    bias.CopyFrom(numpy_helper.from_array(biases, bias.name))


def refit_calibration(
    calibration: Calibration, before: Float32, logits: Float64, is_lens: NDArray[np.bool_], weight: Float64
) -> Calibration:
    """Fit what is added to the coefficients and the intercept of a calibration, at the prevalence of the sky.

    Which objects were graded was chosen by scores, and choosing by scores changes nothing that P(lens | scores) says; so the
    share of lenses among them needs no correction. Coefficients are held to what they were as if by
    :data:`~scanner.ensemble.calibration.EQUAL_OBJECTS` objects, and stay 0 or above.

    Parameters
    ----------
    calibration
        Of the bundle.
    before, logits
        (N, 7) log-odds by the members as they were, whose spread is the unit, and by those that are calibrated.
    is_lens, weight
        (N,) answers, and how much each counts.
    """
    clipped = np.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT)
    spread = np.maximum(np.clip(before, -LOGIT_LIMIT, LOGIT_LIMIT).std(axis=0), 1e-6)
    now = calibration.log_odds(clipped)
    design = np.column_stack([clipped / spread, np.ones(len(clipped))])
    held = np.append(np.full(clipped.shape[1], EQUAL_OBJECTS), 1.0)
    old = np.array(calibration.coefficients)

    def loss(added: Float64) -> tuple[float, Float64]:
        log_odds = now + design @ added
        value = (weight * (np.logaddexp(0.0, log_odds) - is_lens * log_odds)).sum() + 0.5 * (held * added**2).sum()
        return float(value), design.T @ (weight * (sigmoid(log_odds) - is_lens)) + held * added

    bounds = [*((-coefficient * unit, None) for coefficient, unit in zip(old, spread, strict=True)), (None, None)]
    found = minimize(loss, np.zeros(len(held)), jac=True, method="L-BFGS-B", bounds=bounds).x
    coefficients = np.maximum(np.round(old + found[:-1] / spread, 8), 0.0)
    return calibration.model_copy(
        update={
            "coefficients": tuple(coefficients.tolist()),
            "intercept": round(calibration.intercept + float(found[-1]), 8),
        }
    )


def weights_of(dataset: LabelledSet) -> Float64:
    """How much each object of a graded set counts, (N,)."""
    return np.asarray(pq.read_table(dataset.path / TRUTH, columns=[WEIGHT_COLUMN])[WEIGHT_COLUMN].to_numpy(), dtype=np.float64)


def usable(dataset: LabelledSet, *, fewest: int) -> NDArray[np.bool_]:
    """Which objects of a set all members see, (N,) bool.

    Raises
    ------
    UsageError
        Of lenses or of others there are fewer than ``fewest``.
    """
    found = np.asarray((dataset.store.bad_fraction <= MOST_BAD).all(axis=1), dtype=np.bool_)
    n_lenses = int((dataset.truth.is_lens & found).sum())
    n_others = int((~dataset.truth.is_lens & found).sum())
    if min(n_lenses, n_others) < fewest:
        raise UsageError(
            f"{dataset.path}: {n_lenses} lenses and {n_others} others that are seen in all bands; grade more, at least "
            f"{fewest} of each are needed."
        )
    return found


def folds(dataset: LabelledSet, order: int) -> Int64:
    """Part of the cross-validation of each object, (N,): HEALPix cells of an order that lie together are in one."""
    cells = cell_numbers(dataset.store.ra, dataset.store.dec, order)
    distinct, of = np.unique(cells, return_inverse=True)
    return np.asarray(of * FOLDS // len(distinct), dtype=np.int64)


def learned(
    bundle: Bundle,
    features: Features,
    is_lens: NDArray[np.bool_],
    weight: Float64,
    fold: Int64,
    trained_on: str,
    name: str,
    version: str,
) -> tuple[BundleContent, Fitted]:
    """A bundle with its last layers and its calibration fitted to graded objects.

    Its members' log-odds are others than those that its t-SNE grid, its screen and its test-time augmentation were made with:
    it has none of them. It decides on the calibrated probability, at the threshold that is best on the graded objects, each
    judged by layers that were fitted without it. ``scanner models regrid`` and ``scanner models cascade`` give it what is
    missing, from a labelled set.

    Parameters
    ----------
    bundle, features
        What learns, and the features of the graded objects by it.
    is_lens, weight, fold
        (N,) answers, how much each counts, and its part of the cross-validation.
    trained_on
        Fingerprint of the set of these objects.
    name, version
        Of the new bundle.

    Raises
    ------
    UsageError
        The bundle is not calibrated, or has members beyond the paper's seven.
    """
    calibration = bundle.calibration
    if not isinstance(calibration, Calibration) or bundle.manifest.further:
        raise UsageError(
            f"{bundle.path}: only a calibrated bundle of the paper's seven members can learn from grades; name another one."
        )
    fitted = fit_last_layers(bundle.model, features, is_lens, weight, fold)
    refitted = refit_calibration(calibration, features.logits, fitted.logits, is_lens, weight)
    content, manifest = content_of(bundle), bundle.manifest
    made = BundleContent(
        name=name,
        version=version,
        description=f"{manifest.name} {manifest.version}, its last layers and calibration fitted to graded objects.",
        licence=manifest.licence,
        members=content.members,
        preprocessing=content.preprocessing,
        model=fitted.model,
        trained_on=(*content.trained_on, trained_on),
        calibration=refitted,
        class_prior=content.class_prior,
        curve=OperatingCurve.of(refitted.apply(fitted.logits).astype(np.float64), is_lens),
        betas=content.betas,
        calibration_set=CalibrationSet(fitted.logits.astype(np.float32)),
        texts=content.texts,
    )
    return made, fitted


def with_card(
    content: BundleContent, before: Bundle, fitted: Fitted, n: tuple[int, int], promotion: Promotion
) -> BundleContent:
    """The bundle with a card that says what it learned from, and what became better and worse on objects kept apart.

    Parameters
    ----------
    content, before
        The bundle, and the one that it began from.
    fitted, n
        Its last layers; how many lenses and others they were fitted to.
    promotion
        The gate's figures of both.
    """
    rows = [
        (check.what, check.figure, f"{check.old:.3f}", f"{check.new:.3f}", signed(check.difference))
        for check in promotion.checks
    ]
    old = f"{before.manifest.name} {before.manifest.version} ({before.fingerprint[:12]})"
    verdict = "Passed" if promotion.passed else "Not passed: a figure is worse beyond its interval"
    card = f"""# {content.name} {content.version}

{content.description}

## Learned from grades

From {old}, {n[0]:,} graded lenses and {n[1]:,} other graded objects. Last layers that changed:
{", ".join(fitted.moved) or "none"}; the calibration was fitted with them. It has no t-SNE grid, no screen and no test-time
augmentation, which belonged to the layers of before: `scanner models regrid` and `scanner models cascade` make them from a
labelled set.

## Before and after

{markdown_table(("on", "figure", "before", "after", "difference"), rows)}

{verdict}. Intervals of differences hold all at once with 95%.
"""
    return replace(content, texts={CARD_FILE: card})
