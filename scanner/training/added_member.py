"""Any ONNX network as a member of a bundle beside the paper's seven: checked, wrapped, calibrated with them, measured."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import onnx
import onnx.compose
import onnx.inliner
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, helper

from scanner.atomic_file import file_sha256
from scanner.ensemble import calibration as combining
from scanner.ensemble.bundle import (
    CARD_FILE,
    Bundle,
    BundleContent,
    MemberEntry,
    Metric,
    check_further,
    content_of,
    write_bundle,
)
from scanner.ensemble.calibration import Calibration, CalibrationSet, MeanProbability, OperatingCurve
from scanner.ensemble.preprocessing import MINMAX_FLOOR, MOST_SIGMA, Scaling, nisp_on_vis
from scanner.ensemble.session import open_session, run_apart
from scanner.errors import ContentError, InputMissingError, UsageError
from scanner.evaluation.metrics import LOW_FPRS, auroc_interval, delong, recalls_at_fpr
from scanner.evaluation.promotion import TITLE, markdown_table
from scanner.evaluation.results import SKY_PREVALENCE
from scanner.evaluation.scores import dataset_logits
from scanner.interval import Interval, normal_interval, resampled_interval
from scanner.labelled_set import LabelledSet
from scanner.processes import cores
from scanner.records import (
    BANDS,
    NISP_BANDS,
    NISP_CUTOUT_PIXELS,
    VIS_CUTOUT_PIXELS,
    Band,
    Float32,
    Float64,
    Int64,
)
from scanner.training.cascade import augmented, mean_over_orientations, screen_on
from scanner.training.export import OnnxGraph, asinh_mad

#: A network's output: lens log-odds or probability, (N,) or (N, 1); logits or probabilities of (non-lens, lens), (N, 2).
Output = Literal["logit", "probability", "logits", "softmax"]
OUTPUTS: tuple[Output, ...] = get_args(Output)
OLDEST_OPSET = 13
#: Bounds on a network: its file, the elements of one of its constants, and memory and time for one object.
MOST_BYTES, MOST_ELEMENTS, MOST_MEMORY, MOST_SECONDS = 256_000_000, 2**26, 4_000_000_000, 120.0
#: Operators whose output is drawn by chance.
RANDOM = frozenset({"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"})
#: Probabilities nearer to 0 or 1 than this have the log-odds of it, ±15.9; float32 knows none nearer to 1.
NEAREST = 2.0**-23
#: Objects of the labelled set that are used at most, and of each class at least.
MOST_OBJECTS, FEWEST_OF_CLASS = 20_000, 20
#: How much the scores of an object may differ between calls, and with other objects beside it.
SAME_SCORE = 1e-3
Report = Callable[[str], None]


@dataclass(frozen=True)
class NewMember:
    """A network to add.

    ``path``: its ONNX file. ``bands``: those of its input, in its order. ``pixels``: side of its input, of 0.1" where VIS is
    among the bands, else of 0.3". ``output``: None: as its last operator says.
    """

    path: Path
    name: str
    bands: tuple[Band, ...]
    pixels: int
    scaling: Scaling = "sigma"
    output: Output | None = None


@dataclass(frozen=True)
class Gain:
    """A figure of the combination without and with the new member, on the same objects, and the paired difference."""

    figure: str
    before: float
    after: float
    difference: Interval


@dataclass(frozen=True)
class AddedMember:
    """The new bundle, and what the member gains; ``own``: AUROC of the member alone."""

    bundle: Bundle
    own: Interval
    gains: tuple[Gain, ...]

    @property
    def earns_its_place(self) -> bool:
        """Whether some figure rises beyond its interval, and none falls."""
        ends = [gain.difference for gain in self.gains]
        return any(end.low > 0 for end in ends) and not any(end.high < 0 for end in ends)


def add_member(
    bundle: Bundle,
    member: NewMember,
    dataset: LabelledSet,
    out: Path,
    *,
    version: str | None = None,
    provider: str = "auto",
    threads: int = 1,
    seed: int = 0,
    report: Report = lambda text: None,
) -> AddedMember:
    """Write a bundle with one member more, its calibration, thresholds, rule of test-time augmentation and screen made anew.

    Both combinations, without and with the member, are fitted on one half of the set and measured on the other, and the other
    way round: what the member gains is no memory of the set. The bundle itself is calibrated on all of it.

    Parameters
    ----------
    bundle
        It stays as it is.
    member
        What to add.
    dataset
        Labelled objects that neither the bundle nor the network was trained on.
    out
        Folder of the new bundle; replaced if it is one.
    version
        Of the new bundle; by default the bundle's with the member's name.
    provider, threads
        Of the session that scores the set.
    seed
        Of the choice of objects and of the halves.
    report
        Called with one line per step.

    Raises
    ------
    UsageError
        The name is taken or none, bands or pixels make no sense, the version is the bundle's, or it was trained on the set.
    InputMissingError, ContentError
        There is no such file; the network does not fit, or the set has too few objects: one sentence says what.
    OutputError
        ``out`` cannot be written.
    """
    manifest = bundle.manifest
    version = f"{manifest.version}+{member.name}" if version is None else version
    try:
        check_further(member.name, member.bands, member.pixels, manifest.member_names)
    except ValueError as error:
        raise UsageError(f"{member.path}: {error}; give another --name, --bands or --pixels.") from None
    if version == manifest.version:
        raise UsageError(f"{bundle.location}: is {manifest.name} {version} already; name another --version.")
    if dataset.was_seen_by(manifest.trained_on):
        raise UsageError(f"{dataset.path}: {manifest.name} was trained on it; give a held-out set as --data.")
    is_lens = dataset.truth.is_lens
    rows = np.arange(len(dataset))
    if len(rows) > MOST_OBJECTS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST_OBJECTS, replace=False))
    labels = is_lens[rows]
    if min(labels.sum(), (~labels).sum()) < FEWEST_OF_CLASS:
        raise ContentError(f"{dataset.path}: {FEWEST_OF_CLASS} lenses and as many others are needed; draw a larger set.")

    report(f"checking {member.path}")
    model = read_network(member)
    graph = wrap(model, member, try_network(model, member))
    parameters = sum(math.prod(constant.dims) for constant in model.graph.initializer)
    entry = MemberEntry(
        name=member.name,
        bands=member.bands,
        pixels=member.pixels,
        scaling=member.scaling,
        file=f"{member.name}.onnx",
        parameters=max(1, parameters),
        source=f"added from {member.path.name} (SHA-256 {file_sha256(member.path)[:12]})",
    )
    content = replace(content_of(bundle), version=version, members=(*manifest.members, entry), further=(*bundle.further, graph))
    report(f"scoring {len(rows):,} objects")
    logits, calibrated = _calibrated(content, bundle, dataset, rows, labels, provider, threads, report)
    own = auroc_interval(logits[:, -1], labels)
    if own.high < 0.5:
        raise ContentError(
            f"{member.path}: it scores lenses of {dataset.path.name} lower than others (AUROC {own}); see that the order of "
            "its outputs is non-lens, lens, and that --scaling and --bands are what it was trained with."
        )
    gains = _gains(logits, labels, seed)
    kept = [metric for metric in content.metrics if metric.member not in ("calibrated", "mean")]
    metrics = [*kept, *_metrics(dataset, member.name, own, gains, labels)]
    card = _card(content, member, dataset, own, gains, f"{manifest.name} {manifest.version}")
    made = replace(calibrated, metrics=metrics, texts={**content.texts, CARD_FILE: card})
    return AddedMember(write_bundle(out, made), own, gains)


def _calibrated(
    content: BundleContent,
    bundle: Bundle,
    dataset: LabelledSet,
    rows: NDArray[np.int64],
    labels: NDArray[np.bool_],
    provider: str,
    threads: int,
    report: Report,
) -> tuple[Float32, BundleContent]:
    """Log-odds of all members, (n, M), and the bundle with what follows from them."""
    before = bundle.calibration
    plain = replace(content, calibration=MeanProbability(), second_look=None, screen=None, calibration_set=None)
    old = bundle.manifest.second_look
    with tempfile.TemporaryDirectory() as scratch:
        session = open_session(write_bundle(Path(scratch) / "plain", plain), provider, threads, max(1, cores() // threads))
        logits = dataset_logits(session, dataset, rows, np.zeros_like(rows))
        fitted = combining.fit(
            logits,
            labels,
            sky_prevalence=before.sky_prevalence if isinstance(before, Calibration) else SKY_PREVALENCE,
        )
        rule, scored = None, logits
        if old is not None:
            names = [member.name for member in content.members]
            columns = np.flatnonzero([old.members is None or name in old.members for name in names])

            def means_of(again: Int64) -> Float64:
                report(f"scoring {len(again):,} objects in all orientations")
                return mean_over_orientations(
                    logits[again],
                    columns,
                    lambda orientation: dataset_logits(session, dataset, rows[again], np.full(len(again), orientation)),
                )

            rule, scored = augmented(fitted, columns, old.share, old.members, logits, labels, means_of)
    screen, ranked = bundle.manifest.screen, fitted.ranking_score(scored)
    if screen is not None:
        name = dataset.path.resolve().name
        screen = screen_on(name, screen.members, screen.share, fitted, logits, logits, ranked, labels)
    return scored, replace(
        content,
        calibration=fitted,
        second_look=rule,
        screen=screen,
        calibration_set=CalibrationSet(logits),
        curve=OperatingCurve.of(fitted.apply(scored), labels),
    )


def _gains(logits: Float32, labels: NDArray[np.bool_], seed: int) -> tuple[Gain, ...]:
    """What the last member adds to the others: AUROC and recalls at fixed false-positive rates, paired."""
    halves = np.zeros(len(labels), dtype=np.int64)
    generator = np.random.default_rng(seed)
    for kind in (np.flatnonzero(labels), np.flatnonzero(~labels)):
        halves[generator.permutation(kind)[: len(kind) // 2]] = 1
    scores: Float64 = np.empty((2, len(labels)))
    for number, columns in enumerate((logits[:, :-1], logits)):
        for half in (0, 1):
            fitted = combining.fit(columns[halves != half], labels[halves != half], sky_prevalence=SKY_PREVALENCE)
            # At one prevalence, so that the halves can be ranked together.
            scores[number, halves == half] = fitted.log_odds(columns[halves == half])
    areas, covariance = delong(scores, labels)
    error = math.sqrt(max(0.0, float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])))
    found = [Gain("AUROC", float(areas[0]), float(areas[1]), normal_interval(float(areas[1] - areas[0]), error))]
    recalls = recalls_at_fpr(scores[:, labels], scores[:, ~labels])
    for rate, fpr in enumerate(LOW_FPRS):
        if recalls.n_allowed[rate]:
            before, after = recalls.value[:, rate].tolist()
            spread = recalls.resampled[1, rate] - recalls.resampled[0, rate]
            found.append(Gain(f"recall at FPR {fpr:g}", before, after, resampled_interval(after - before, spread)))
    return tuple(found)


def _metrics(
    dataset: LabelledSet, name: str, own: Interval, gains: Sequence[Gain], labels: NDArray[np.bool_]
) -> Iterator[Metric]:
    n = {"n_pos": int(labels.sum()), "n_neg": int((~labels).sum())}
    title = f"{dataset.path.resolve().name}: what {name} adds"
    yield Metric(set=title, member=name, metric="auroc", **own.model_dump(), **n)
    for gain in gains:
        metric = "gain_" + gain.figure.lower().replace(" ", "_")
        yield Metric(set=title, member="calibrated", metric=metric, **gain.difference.model_dump(), **n)


def _card(
    content: BundleContent, member: NewMember, dataset: LabelledSet, own: Interval, gains: Sequence[Gain], before: str
) -> str:
    """The card with a section on the new member."""
    rows = [(gain.figure, f"{gain.before:.3f}", f"{gain.after:.3f}", _signed(gain.difference)) for gain in gains]
    section = "\n\n".join(
        [
            f"## Member `{member.name}`",
            f"Sees {', '.join(member.bands)} at {member.pixels} pixels, scaling {member.scaling}; added from "
            f"`{member.path.name}` to {before}. Alone it has AUROC {own} on `{dataset.path.resolve().name}` "
            f"(SHA-256 {dataset.fingerprint[:12]}). Both combinations were fitted on one half of the set and measured on the "
            "other; differences are paired, with 95% intervals.",
            markdown_table(("figure", "without", "with", "difference"), rows),
            f"All other figures of this card are those of {before}; 'scanner evaluate --card' measures this bundle.",
        ]
    )
    card = TITLE.sub(lambda _: f"# {content.name} {content.version}", content.texts.get(CARD_FILE, f"# {content.name}\n"))
    return f"{card.rstrip()}\n\n{section}\n"


def _signed(difference: Interval) -> str:
    return f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def read_network(member: NewMember) -> onnx.ModelProto:
    """Read a user's network and refuse what cannot be a member; nothing is run.

    Raises
    ------
    InputMissingError, ContentError
        There is no such file, or it does not fit: one sentence says what.
    """
    path = member.path
    if not path.is_file():
        raise InputMissingError(f"{path}: no such file; give the ONNX file of the network.")
    if path.stat().st_size > MOST_BYTES:
        raise ContentError(f"{path}: is larger than {MOST_BYTES / 1e6:.0f} MB; give a smaller network.")
    try:
        model = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError, ValueError, RuntimeError):
        raise ContentError(f"{path}: no whole ONNX file; export the network again.") from None
    wrong = next(_wrong(model, member), None)
    if wrong is not None:
        raise ContentError(f"{path}: {wrong}.")
    try:
        onnx.checker.check_model(model)
        return onnx.inliner.inline_local_functions(model) if model.functions else model
    except Exception as error:  # The checker raises whatever its C++ parts do.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ContentError(f"{path}: is no valid ONNX model ({reason}); export the network again.") from None


def _wrong(model: onnx.ModelProto, member: NewMember) -> Iterator[str]:
    """What does not fit, with what to do, without a full stop."""
    graph = model.graph
    for tensor in _tensors(graph, model.functions):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            yield "keeps weights in another file; export it with all data inside"
        if math.prod(tensor.dims) > MOST_ELEMENTS or any(length < 0 for length in tensor.dims):
            yield f"has a constant {tensor.name!r} of {list(tensor.dims)} numbers, more than {MOST_ELEMENTS:,}; make it smaller"
    opset = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0)
    own = {function.name for function in model.functions}
    custom = sorted({node.domain for node in _nodes(graph, model.functions) if node.domain not in ("", "ai.onnx")})
    if any(node.domain not in ("", "ai.onnx") and node.op_type not in own for node in _nodes(graph, model.functions)):
        yield f"uses operators of {', '.join(custom)}; export it with operators of ONNX alone"
    if not OLDEST_OPSET <= opset <= onnx.defs.onnx_opset_version():
        newest = onnx.defs.onnx_opset_version()
        yield f"has opset {opset}; export it with an opset from {OLDEST_OPSET} to {newest}"
    drawn = sorted({node.op_type for node in _nodes(graph, model.functions)} & RANDOM)
    if drawn:
        yield f"draws random numbers ({', '.join(drawn)}), so that no score could be repeated; export it for inference"
    constants = {constant.name for constant in graph.initializer}
    inputs = [one for one in graph.input if one.name not in constants]
    wanted = f"float32 (N, {len(member.bands)}, {member.pixels}, {member.pixels})"
    if len(inputs) != 1 or len(graph.output) != 1:
        yield f"has {len(inputs)} inputs and {len(graph.output)} outputs; one input {wanted} and one output are needed"
        return
    shape = _shape(inputs[0])
    expected = (len(member.bands), member.pixels, member.pixels)
    fits = len(shape) == 4 and shape[0] in (None, 1) and all(n in (None, m) for n, m in zip(shape[1:], expected, strict=True))
    if inputs[0].type.tensor_type.elem_type != TensorProto.FLOAT or not fits:
        yield f"takes {_described(inputs[0])}; its input must be {wanted}, N free or 1: see --bands and --pixels"
    shape = _shape(graph.output[0])
    if (
        graph.output[0].type.tensor_type.elem_type != TensorProto.FLOAT
        or len(shape) > 2
        or shape[1:] not in ((), (None,), (1,), (2,))
    ):
        yield f"gives {_described(graph.output[0])}; its output must be float32 (N,), (N, 1) or (N, 2: non-lens, lens)"


def _nodes(graph: onnx.GraphProto, functions: Sequence[onnx.FunctionProto] = ()) -> Iterator[onnx.NodeProto]:
    """All nodes, also of the bodies of loops, conditions and functions."""
    for node in [*graph.node, *(node for function in functions for node in function.node)]:
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _nodes(body)


def _tensors(graph: onnx.GraphProto, functions: Sequence[onnx.FunctionProto] = ()) -> Iterator[onnx.TensorProto]:
    """All constants, wherever they are."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
    for node in _nodes(graph, functions):
        for attribute in node.attribute:
            yield from (tensor for tensor in (attribute.t, *attribute.tensors))
            for body in (attribute.g, *attribute.graphs):
                yield from body.initializer


