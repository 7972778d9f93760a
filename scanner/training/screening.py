"""A bundle's screen: its graph, its limit, what it loses, and how a finished bundle gets one."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, helper

from scanner.ensemble.bundle import (
    CARD_FILE,
    MODEL_FILE,
    Bundle,
    BundleContent,
    Metric,
    Screen,
    Screening,
    content_of,
    lost_at,
    write_bundle,
)
from scanner.ensemble.calibration import Calibration
from scanner.ensemble.session import EnsembleSession, open_session
from scanner.errors import ContentError, UsageError
from scanner.evaluation.card import TITLE, markdown_table
from scanner.evaluation.metrics import LOW_FPRS, recalls_at_fpr, share_interval
from scanner.evaluation.scores import cache_key, dataset_logits, kept_array, kept_logits
from scanner.labelled_set import LabelledSet
from scanner.records import MEMBERS, Float32, Float64, Int64, MemberName
from scanner.survey.scan.machine import cores

#: Fewest lenses and non-lenses that a limit is set and measured on.
FEWEST_OF_CLASS = 20
#: Objects of one call of the session.
BATCH = 128
#: What the losses of all sets together are listed under.
ALL_SETS = "all sets"
HEADING = "## Screening"
#: From the heading to the next one of second level, or the end.
SECTION = re.compile(rf"^{re.escape(HEADING)}$.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)

Report = Callable[[str], None]


def screen_graph(model: bytes, members: Sequence[MemberName], path: Path | str = MODEL_FILE) -> bytes:
    """The part of an ensemble's ONNX graph that computes some of its members.

    Parameters
    ----------
    model
        The graph of the paper's seven (:func:`scanner.training.export.merge_onnx`).
    members
        Which, in the order of :data:`~scanner.records.MEMBERS`.
    path
        Its file, for messages.

    Returns
    -------
    bytes
        A model with those of the inputs that these members read, and the output ``logits`` (N, members).

    Raises
    ------
    ContentError
        It is no such graph.
    """
    try:
        whole = onnx.load_model_from_string(model)
    except (DecodeError, ValueError):
        raise ContentError(f"{path}: no ONNX file; fetch the bundle again.") from None
    log_odds = [f"{member}/log-odds" for member in members]
    needed, nodes = set(log_odds), []
    for node in reversed(whole.graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
    if not needed.issuperset({"vis"} if any(name.endswith(("VIS", "66", "200")) for name in members) else {"nisp"}):
        raise ContentError(f"{path}: was not exported by scanner, so no member can be taken from it; export it again.")
    nodes.reverse()
    nodes.append(helper.make_node("Concat", log_odds, ["logits"], name="logits", axis=1))
    graph = helper.make_graph(
        nodes,
        "scanner-screen",
        [value for value in whole.graph.input if value.name in needed],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(members)])],
        [constant for constant in whole.graph.initializer if constant.name in needed],
    )
    part = helper.make_model(graph, producer_name="scanner", opset_imports=whole.opset_import, ir_version=whole.ir_version)
    onnx.checker.check_model(part, full_check=True)
    return bytes(part.SerializeToString(deterministic=True))


def screen_on(
    name: str,
    members: Sequence[MemberName],
    share: float,
    calibration: Calibration,
    reference: Float32,
    plain: Float32,
    score: Float64,
    is_lens: NDArray[np.bool_],
) -> Screen:
    """A screen, set and measured on objects that all members have scored.

    Parameters
    ----------
    name
        Of the objects.
    members, share
        Of the screen: the limit is what the best ``share`` of the non-lenses reach.
    calibration, reference
        Of the bundle, and log-odds (K, M) that a part of it is distilled from.
    plain, score
        (N, M) log-odds without test-time augmentation, which the screen sees, and (N,) what objects are ranked by.
    is_lens
        (N,) bool.
    """
    chosen = np.arange(plain.shape[1])[:, None] == [MEMBERS.index(member) for member in members]
    alone = calibration.distilled(chosen.any(axis=1), reference)
    level = alone.log_odds(plain)
    limit = float(np.quantile(level[~is_lens], 1.0 - share))
    lost = losses(name, score, level >= limit, is_lens)
    return Screen(members=tuple(members), log_odds_above=limit, share=share, lost=lost)


def losses(name: str, score: Float64, passes: NDArray[np.bool_], is_lens: NDArray[np.bool_]) -> tuple[Metric, ...]:
    """What a screen loses of the lenses that are found without it, at each low false-positive rate that can be measured.

    Parameters
    ----------
    name
        Of the set.
    score
        (N,) what objects are ranked by without a screen.
    passes, is_lens
        (N,) bool.

    Returns
    -------
    tuple of Metric
        Lost lenses over found ones, with 95% intervals: by bootstrap of lenses and non-lenses, the found ones taken anew each
        time; of Wilson where none or all are lost. A rate is left out where not one of the non-lenses may pass, or no lens is
        found.
    """
    n_lenses, n_others = int(is_lens.sum()), int((~is_lens).sum())
    if not n_lenses or not n_others:
        return ()
    kept = np.where(passes, score, -np.inf)
    recalls = recalls_at_fpr(np.stack([score[is_lens], kept[is_lens]]), np.tile(score[~is_lens], (2, 1)))
    measured = []
    for number, fpr in enumerate(LOW_FPRS):
        before, after = recalls.value[:, number]
        if not recalls.n_allowed[number] or not before:
            continue
        spread = recalls.resampled[:, number]
        lost = 1.0 - np.divide(spread[1], spread[0], out=np.ones(spread.shape[1]), where=spread[0] > 0)
        interval = share_interval(float(1.0 - after / before), lost, round(before * n_lenses))
        measured.append(
            Metric(set=name, member="screen", metric=lost_at(fpr), **interval.model_dump(), n_pos=n_lenses, n_neg=n_others)
        )
    return tuple(measured)


def set_screen(
    bundle: Bundle,
    datasets: Sequence[LabelledSet],
    out: Path,
    *,
    members: Sequence[MemberName],
    share: float,
    version: str,
    cache: Path | None = None,
    provider: str = "auto",
    threads: int = 1,
    report: Report = lambda text: None,
) -> Bundle:
    """Write a bundle with a screen, set and measured on labelled sets; no network changes.

    The limit is what the best ``share`` of all sets' non-lenses pass. What is lost is measured on all lenses. Of the
    non-lenses only those that pass are scored by all members: one that does not could only have raised a threshold. What
    :func:`~scanner.evaluation.scores.cached_logits` has kept is used.

    Parameters
    ----------
    bundle
        It stays as it is.
    datasets
        Labelled sets that it was not trained on.
    out, version
        Folder of the new bundle, replaced if it is one, and its version.
    members, share
        Of the screen.
    cache
        Folder where log-odds are kept; None: they are not.
    provider, threads
        Of the session.
    report
        Called with one line per step.

    Raises
    ------
    UsageError
        The version is the bundle's, it was trained on a set, or has no calibration that members can be taken from.
    ContentError
        The sets have too few objects.
    OutputError
        ``out`` or the cache cannot be written.
    """
    manifest = bundle.manifest
    if version == manifest.version:
        raise UsageError(f"{bundle.location}: is {manifest.name} {version} already; name another --version.")
    for dataset in datasets:
        if dataset.was_seen_by(manifest.trained_on):
            raise UsageError(f"{dataset.path}: {manifest.name} was trained on it; give held-out sets as --data.")
    chosen = np.array([name in members for name in manifest.member_names])
    alone = bundle.combination(chosen)
    if not isinstance(alone, Calibration):
        raise UsageError(f"{bundle.location}: has no calibration, so it takes no screen; make it with a labelled set.")
    labels = [dataset.truth.is_lens for dataset in datasets]
    together = np.concatenate(labels)
    if min(together.sum(), (~together).sum()) < FEWEST_OF_CLASS:
        raise ContentError(
            f"{', '.join(str(dataset.path) for dataset in datasets)}: {FEWEST_OF_CLASS} lenses and as many others are needed; "
            "give larger sets, or more of them."
        )
    names = tuple(name for name in MEMBERS if name in members)
    screen = Screen(members=names, log_odds_above=0.0, share=share)
    graph = screen_graph(bundle.model, names, bundle.path / MODEL_FILE)
    content = replace(content_of(bundle), version=version, screen=screen, screen_model=graph)
    with tempfile.TemporaryDirectory() as scratch:
        unset = write_bundle(Path(scratch) / "unset", content)
        session = open_session(unset, provider, threads, max(1, cores() // threads), screens=True)
    report(f"screening {len(together):,} objects by {', '.join(names)}")
    firsts = [_first(bundle, session, dataset, names, cache) for dataset in datasets]
    limit = float(np.quantile(alone.log_odds(np.concatenate(firsts)[~together]), 1.0 - share))
    screening = Screening(chosen, alone, limit)
    passes = [screening.passing(first) for first in firsts]
    wanted = [np.flatnonzero(passing | is_lens) for passing, is_lens in zip(passes, labels, strict=True)]
    report(f"scoring {sum(map(len, wanted)):,} of them by all members")
    scores = [_scores(bundle, session, dataset, rows, cache) for dataset, rows in zip(datasets, wanted, strict=True)]
    score, passing = np.concatenate(scores), np.concatenate(passes)
    # Sets of lenses alone are measured against the non-lenses of all.
    others = score[~together], passing[~together]
    table: list[Metric] = []
    for dataset, own, passed, is_lens in zip(datasets, scores, passes, labels, strict=True):
        if is_lens.any():
            n = int(is_lens.sum())
            table += losses(
                dataset.path.resolve().name,
                np.concatenate([own[is_lens], others[0]]),
                np.concatenate([passed[is_lens], others[1]]),
                np.arange(n + len(others[0])) < n,
            )
    screen = Screen(members=names, log_odds_above=limit, share=share, lost=losses(ALL_SETS, score, passing, together))
    card = _card(content, screen, table)
    return write_bundle(out, replace(content, screen=screen, texts={**content.texts, CARD_FILE: card}))


def _first(
    bundle: Bundle, session: EnsembleSession, dataset: LabelledSet, members: Sequence[MemberName], cache: Path | None
) -> Float32:
    """Log-odds of the members of the screen, (N, M), 0 elsewhere."""

    def compute() -> Float32:
        found = [
            session.screen_logits(vis, nisp, batch.sky, batch.sigma)
            for batch, vis, nisp in dataset.batches(np.arange(len(dataset)), BATCH)
        ]
        return np.concatenate(found)

    path = None if cache is None else cache / cache_key(bundle, dataset) / f"screen-{'-'.join(members)}.npy"
    return kept_array(path, (len(dataset), session.n_members), compute)


def _scores(bundle: Bundle, session: EnsembleSession, dataset: LabelledSet, rows: Int64, cache: Path | None) -> Float64:
    """What all members rank the set by, (N,), as a scan without a screen does; -inf but in ``rows``."""
    whole = None if cache is None else kept_logits(bundle, dataset, cache)
    if whole is not None:
        logits = whole[rows]
    else:
        key = hashlib.sha256(rows.tobytes()).hexdigest()[:16]
        path = None if cache is None else cache / cache_key(bundle, dataset) / f"some-{key}.npy"
        logits = kept_array(path, (len(rows), session.n_members), lambda: dataset_logits(session, dataset, rows))
    scores = np.full(len(dataset), -np.inf)
    scores[rows] = bundle.calibration.ranking_score(logits)
    return scores


def _card(content: BundleContent, screen: Screen, by_set: Sequence[Metric]) -> str:
    """The card with the section on the screen, in the place of an older one."""
    card = TITLE.sub(lambda _: f"# {content.name} {content.version}", content.texts.get(CARD_FILE, f"# {content.name}\n"))
    return f"{SECTION.sub('', card).rstrip()}\n\n{card_section(screen, by_set)}\n"


def card_section(screen: Screen, by_set: Sequence[Metric] = ()) -> str:
    """The section of a model card on the bundle's screen.

    Parameters
    ----------
    screen
        With what it loses.
    by_set
        What it loses of single sets.
    """
    rows: dict[str, dict[str, str]] = {}
    for metric in (*by_set, *screen.lost):
        text = f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}]"
        rows.setdefault(f"{metric.set}|{metric.n_pos:,}|{metric.n_neg:,}", {})[metric.metric] = text
    table = markdown_table(
        ("lenses of", "lenses", "non-lenses", *(f"lost at FPR {fpr:g}" for fpr in LOW_FPRS)),
        [(*key.split("|"), *(found.get(lost_at(fpr), "too few") for fpr in LOW_FPRS)) for key, found in rows.items()],
    )
    default = "A scan uses it unless it is told not to" if screen.is_harmless else "A scan uses it only if it is asked to"
    one = len(screen.members) == 1
    text = (
        f"{', '.join(screen.members)} {'scores' if one else 'score'} every object; all members score those that stand as high "
        f"by {'it' if one else 'them'} alone as the best {screen.share:.0%} of the non-lenses below. {default} (`scanner run "
        "--screen`). All other figures of this card are without a screen. Lost: share of the lenses that all members together "
        "find at a false-positive rate and the screen keeps from them, with 95% intervals."
    )
    return f"{HEADING}\n\n{text}\n\n{table if rows else 'Not measured: there were too few lenses or non-lenses.'}"
