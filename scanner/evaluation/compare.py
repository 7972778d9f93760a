"""Bundles on labelled sets, real ones too, and single images, side by side: from folders to one evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scanner import __version__
from scanner.ensemble import bundles as bundle_files
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.calibration import Calibration, sigmoid
from scanner.ensemble.session import EnsembleSession, open_session, seeing
from scanner.errors import UsageError
from scanner.evaluation.biases import colour_curves, orientation_scatter, recoloured_logits, sample_rows, turned_logits
from scanner.evaluation.decisions import FPRS, class_rates, decisions, grid_losses, measure, recall_curves, yields
from scanner.evaluation.images import NonLenses, judge_of, known_lens_cutouts, read_images, read_known_lenses, score_image
from scanner.evaluation.metrics import LOW_FPRS, auroc_interval, threshold_at_fpr
from scanner.evaluation.results import (
    SKY_PREVALENCE,
    TURNED,
    ColourCurve,
    Evaluation,
    ImageScore,
    OrientationScatter,
    Pairing,
    RealFigures,
    RealObject,
    RealShare,
    Reliability,
    ReliabilityBin,
    SetSummary,
    main_pairings,
)
from scanner.evaluation.scores import ScoredBundle, cached_grid_values, cached_logits, score
from scanner.interval import Interval, exact_interval, resampled_interval
from scanner.labelled_set import LabelledSet, Truth
from scanner.records import BANDS, MEMBERS, CutoutBatch, Float64, MemberName

#: Ranges of the Einstein radius, arcsec, that lenses are counted in where the set tells it.
RADII = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, math.inf)


def measure_real(
    scored: ScoredBundle,
    reference: str,
    non_lenses: NDArray[np.bool_],
    name: str,
    dataset: LabelledSet,
    open_session: Callable[[], EnsembleSession],
    cache: Path | None,
    report: Callable[[int], None] = lambda n: None,
) -> RealFigures:
    """Measure a bundle on a set of real cutouts.

    A set of real lenses and non-lenses is small, and holds what somebody chose. So the threshold comes from simulated
    non-lenses, as many as a false-positive rate needs, and real objects are counted above it. Each object's log-odds are the
    mean over its eight orientations. Bands that a cutout lacks altogether are left to the members that see the others, in
    the set and in the simulated non-lenses alike, so that the rate means the same for it.

    Parameters
    ----------
    scored
        The bundle and its log-odds for the simulated sets.
    reference, non_lenses
        The set that the thresholds rest on, and which of its rows (N,) count.
    name, dataset
        The real set.
    open_session
        Called once at most, and only if log-odds are missing in ``cache``.
    cache
        Folder where log-odds are kept; None: they are not.
    report
        Called with the number of orientations done after every batch.
    """
    rows = np.arange(len(dataset), dtype=np.int64)
    turned, augmentation = turned_logits(scored.bundle, dataset, rows, open_session, cache, report), scored.bundle.augmentation
    simulated = scored.logits[reference][non_lenses]
    allowed = {fpr: math.floor(fpr * len(simulated) + 1e-9) for fpr in LOW_FPRS}
    fprs = tuple(fpr for fpr, n in allowed.items() if n > 0)

    score, passing = np.full(len(rows), np.nan), np.zeros((len(fprs), len(rows)), dtype=np.bool_)
    there = dataset.store.bad_fraction < 1.0
    for bands in np.unique(there, axis=0):
        members = seeing(scored.bundle, bands)
        combination = scored.bundle.combination(members)
        if combination is not None:
            combined = np.s_[:] if isinstance(combination, Calibration) else members
            chosen = (there == bands).all(axis=1)
            logits = turned[chosen]
            if augmentation is not None and isinstance(combination, Calibration):
                logits = replace(augmentation, calibration=combination).as_scanned(logits)
            score[chosen] = combination.ranking_score(logits.mean(axis=1)[:, combined])
            others = combination.ranking_score(simulated[:, combined])
            limits = [threshold_at_fpr(others, fpr) for fpr in fprs]
            passing[:, chosen] = score[chosen] >= np.array(limits)[:, None]

    judged, truth = np.isfinite(score), dataset.truth
    lens, other = truth.is_lens & judged, ~truth.is_lens & judged
    rising = np.sort(score[other])
    above = np.where(judged, len(rising) - np.searchsorted(rising, score, side="right"), 0)

    def objects(chosen: NDArray[np.bool_]) -> tuple[RealObject, ...]:
        return tuple(
            RealObject(
                target_id=int(truth.target_id[row]),
                label=str(truth.class_name[row]),
                log_odds=float(score[row]),
                passes=tuple(fpr for fpr, passed in zip(fprs, passing[:, row], strict=True) if passed),
                others_above=int(above[row]),
            )
            for row in np.flatnonzero(chosen)[np.argsort(-score[chosen], kind="stable")]
        )

    shares = tuple(
        RealShare(
            group=group,
            kind=kind,
            n=int(chosen.sum()),
            passing=tuple(exact_interval(int(passed[chosen].sum()), int(chosen.sum())) for passed in passing),
        )
        for group, kind, chosen in _groups(dataset, lens, other)
    )
    return RealFigures(
        bundle=scored.name,
        set=name,
        reference=reference,
        fprs=fprs,
        n_false=tuple(allowed[fpr] for fpr in fprs),
        n_unjudged=int(np.count_nonzero(~judged)),
        shares=shares,
        auroc=auroc_interval(score[judged], truth.is_lens[judged]) if lens.any() and other.any() else None,
        lenses=objects(lens),
        alarms=objects(other & passing.any(axis=0)),
    )


def _groups(
    dataset: LabelledSet, lens: NDArray[np.bool_], other: NDArray[np.bool_]
) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """What is counted: all lenses, those of each label and Einstein radius, all others, those of each label."""
    label, radius = dataset.truth.class_name, dataset.column("theta_e_arcsec")
    for kind, chosen in (("lenses", lens), ("others", other)):
        if not chosen.any():
            continue
        yield "all", kind, chosen
        labels = np.unique(label[chosen])
        if len(labels) > 1:
            yield from ((str(one), kind, chosen & (label == one)) for one in labels)
        if kind == "lenses" and radius is not None:
            for low, high in pairwise(RADII):
                inside = chosen & (radius >= low) & (radius < high)
                if inside.any():
                    yield f"θ_E {low:g}–{high:g}″" if math.isfinite(high) else f"θ_E from {low:g}″ on", kind, inside


EQUAL_BINS = 12
#: Natural log-odds of half decades of the odds, down to one in ten million.
DECADES = np.arange(-7, 3.01, 0.5) * np.log(10.0)
RESAMPLES = 1000


def reliability(
    bundle: str,
    pairing: Pairing,
    lenses: Float64,
    others: Float64,
    prevalence: float,
    *,
    at_sky: bool,
    seed: int = 0,
) -> Reliability:
    """Measure calibrated log-odds that are stated for ``prevalence``.

    A set is brought to a prevalence by weighting its classes. At its own, bins hold equal numbers of objects; at the sky's,
    where nearly every object is a certain non-lens and candidates span decades, bins are half decades of the odds. Intervals
    resample the objects of each class among the bins. The error of a perfect calibration is not zero but that of counting: with
    2,000 objects in 12 bins about 0.02.

    Parameters
    ----------
    bundle, pairing
        To be quoted.
    lenses, others
        (P,) and (N,) natural log-odds at ``prevalence`` of lenses and of non-lenses.
    prevalence, at_sky
        Share of lenses, and whether it is the sky's, which decides on the bins.
    seed
        Of the resamples.

    Raises
    ------
    ValueError
        There are no lenses, or no non-lenses.
    """
    if not len(lenses) or not len(others):
        raise ValueError("needs lenses and non-lenses")
    together = np.concatenate([lenses, others])
    edges = DECADES if at_sky else np.unique(np.quantile(together, np.arange(1, EQUAL_BINS) / EQUAL_BINS))
    size = len(edges) + 1
    predicted_mass, mass, counts = np.zeros(size), np.zeros(size), []
    for values, share in ((lenses, prevalence), (others, 1.0 - prevalence)):
        cell = np.searchsorted(edges, values, side="right")
        counts.append(np.bincount(cell, minlength=size))
        mass += counts[-1] * (share / len(values))
        predicted_mass += np.bincount(cell, weights=sigmoid(values), minlength=size) * (share / len(values))
    predicted = predicted_mass / np.where(mass > 0, mass, 1.0)

    generator = np.random.default_rng(seed)
    drawn = [generator.multinomial(part.sum(), part / part.sum(), RESAMPLES) for part in counts]
    observed, ece, in_decades = _errors(counts[0][None], counts[1][None], predicted, prevalence)
    observed_drawn, ece_drawn, in_decades_drawn = _errors(drawn[0], drawn[1], predicted, prevalence)
    used = np.flatnonzero(counts[0] + counts[1])
    return Reliability(
        bundle=bundle,
        pairing=pairing,
        prevalence=prevalence,
        at_sky=at_sky,
        bins=tuple(
            ReliabilityBin(
                predicted=float(predicted[b]),
                observed=resampled_interval(float(observed[0, b]), observed_drawn[~np.isnan(observed_drawn[:, b]), b]),
                n_lenses=int(counts[0][b]),
                n_others=int(counts[1][b]),
            )
            for b in used
        ),
        ece=_unbiased(ece, ece_drawn),
        ece_lenses=_unbiased(in_decades, in_decades_drawn),
        measured=float(counts[0][counts[1] > 0].sum() / len(lenses)),
    )


def _unbiased(value: Float64, drawn: Float64) -> Interval:
    """An error only grows by being resampled: what it grows by on average is taken off its quantiles."""
    found = resampled_interval(float(value[0]), drawn - (drawn.mean() - value[0]))
    return found.model_copy(update={"low": max(found.low, 0.0)})


def _errors(
    lenses: NDArray[np.int64], others: NDArray[np.int64], predicted: Float64, prevalence: float
) -> tuple[Float64, Float64, Float64]:
    """Share of lenses (R, B) at ``prevalence`` (NaN where a bin is empty), ECE (R,), and that in decades where lenses are."""
    true = prevalence * lenses / lenses.sum(axis=1, keepdims=True)
    false = (1.0 - prevalence) * others / others.sum(axis=1, keepdims=True)
    mass = true + false
    observed = np.divide(true, mass, out=np.full(mass.shape, np.nan), where=mass > 0)
    ece = np.nansum(mass * np.abs(observed - predicted), axis=1)
    # Where there is no lens, or no non-lens to say how many there are on the sky, nothing is known of the share's decade.
    known = (true > 0) & (false > 0)
    decades = np.abs(np.log10(np.where(known, predicted, 1.0)) - np.log10(np.where(known, observed, 1.0)))
    weight = np.where(known, true, 0.0)
    return observed, ece, np.sum(weight * decades, axis=1) / np.maximum(weight.sum(axis=1), 1e-300)


def reliabilities(
    bundles: Sequence[ScoredBundle], truths: Mapping[str, Truth], pairings: Sequence[Pairing], prevalence: float
) -> tuple[Reliability, ...]:
    """Measure every calibrated bundle: sets with both classes at their own prevalence, every pairing at the sky's.

    Parameters
    ----------
    bundles, truths
        The truths by set.
    pairings
        Those whose non-lenses may stand for the sky.
    prevalence
        Of lenses on the sky.
    """
    own = [Pairing(lenses=name, others=name) for name, t in truths.items() if t.is_lens.any() and not t.is_lens.all()]
    wanted = [(pairing, float(truths[pairing.lenses].is_lens.mean()), False) for pairing in own]
    wanted += [(pairing, prevalence, True) for pairing in pairings]
    found = []
    for scored in bundles:
        calibration = scored.bundle.calibration
        if isinstance(calibration, Calibration):
            for pairing, share, at_sky in wanted:
                lenses = scored.logits[pairing.lenses][truths[pairing.lenses].is_lens]
                others = scored.logits[pairing.others][~truths[pairing.others].is_lens]
                odds = calibration.log_odds(lenses, share), calibration.log_odds(others, share)
                found.append(reliability(scored.name, pairing, *odds, share, at_sky=at_sky))
    return tuple(found)


#: Name of the preset whose non-lenses stand for the sky.
SKY_PRESET = "challenge"
Report = Callable[[str, int], None]


@dataclass(frozen=True)
class Comparison:
    """An evaluation and what it was measured on; ``datasets`` and the cutouts of single images by their names in it."""

    evaluation: Evaluation
    bundles: tuple[ScoredBundle, ...]
    datasets: Mapping[str, LabelledSet]
    images: Mapping[str, CutoutBatch]
    known_lenses: Mapping[str, CutoutBatch]


@dataclass(frozen=True)
class Scoring:
    """What runs the networks, and where log-odds are kept (None: nowhere).

    ``threads``, ``parallel``: of a session, see :func:`scanner.ensemble.session.open_session`. ``report`` is called with the
    bundle's name and the number of objects done since the last call.
    """

    provider: str = "auto"
    threads: int = 1
    parallel: int = 1
    cache: Path | None = None
    report: Report = lambda name, n: None


def compare_bundles(
    paths: Sequence[Path | str | None],
    datasets: Sequence[LabelledSet],
    *,
    images: Path | None = None,
    known: Path | None = None,
    real: Sequence[LabelledSet] = (),
    beta: float | None = None,
    prevalence: float = SKY_PREVALENCE,
    n_turned: int = TURNED,
    n_recoloured: int = 0,
    scoring: Scoring | None = None,
) -> Comparison:
    """Evaluate bundles.

    The set of preset ``challenge``, where it is given, is the sky: the lenses of every set are measured against its non-lenses,
    as a false-positive rate of 1e-4 needs 100,000 of them. Sets with both classes are measured against their own non-lenses
    too.

    Parameters
    ----------
    paths
        Folders or names of bundles, or None for the default one. The first is compared with each of the others.
    datasets
        That none of them was trained on; one that was is marked as such.
    images
        A tile list; the centre of every tile is scored over eight orientations.
    known
        A list of known lenses, see :mod:`scanner.evaluation.images`.
    real
        Labelled sets of real cutouts, see :mod:`scanner.evaluation.compare`.
    beta
        Of the decisions; None: each bundle's default.
    prevalence
        Share of lenses on the sky.
    n_turned
        Objects of one set that are scored in all orientations; 0: none.
    n_recoloured
        Simulated lenses that are drawn and scored with sources of every colour; 0: none.
    scoring
        See :class:`Scoring`.

    Raises
    ------
    UsageError
        A set or bundle is given twice; no set has lenses, or none has non-lenses; a bundle has no threshold for ``beta``.
    ScannerError
        A bundle, a tile or a list cannot be read.
    """
    if n_recoloured == 1:
        raise UsageError("--source-colours: one lens alone gives no interval; give two or more, or none.")
    how = scoring or Scoring()
    named = named_sets([*datasets, *real])
    pairs = list(named.items())
    sets, real_sets = dict(pairs[: len(datasets)]), dict(pairs[len(datasets) :])
    for dataset in sets.values():
        _refuse_missing_bands(dataset)
    truths = {name: dataset.truth for name, dataset in sets.items()}
    skies = [name for name, dataset in sets.items() if dataset.preset == SKY_PRESET and not truths[name].is_lens.all()]
    sky = skies[0] if skies else None
    pairings = pair(truths, sky)
    # Lists are read before anything is scored: a mistake in them shows at once.
    cutouts = {} if images is None else read_images(images)
    listed = () if known is None else read_known_lenses(known)
    lenses = known_lens_cutouts(listed)
    judges = {lens.name: judge_of(lens.images) for lens in listed}
    loaded = named_bundles(paths)
    for bundle in loaded.values():
        bundle.threshold(beta)

    scored: list[ScoredBundle] = []
    scatter: list[OrientationScatter] = []
    curves: list[ColourCurve] = []
    image_scores: list[ImageScore] = []
    known_scores: list[ImageScore] = []
    real_figures: list[RealFigures] = []
    main = main_pairings(pairings, sky)
    reference = next((pairing.others for pairing in main if pairing.others == sky), main[0].others)
    n_others = int((~truths[reference].is_lens).sum())
    if n_recoloured and max(FPRS) * n_others < 1:
        raise UsageError(
            f"--source-colours: {reference} has {n_others} non-lenses, too few for the threshold of a false-positive rate of "
            f"{max(FPRS):g} that recalls are measured at; give a set of {math.ceil(1 / max(FPRS))} or more as --data."
        )
    for name, bundle in loaded.items():
        session = cache(partial(open_session, bundle, how.provider, how.threads, how.parallel))
        report = partial(how.report, name)
        logits = {set_name: cached_logits(bundle, dataset, session, how.cache, report) for set_name, dataset in sets.items()}
        grid_values = None
        if bundle.grid is not None:
            grid_values = {key: cached_grid_values(bundle, sets[key], rows, how.cache) for key, rows in logits.items()}
        found = score(bundle, name, logits, grid_values)
        scored.append(found)
        if n_turned:
            turned_set = sets[main[0].lenses]
            rows = sample_rows(turned_set, n_turned)
            turned = turned_logits(bundle, turned_set, rows, session, how.cache, report)
            scatter.append(orientation_scatter(bundle, name, main[0].lenses, turned, turned_set.truth.is_lens[rows]))
        if n_recoloured:
            lenses_in_colours = recoloured_logits(session(), n_recoloured, report=report)
            curves += colour_curves(found, lenses_in_colours, reference, truths[reference].is_lens)
        others = _non_lenses(found, reference, ~truths[reference].is_lens)
        for batches, judged, scores in ((cutouts, {}, image_scores), (lenses, judges, known_scores)):
            for image, batch in batches.items():
                scores.append(score_image(image, batch, bundle, name, session(), judge=judged.get(image), others=others))
        for set_name, dataset in real_sets.items():
            non_lenses = ~truths[reference].is_lens
            real_figures.append(measure_real(found, reference, non_lenses, set_name, dataset, session, how.cache, report))

    figures, differences = measure(scored, truths, pairings)
    evaluation = Evaluation(
        scanner_version=__version__,
        sky_prevalence=prevalence,
        sky=sky,
        sets=tuple(_summary(name, dataset, loaded) for name, dataset in sets.items()),
        bundles=tuple(found.summary for found in scored),
        figures=figures,
        decisions=decisions(scored, truths, beta, prevalence),
        yields=yields(scored, truths, main, prevalence),
        recall_curves=recall_curves(scored, sets, main),
        class_rates=class_rates(scored, truths, main[0].lenses, sky),
        reliabilities=reliabilities(scored, truths, main, prevalence),
        orientations=tuple(scatter),
        colour_curves=tuple(curves),
        grid_losses=grid_losses(scored, truths, main),
        differences=differences,
        images=tuple(image_scores),
        known_lenses=tuple(known_scores),
        real_sets=tuple(_summary(name, dataset, loaded) for name, dataset in real_sets.items()),
        real=tuple(real_figures),
    )
    return Comparison(evaluation, tuple(scored), named, cutouts, lenses)


def _refuse_missing_bands(dataset: LabelledSet) -> None:
    """Refuse a set that has a band in no object: the combination of all members says nothing of it."""
    gone = [band for band, bad in zip(BANDS, dataset.store.bad_fraction.T, strict=True) if (bad == 1.0).all()]
    if gone:
        raise UsageError(
            f"--data {dataset.path}: none of its cutouts has {' or '.join(gone)}, which members need; give it as --real, where "
            "those judge that see the other bands."
        )


def named_sets(datasets: Sequence[LabelledSet]) -> dict[str, LabelledSet]:
    """Datasets by the name of their folder, with its parent's before it where two share one.

    Raises
    ------
    UsageError
        One is given twice, under whatever name.
    """
    seen: dict[str, LabelledSet] = {}
    for dataset in datasets:
        if dataset.fingerprint in seen:
            raise UsageError(f"{dataset.path}: is the same set as {seen[dataset.fingerprint].path}; give each one once.")
        seen[dataset.fingerprint] = dataset
    short = [dataset.path.resolve().name for dataset in datasets]
    return {
        name if short.count(name) == 1 else f"{dataset.path.resolve().parent.name}/{name}": dataset
        for name, dataset in zip(short, datasets, strict=True)
    }


def named_bundles(paths: Sequence[Path | str | None]) -> dict[str, Bundle]:
    """Load bundles, by the manifest's name; with their version, then their fingerprint, where two share one."""
    loaded = [bundle_files.load(path) for path in paths]
    found: dict[str, Bundle] = {}
    for bundle in loaded:
        manifest = bundle.manifest
        names = [manifest.name, f"{manifest.name} {manifest.version}", f"{manifest.name} {bundle.fingerprint[:8]}"]
        rivals = [other.manifest for other in loaded if other is not bundle and other.manifest.name == manifest.name]
        clash = 0 if not rivals else 1 if all(other.version != manifest.version for other in rivals) else 2
        if names[clash] in found:
            raise UsageError(f"{bundle.path}: is the same bundle as {found[names[clash]].path}; give each one once.")
        found[names[clash]] = bundle
    return found