def _input(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """The one input that is no constant."""
    constants = {constant.name for constant in model.graph.initializer}
    found: list[onnx.ValueInfoProto] = [one for one in model.graph.input if one.name not in constants]
    return found[0]


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)


def _described(value: onnx.ValueInfoProto) -> str:
    kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    return f"{kind} ({', '.join('N' if length is None else str(length) for length in _shape(value))})"


def try_network(model: onnx.ModelProto, member: NewMember) -> Output:
    """Run a network on made-up images, in a process of its own, and find out what its output is.

    Raises
    ------
    ContentError
        It cannot be run, or its answers are of no use: one sentence says which.
    """
    path = member.path
    source = _input(model)
    name = source.name
    generator = np.random.default_rng(1)
    side = (len(member.bands), member.pixels, member.pixels)
    noise = generator.normal(size=(3, *side))
    noise[1, :, side[1] // 2 - 1 : side[1] // 2 + 1, side[2] // 2 - 1 : side[2] // 2 + 1] += 300.0
    noise[2] *= 50.0
    images = noise if member.scaling == "sigma" else (np.arcsinh(noise / 2.0) + 1.44) / 8.35
    if member.scaling == "minmax":
        images -= images.min(axis=(2, 3), keepdims=True)
        images /= images.max(axis=(2, 3), keepdims=True)
    feeds = [{name: images[row : row + 1].astype(np.float32)} for row in (0, 1, 2, 0)]
    if _shape(source)[0] != 1:
        feeds.append({name: images.astype(np.float32)})
    try:
        *alone, again = (answers := run_apart(model.SerializeToString(), feeds, MOST_MEMORY, MOST_SECONDS))[:4]
    except ValueError as error:
        raise ContentError(f"{path}: {error}; export the network again, for one object at a time if need be.") from None
    shapes = {answer.shape for answer in alone}
    if not shapes <= {(1,), (1, 1), (1, 2)}:
        raise ContentError(f"{path}: answers with shape {shapes.pop()}; (N,), (N, 1) or (N, 2: non-lens, lens) are needed.")
    found = np.concatenate(alone).reshape(3, -1)
    if not np.isfinite(found).all():
        raise ContentError(f"{path}: answers with NaN or infinity on noise; train or export the network again.")
    if not np.allclose(again.ravel(), found[0], atol=SAME_SCORE):
        raise ContentError(f"{path}: answers differently when it is asked twice; export the network for inference.")
    if len(answers) > 4 and not np.allclose(answers[4].reshape(found.shape), found, atol=SAME_SCORE, rtol=SAME_SCORE):
        raise ContentError(f"{path}: an object's score depends on those beside it; export the network for inference.")
    if np.ptp(found, axis=0).max() == 0:
        raise ContentError(f"{path}: answers the same whatever it sees; train or export the network again.")
    return _output(model, member, found)


def _output(model: onnx.ModelProto, member: NewMember, found: Float32) -> Output:
    """What the answers (3, 1 or 2) are: as was said, else as the last operator says."""
    path, n = member.path, found.shape[1]
    made = {name: node for node in model.graph.node for name in node.output}
    last = made.get(model.graph.output[0].name)
    while last is not None and last.op_type in ("Identity", "Squeeze", "Reshape", "Flatten", "Unsqueeze"):
        last = made.get(last.input[0])
    is_sigmoid = last is not None and last.op_type == "Sigmoid"
    shares = bool(((found >= 0) & (found <= 1)).all())
    output = member.output
    if output is None:
        if n == 1 and shares and not is_sigmoid:
            raise ContentError(f"{path}: its answers may be probabilities or log-odds; say which with --output.")
        sums = n == 2 and shares and np.allclose(found.sum(axis=1), 1.0, atol=1e-4)
        output = ("softmax" if sums else "logits") if n == 2 else ("probability" if is_sigmoid else "logit")
    if (output in ("logits", "softmax")) != (n == 2):
        raise ContentError(f"{path}: gives {n} number{'s' if n > 1 else ''} an object, which is no {output}; see --output.")
    if output in ("probability", "softmax") and not shares:
        raise ContentError(f"{path}: its answers leave 0 to 1, so they are no {output}; see --output.")
    return output


def wrap(model: onnx.ModelProto, member: NewMember, output: Output) -> bytes:
    """A member's graph: from cutouts, as a scan has them, through scaling and the user's network to lens log-odds.

    Returns
    -------
    bytes
        The serialised model. Inputs, float32, as far as they are needed: ``vis`` (N, 200, 200), ``nisp`` (N, 3, 66, 66),
        ``sky`` and ``sigma`` (N, 4). Output ``logits`` (N, 1). N is free, or 1 where the user's network has it so.
    """
    network = onnx.compose.add_prefix(model, "network/")
    source = _input(network)
    batch: str | int = 1 if _shape(source)[0] == 1 else "N"
    graph = OnnxGraph()
    channels = [_channel(graph, band, member) for band in member.bands]
    graph.node("Concat", channels, source.name, axis=1)
    head = OnnxGraph()
    head.constants = graph.constants
    _log_odds(head, network.graph.output[0].name, len(_shape(network.graph.output[0])), output)
    needed = ["vis"] if "VIS" in member.bands else []
    needed += ["nisp"] if set(member.bands) - {"VIS"} else []
    needed += [] if member.scaling == "minmax" else ["sky", "sigma"]
    shapes = {
        "vis": (VIS_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS),
        "nisp": (len(NISP_BANDS), NISP_CUTOUT_PIXELS, NISP_CUTOUT_PIXELS),
        "sky": (len(BANDS),),
        "sigma": (len(BANDS),),
    }

    def floats(name: str, shape: Sequence[int]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape])

    made = helper.make_model(
        helper.make_graph(
            [*graph.nodes, *network.graph.node, *head.nodes],
            f"scanner-member-{member.name}",
            [floats(name, shapes[name]) for name in needed],
            [floats("logits", (1,))],
            [*graph.constants.values(), *network.graph.initializer],
        ),
        producer_name="scanner",
        opset_imports=[one for one in network.opset_import if one.domain in ("", "ai.onnx")],
        ir_version=network.ir_version,
    )
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString(deterministic=True))


