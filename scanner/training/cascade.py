"""The cascade of a scan, from few members on all objects to all orientations on few: how it is set, and what it loses.

A screen of one or two stages says what all members score; test-time augmentation is for what stands high by all. Both belong
to the bundle.
"""

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

from scanner.ensemble import calibration as combining
from scanner.ensemble.bundle import (
    CARD_FILE,
    MODEL_FILE,
    Bundle,
    BundleContent,
    Metric,
    Screen,
    Screening,
    SecondStage,
    content_of,
    lost_at,
    write_bundle,
)
from scanner.ensemble.calibration import LOGIT_LIMIT, Calibration, OperatingCurve, sigmoid
from scanner.ensemble.preprocessing import ORIENTATIONS, TURNS, Augmentation, SecondLook, turn
from scanner.ensemble.session import EnsembleSession, open_session
from scanner.errors import ContentError, UsageError
from scanner.evaluation.metrics import LOW_FPRS, recalls_at_fpr, share_interval
from scanner.evaluation.promotion import TITLE, markdown_table
from scanner.evaluation.scores import cache_key, dataset_logits, kept_array, kept_logits
from scanner.interval import resampled_interval
from scanner.labelled_set import LabelledSet
from scanner.processes import cores
from scanner.records import MEMBERS, Float32, Float64, Int64, MemberName
from scanner.training.data import TrainingData
from scanner.training.presets import SECOND_LOOK_MEMBERS, SECOND_LOOK_SHARE