def pair(truths: Mapping[str, Truth], sky: str | None) -> tuple[Pairing, ...]:
    """What is measured against what.

    Lenses of every set against the sky; sets with both classes against themselves, and against sets of non-lenses only; where
    there is no sky, sets of lenses only against the first set that has non-lenses.

    Raises
    ------
    UsageError
        No set has lenses, or none has non-lenses.
    """
    with_lenses = [name for name, truth in truths.items() if truth.is_lens.any()]
    with_others = [name for name, truth in truths.items() if not truth.is_lens.all()]
    if not with_lenses or not with_others:
        kind = "lenses" if not with_lenses else "non-lenses"
        raise UsageError(f"--data {', '.join(truths)}: no set has {kind}; add one that has (such as preset eval).")
    found = []
    for name in with_lenses:
        mixed = name in with_others
        if mixed:
            found.append(Pairing(lenses=name, others=name))
            found += [Pairing(lenses=name, others=other) for other in with_others if other not in with_lenses and other != sky]
        if sky is not None and sky != name:
            found.append(Pairing(lenses=name, others=sky))
        elif not mixed:
            found.append(Pairing(lenses=name, others=with_others[0]))
    return tuple(found)


def _non_lenses(found: ScoredBundle, reference: str, chosen: NDArray[np.bool_]) -> NonLenses:
    scores = found.scores[reference]
    judges: dict[MemberName | None, Float64] = {member: scores[member][chosen] for member in MEMBERS}
    return NonLenses(reference, judges | {None: scores[found.summary.combined][chosen]})


def _summary(name: str, dataset: LabelledSet, loaded: Mapping[str, Bundle]) -> SetSummary:
    truth = dataset.truth
    classes, counts = np.unique(truth.class_name, return_counts=True)
    return SetSummary(
        name=name,
        preset=dataset.preset,
        sha256=dataset.fingerprint,
        n_objects=len(truth),
        n_lenses=int(truth.is_lens.sum()),
        n_visible=int((truth.is_lens & truth.visible).sum()),
        classes={str(kind): int(count) for kind, count in zip(classes, counts, strict=True)},
        trained_on=tuple(name for name, found in loaded.items() if dataset.was_seen_by(found.manifest.trained_on)),
    )