def _channel(graph: OnnxGraph, band: Band, member: NewMember) -> str:
    """One band as the network sees it, (N, 1, pixels, pixels)."""
    number = BANDS.index(band)
    if band == "VIS":
        image = graph.node("Unsqueeze", ["vis", graph.integers(1)], "VIS/image")
    else:
        image = _part(graph, "nisp", number - 1, f"{band}/image")
    if member.scaling != "minmax":
        level = [
            graph.node(
                "Unsqueeze", [_part(graph, name, number, f"{band}/{name}"), graph.integers(2, 3)], f"{band}/{name}/level"
            )
            for name in ("sky", "sigma")
        ]
        image = asinh_mad(graph, image, *level) if member.scaling == "asinh_mad" else _in_sigma(graph, image, *level)
    if band == "VIS" or "VIS" not in member.bands:
        most = VIS_CUTOUT_PIXELS if band == "VIS" else NISP_CUTOUT_PIXELS
        first = (most - member.pixels) // 2
        edges = [graph.integers(first, first), graph.integers(first + member.pixels, first + member.pixels)]
        image = graph.node("Slice", [image, *edges, graph.integers(2, 3)], f"{band}/centre")
    else:
        matrix = nisp_on_vis(member.pixels).astype(np.float32)
        rows, columns = graph.constant("nisp-on-vis/rows", matrix), graph.constant("nisp-on-vis/columns", matrix.T)
        across = graph.node("MatMul", [image, columns], f"{band}/across")
        image = graph.node("MatMul", [rows, across], f"{band}/centre")
    return image if member.scaling != "minmax" else _minmax(graph, image)