#: Fewest lenses and non-lenses that a limit is set and measured on.
FEWEST_OF_CLASS = 20
#: Objects of one call of the session.
BATCH = 128
#: What the losses of all sets together are listed under.
ALL_SETS = "all sets"
SCREEN_HEADING, AUGMENTATION_HEADING = "## Screening", "## Test-time augmentation"
#: From a heading to the next one of second level, or the end.
SCREEN_SECTION, AUGMENTATION_SECTION = (
    re.compile(rf"^{re.escape(heading)}$.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    for heading in (SCREEN_HEADING, AUGMENTATION_HEADING)
)
#: What :func:`augmentation_in_short` writes.
AUGMENTATION_IN_SHORT = re.compile(r"^Objects that score as high as the best .*?eight ways\.$", re.MULTILINE | re.DOTALL)

Report = Callable[[str], None]


def member_graph(model: bytes, members: Sequence[MemberName], path: Path | str = MODEL_FILE) -> bytes:
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
        "scanner-members",
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


def second_look_rule(
    calibration: Calibration, others: Float32, share: float, members: Sequence[MemberName] | None = None
) -> SecondLook:
    """Which objects get test-time augmentation: those that score as high as the best ``share`` of non-lenses (N, M).

    What the means over the orientations are worth is not known yet (:func:`with_means`).
    """
    limit = float(np.quantile(calibration.log_odds(others), 1.0 - share))
    return SecondLook(log_odds_above=limit, share=share, members=None if members is None else tuple(members))


def with_means(
    augmentation: Augmentation, once: Float32, means: Float64, is_lens: NDArray[np.bool_], prevalence: float
) -> SecondLook:
    """The rule whose log-odds the bundle's calibration is right for; the same one where there are too few objects to tell.

    Slope and intercept are those of a logistic regression of the labels on the calibrated log-odds, in which the members that
    turn have slope × mean + intercept and the others what they say once. They are drawn to 1 and 0 by as much as one object.

    Parameters
    ----------
    augmentation
        With a rule whose means have no slope yet.
    once, means
        Of the objects that get it: (N, M) log-odds as they are, (N, K) means over the orientations of the members that turn.
    is_lens, prevalence
        (N,) bool, and the share of lenses among the objects that these were chosen from: the choice goes by log-odds, so it
        changes nothing that they do not say.
    """
    if min(is_lens.sum(), (~is_lens).sum()) < FEWEST_OF_CLASS:
        return augmentation.rule
    calibration, columns = augmentation.calibration, augmentation.columns
    coefficients = np.array(calibration.coefficients)[columns]
    alone = np.clip(once, -LOGIT_LIMIT, LOGIT_LIMIT).astype(np.float64)
    rest = calibration.log_odds(alone, prevalence) - alone[:, columns] @ coefficients
    design = np.column_stack([means @ coefficients, np.full(len(means), coefficients.sum())])
    start = np.array([1.0, 0.0])
    found = start
    for _ in range(30):
        predicted = sigmoid(rest + design @ found)
        gradient = design.T @ (predicted - is_lens) + (found - start)
        step = np.linalg.solve((design * (predicted * (1.0 - predicted))[:, None]).T @ design + np.eye(2), gradient)
        found = found - step
        if np.abs(step).max() < 1e-10:
            break
    # Digits that depend on the machine's linear algebra go.
    slope, intercept = (round(float(value), 6) for value in found)
    return augmentation.rule.model_copy(update={"slope": max(slope, 0.1), "intercept": intercept})


def mean_over_orientations(once: Float32, columns: Int64, turned: Callable[[int], Float32]) -> Float64:
    """Means of some members' log-odds over all orientations, (n, K).

    Parameters
    ----------
    once
        (n, M) log-odds of the objects as they are.
    columns
        (K,) of the members.
    turned
        From an orientation, 1 to 7, to the log-odds of the objects turned by it, (n, M).
    """
    turns = [turned(orientation) for orientation in TURNS]
    return np.asarray(np.stack([once, *turns])[:, :, columns].mean(axis=0, dtype=np.float64))


def augmented(
    calibration: Calibration,
    columns: Int64,
    share: float,
    members: Sequence[MemberName] | None,
    once: Float32,
    is_lens: NDArray[np.bool_],
    means_of: Callable[[Int64], Float64],
) -> tuple[SecondLook, Float32]:
    """Set the rule of test-time augmentation on labelled objects; with it, their log-odds as a scan has them.

    Parameters
    ----------
    calibration
        Of the bundle.
    columns, members
        (K,) of the members that turn, and which these are; None: all.
    share
        Of the non-lenses that get it.
    once, is_lens
        (N, M) log-odds of the objects as they are, and (N,) bool.
    means_of
        From numbers of objects (n,) to the means over the orientations of the members that turn, (n, K).
    """
    rule = second_look_rule(calibration, once[~is_lens], share, members)
    again = np.flatnonzero(calibration.log_odds(once) >= rule.log_odds_above)
    means = means_of(again)
    rule = with_means(Augmentation(rule, calibration, columns), once[again], means, is_lens[again], float(is_lens.mean()))
    logits = once.copy()
    logits[np.ix_(again, columns)] = rule.log_odds(means)
    return rule, logits


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


def changes(name: str, before: tuple[Float64, Float64], after: tuple[Float64, Float64]) -> tuple[Metric, ...]:
    """What another cascade changes in recall, at each low false-positive rate that can be measured.

    Parameters
    ----------
    name
        Of the lenses' set.
    before, after
        Scores of the same lenses (L,) and non-lenses (N,).

    Returns
    -------
    tuple of Metric
        Recall after less recall before, with paired 95% intervals by bootstrap of lenses and non-lenses.
    """
    recalls = recalls_at_fpr(np.stack([before[0], after[0]]), np.stack([before[1], after[1]]))
    sizes = {"n_pos": len(before[0]), "n_neg": len(before[1])}
    measured = []
    for number, fpr in enumerate(LOW_FPRS):
        if recalls.n_allowed[number]:
            value, spread = (values[1] - values[0] for values in (recalls.value[:, number], recalls.resampled[:, number]))
            interval = resampled_interval(float(value), spread)
            measured.append(Metric(set=name, member="calibrated", metric=change_at(fpr), **interval.model_dump(), **sizes))
    return tuple(measured)


def change_at(fpr: float) -> str:
    """Name of the metric: what another cascade changes in recall at a false-positive rate."""
    return f"recall_change_at_fpr_{fpr:g}"


def set_cascade(
    bundle: Bundle,
    datasets: Sequence[LabelledSet],
    out: Path,
    *,
    members: Sequence[MemberName],
    share: float,
    version: str,
    calibration: TrainingData | None = None,
    turning: Sequence[MemberName] = SECOND_LOOK_MEMBERS,
    turning_share: float = SECOND_LOOK_SHARE,
    second_share: float | None = None,
    cache: Path | None = None,
    provider: str = "auto",
    threads: int = 1,
    report: Report = lambda text: None,
) -> Bundle:
    """Write a bundle with another screen, calibration and test-time augmentation; no network and no grid changes.

    The screen's limit is what the best ``share`` of all sets' non-lenses pass; ``second_share`` of them pass its second stage
    too, if it has one. What is lost is measured on all lenses. Of the non-lenses only those that pass the first stage are
    scored by all members: one that does not could only have raised a threshold. What
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
    calibration
        Sets whose calibration rows set calibration and test-time augmentation, also sets that the bundle was trained on; None:
        they stay.
    turning, turning_share
        The members that score all orientations, and the share of the calibration rows' non-lenses above which they do.
    cache
        Folder where log-odds are kept; None: they are not.
    provider, threads
        Of the session.
    report
        Called with one line per step.

    Raises
    ------
    UsageError
        The version is the bundle's, it was trained on a set, or has no calibration that members can be taken from; a second
        stage would let as many pass as the first, or the members that turn are not there for it.
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
    if not isinstance(bundle.calibration, Calibration):
        raise UsageError(f"{bundle.location}: has no calibration, so it takes no screen; make it with a labelled set.")
    if second_share is not None:
        _check_second_stage(bundle, members, share, second_share, turning if calibration else None)
    labels = [dataset.truth.is_lens for dataset in datasets]
    together = np.concatenate(labels)
    if min(together.sum(), (~together).sum()) < FEWEST_OF_CLASS:
        raise ContentError(
            f"{', '.join(str(dataset.path) for dataset in datasets)}: {FEWEST_OF_CLASS} lenses and as many others are needed; "
            "give larger sets, or more of them."
        )

    names = tuple(name for name in MEMBERS if name in members)
    graph = member_graph(bundle.model, names, bundle.path / MODEL_FILE)
    screen = Screen(members=names, log_odds_above=0.0, share=share)
    content = replace(content_of(bundle), version=version, screen=screen, screen_model=graph)

    def opened(content: BundleContent) -> tuple[Bundle, EnsembleSession]:
        with tempfile.TemporaryDirectory() as scratch:
            made = write_bundle(Path(scratch) / "unset", content)
            return made, open_session(made, provider, threads, max(1, cores() // threads), screens=True)

    if calibration is not None:
        turn = tuple(name for name in MEMBERS if name in turning)
        rule = SecondLook(log_odds_above=0.0, share=turning_share, members=turn)
        graph = member_graph(bundle.model, turn, bundle.path / MODEL_FILE)
        content = replace(content, second_look=rule, augmentation_model=graph)
        report(f"setting calibration and test-time augmentation on {len(calibration.split.calibration):,} objects")
        content = _augmented(content, *opened(content), calibration, cache)
    made, session = opened(content)
    alone = made.combination(chosen)
    assert isinstance(alone, Calibration)
    report(f"screening {len(together):,} objects by {', '.join(names)}")
    firsts = [_first(bundle, session, dataset, names, cache) for dataset in datasets]
    limit = float(np.quantile(alone.log_odds(np.concatenate(firsts)[~together]), 1.0 - share))
    screening = Screening(chosen, alone, limit)
    passes = [screening.passing(first) for first in firsts]
    stage, passing = None, np.concatenate(passes)
    if second_share is not None:
        turn = () if made.manifest.second_look is None else made.manifest.second_look.members or ()
        report(f"screening {passing.sum():,} of them again, by {', '.join(turn)}")
        stage, passing = _second_stage(made, session, datasets, passes, together, second_share)
    wanted = [np.flatnonzero(passing | is_lens) for passing, is_lens in zip(passes, labels, strict=True)]
    report(f"scoring {sum(map(len, wanted)):,} of them by all members")
    score = np.concatenate([_scores(made, session, data, rows, cache) for data, rows in zip(datasets, wanted, strict=True)])
    earlier = None
    if calibration is not None:
        report(f"scoring them as {manifest.name} {manifest.version} does")
        session = open_session(bundle, provider, threads, max(1, cores() // threads))
        found = [_scores(bundle, session, data, rows, cache) for data, rows in zip(datasets, wanted, strict=True)]
        earlier = np.concatenate(found)
    # Sets of lenses alone are measured against the non-lenses of all.
    others, ends = np.flatnonzero(~together), np.cumsum([0, *map(len, labels)])
    groups = {
        data.path.resolve().name: start + np.flatnonzero(is_lens)
        for data, start, is_lens in zip(datasets, ends, labels, strict=False)
        if is_lens.any()
    }
    lost: list[Metric] = []
    changed: list[Metric] = []
    for name, lenses in (groups | {ALL_SETS: np.flatnonzero(together)}).items():
        rows = np.concatenate([lenses, others])
        lost += losses(name, score[rows], passing[rows], together[rows])
        if earlier is not None:
            after = np.where(passing, score, -np.inf)
            changed += changes(name, (earlier[lenses], earlier[others]), (after[lenses], after[others]))
    overall = tuple(metric for metric in lost if metric.set == ALL_SETS)
    screen = screen.model_copy(update={"log_odds_above": limit, "second_stage": stage, "lost": overall})
    content = replace(content, screen=screen)
    card = _card(content, lost, None if earlier is None else changed, f"{manifest.name} {manifest.version}")
    return write_bundle(out, replace(content, texts={**content.texts, CARD_FILE: card}))


def _check_second_stage(
    bundle: Bundle, members: Sequence[MemberName], share: float, second_share: float, turning: Sequence[MemberName] | None
) -> None:
    """Refuse a second stage that chooses nothing; ``turning``: who will turn, None: the bundle's own."""
    if second_share >= share:
        raise UsageError(
            f"--second-share {second_share:g} must be below --share {share:g}: what passes the first stage is chosen from."
        )
    rule = bundle.manifest.second_look
    if turning is None:
        turning = () if rule is None else rule.members or ()
    if not set(members) <= set(turning):
        raise UsageError(
            f"{bundle.location}: a second stage asks the members that turn, among which {', '.join(members)} of the first must "
            "be; give --calibration with --turn."
        )


def _augmented(
    content: BundleContent, unset: Bundle, session: EnsembleSession, data: TrainingData, cache: Path | None
) -> BundleContent:
    """A bundle whose calibration, rule of test-time augmentation and thresholds are set on the calibration rows of a set."""
    rows, augmentation, before = data.split.calibration, unset.augmentation, unset.calibration
    assert augmentation is not None
    assert isinstance(before, Calibration)
    is_lens = data.labels.is_lens[rows]
    place = None if cache is None else cache / f"{unset.manifest.networks_sha256[:16]}-{data.fingerprint[:16]}"
    shape = (len(rows), session.n_members)
    path = None if place is None else place / "calibration-once.npy"
    once = kept_array(path, shape, lambda: dataset_logits(session, data, rows, np.zeros_like(rows)))
    calibration = combining.fit(once, is_lens, sky_prevalence=before.sky_prevalence)
    columns, asked = augmentation.columns, augmentation.rule

    def means_of(again: Int64) -> Float64:
        path = None if place is None else place / f"calibration-{'-'.join(asked.members or ())}-{len(again)}.npy"
        turned = kept_array(path, (len(again), session.n_members), lambda: _means(session, data, rows[again]))
        return turned[:, columns].astype(np.float64)

    rule, logits = augmented(calibration, columns, asked.share, asked.members, once, is_lens, means_of)
    by_grid = unset.grid is not None and unset.manifest.decides_on == "grid"
    value = unset.grid.lookup(logits).value if by_grid and unset.grid is not None else calibration.apply(logits)
    return replace(content, calibration=calibration, second_look=rule, curve=OperatingCurve.of(value, is_lens))


def _means(session: EnsembleSession, data: TrainingData, rows: Int64) -> Float32:
    """Means over the orientations of the members that turn, (N, M)."""
    found = []
    for batch, vis, nisp in data.batches(rows, BATCH):
        turns = ((turn(vis, orientation), turn(nisp, orientation)) for orientation in range(ORIENTATIONS))
        scored = [session.turned_logits(*images, batch.sky, batch.sigma) for images in turns]
        found.append(np.mean(scored, axis=0, dtype=np.float64).astype(np.float32))
    return np.concatenate(found)


def _second_stage(
    bundle: Bundle,
    session: EnsembleSession,
    datasets: Sequence[LabelledSet],
    passes: Sequence[NDArray[np.bool_]],
    is_lens: NDArray[np.bool_],
    share: float,
) -> tuple[SecondStage, NDArray[np.bool_]]:
    """A second stage that lets ``share`` of all non-lenses pass, and what passes both stages, (N,) bool of all sets."""
    augmentation = bundle.augmentation
    assert augmentation is not None
    members = np.isin(np.arange(session.n_members), augmentation.columns)
    alone = bundle.combination(members)
    assert isinstance(alone, Calibration)
    level = np.full(len(is_lens), -np.inf)
    found = [
        session.turned_logits(vis, nisp, batch.sky, batch.sigma)
        for dataset, passing in zip(datasets, passes, strict=True)
        for batch, vis, nisp in dataset.batches(np.flatnonzero(passing), BATCH)
    ]
    level[np.concatenate(passes)] = alone.log_odds(np.concatenate(found))
    limit = float(np.quantile(level[~is_lens], 1.0 - share, method="higher"))
    return SecondStage(log_odds_above=limit, share=share), level >= limit


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


def _card(content: BundleContent, lost: Sequence[Metric], changed: Sequence[Metric] | None, before: str) -> str:
    """The card with the section on the screen and, if it changed, on test-time augmentation, in the place of older ones."""
    screen, rule = content.screen, content.second_look
    assert screen is not None
    card = TITLE.sub(lambda _: f"# {content.name} {content.version}", content.texts.get(CARD_FILE, f"# {content.name}\n"))
    card, sections = SCREEN_SECTION.sub("", card), [screen_section(screen, lost)]
    if changed is not None and rule is not None:
        card = AUGMENTATION_IN_SHORT.sub(lambda _: augmentation_in_short(rule), AUGMENTATION_SECTION.sub("", card))
        sections.append(augmentation_section(changed, before))
    return "\n\n".join([card.rstrip(), *sections]) + "\n"


def screen_section(screen: Screen, lost: Sequence[Metric]) -> str:
    """The section of a model card on the bundle's screen, and what it loses."""
    default = "A scan uses it unless it is told not to" if screen.is_harmless else "A scan uses it only if it is asked to"
    one = len(screen.members) == 1
    stage = screen.second_stage
    second = "" if stage is None else f", and then by the members that turn as high as the best {stage.share:.1%}"
    text = (
        f"{', '.join(screen.members)} {'scores' if one else 'score'} every object; all members score those that stand as high "
        f"by {'it' if one else 'them'} alone as the best {screen.share:.0%} of the non-lenses below{second}. {default} "
        "(`scanner run --screen`). All other figures of this card are without a screen. Lost: share of the lenses that all "
        "members together find at a false-positive rate and the screen keeps from them, with 95% intervals."
    )
    return metric_section(SCREEN_HEADING, text, lost, "lost", lost_at)


def augmentation_in_short(rule: SecondLook) -> str:
    """The paragraph of a model card that says what test-time augmentation does."""
    who = "all members" if rule.members is None else " and ".join(rule.members)
    worth = f": {rule.slope:.2f} times the mean plus {rule.intercept:.2f}" if (rule.slope, rule.intercept) != (1.0, 0.0) else ""
    return (
        f"Objects that score as high as the best {rule.share:.0%} of the calibration set's non-lenses are scored by\n"
        f"{who} in all eight orientations, and the means of their log-odds count{worth}.\n"
        "All figures below include that, but for those that say eight ways."
    )


def augmentation_section(changed: Sequence[Metric], before: str) -> str:
    """The section of a model card on what test-time augmentation and screen change in recall against an earlier version."""
    text = (
        f"Recall as a scan has it, with the screen and test-time augmentation of this version, less that of {before} without a "
        "screen: the same lenses and non-lenses, paired 95% intervals."
    )
    return metric_section(AUGMENTATION_HEADING, text, changed, "change of recall", change_at)


def metric_section(heading: str, text: str, metrics: Sequence[Metric], what: str, name_at: Callable[[float], str]) -> str:
    """A heading, a text, and a table with a row for each set and a column for each false-positive rate."""
    rows: dict[str, dict[str, str]] = {}
    for metric in metrics:
        value = f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}]"
        rows.setdefault(f"{metric.set}|{metric.n_pos:,}|{metric.n_neg:,}", {})[metric.metric] = value
    table = markdown_table(
        ("lenses of", "lenses", "non-lenses", *(f"{what} at FPR {fpr:g}" for fpr in LOW_FPRS)),
        [(*key.split("|"), *(found.get(name_at(fpr), "too few") for fpr in LOW_FPRS)) for key, found in rows.items()],
    )
    return f"{heading}\n\n{text}\n\n{table if rows else 'Not measured: there were too few lenses or non-lenses.'}"