def _part(graph: OnnxGraph, source: str, number: int, output: str) -> str:
    """One entry along the second axis, which stays."""
    return graph.node("Slice", [source, graph.integers(number), graph.integers(number + 1), graph.integers(1)], output)


def _in_sigma(graph: OnnxGraph, image: str, sky: str, sigma: str) -> str:
    excess = graph.node("Sub", [image, sky], f"{image}/excess")
    signal = graph.node("Div", [excess, sigma], f"{image}/signal")
    return graph.node("Clip", [signal, graph.scalar(-MOST_SIGMA), graph.scalar(MOST_SIGMA)], f"{image}/clipped")


def _minmax(graph: OnnxGraph, image: str) -> str:
    """Scale to 0..1; by global pooling, whose form is the same in all opsets."""
    high = graph.node("GlobalMaxPool", [image], f"{image}/high")
    opposite = graph.node("Neg", [image], f"{image}/opposite")
    lowered = graph.node("GlobalMaxPool", [opposite], f"{image}/lowered")
    span = graph.node("Add", [high, lowered], f"{image}/span")
    divisor = graph.node("Max", [span, graph.scalar(MINMAX_FLOOR)], f"{image}/divisor")
    raised = graph.node("Add", [image, lowered], f"{image}/raised")
    return graph.node("Div", [raised, divisor], f"{image}/scaled")


def _log_odds(graph: OnnxGraph, answer: str, n_axes: int, output: Output) -> None:
    """From a network's answer to ``logits`` (N, 1)."""
    if output in ("logits", "softmax"):
        parts = [_part(graph, answer, number, f"answer/{number}") for number in (0, 1)]
        if output == "softmax":
            parts = [_log(graph, part) for part in parts]
        graph.node("Sub", [parts[1], parts[0]], "logits")
        return
    answer = graph.node("Unsqueeze", [answer, graph.integers(1)], "answer/column") if n_axes == 1 else answer
    if output == "logit":
        graph.node("Identity", [answer], "logits")
        return
    other = graph.node("Sub", [graph.scalar(1.0), answer], "answer/other")
    graph.node("Sub", [_log(graph, answer), _log(graph, other)], "logits")


def _log(graph: OnnxGraph, probability: str) -> str:
    limited = graph.node("Clip", [probability, graph.scalar(NEAREST), graph.scalar(1.0)], f"{probability}/limited")
    return graph.node("Log", [limited], f"{probability}/log")
