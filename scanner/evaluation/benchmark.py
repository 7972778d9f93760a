"""Public benchmarks of real images: what bundles reach in the benchmark's own measures, and in ours."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scanner import __version__
from scanner.cutouts.quality import fill_bad_pixels
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.session import Scorer
from scanner.errors import InputMissingError
from scanner.evaluation.images import judge_of, judged
from scanner.evaluation.metrics import LOW_FPRS, auroc_interval, purity, recalls_at_fpr
from scanner.evaluation.results import BenchmarkName
from scanner.evaluation.tables import NOTHING, Table, interval
from scanner.interval import Interval, wilson_interval
from scanner.labelled_set import LabelledSet
from scanner.labels.importing import import_labels
from scanner.records import BANDS, Float64, MemberName, Record

#: A stamp of 101 pixels fills a quarter of a cutout: the rest of VIS is bad, and a band that is not there is bad altogether.
MOST_BAD = 0.95
#: Objects scored together.
BATCH = 128
RESULT_FILE = "benchmark.json"


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: its preset of labels, its tables below a folder, and the shares of lenses that precision is stated for.

    ``negatives``: what the non-lenses of a table are, by the letter in its name.
    """

    preset: str
    tables: str
    negatives: dict[str, str]
    lens_fractions: tuple[float, ...]


BENCHMARKS: dict[BenchmarkName, Benchmark] = {
    "euclid-sage": Benchmark(
        preset="euclid-sage",
        tables="EUCLID-SAGE-*_VIS.csv",
        negatives={"R": "random objects", "S": "matched in brightness", "D": "matched in brightness, profile, size, shape"},
        # About that of galaxies as bright as the lenses, and of all classified objects of Euclid Q1.
        lens_fractions=(2e-4, 2e-5),
    )
}


class BenchmarkFigures(Record):
    """What one bundle reaches on one table.

    ``judge``: the member that scores where bands are missing; None: the combination. ``threshold``: of a scan's decisions.
    ``completeness``, ``false_alarm_rate``: shares of lenses and non-lenses at or above it, ``by_grade`` of lenses of a grade;
    ``precision``: lenses among what is above it; ``precision_at``: the same at other shares of lenses, by share. ``recalls``:
    our own measure, by false-positive rate, where there are enough non-lenses to set that threshold.
    """

    bundle: str
    table: str
    negatives: str
    judge: MemberName | None
    n_lenses: int
    n_others: int
    n_left_out: int
    threshold: float
    n_found: int
    n_false: int
    auroc: Interval
    completeness: Interval
    false_alarm_rate: Interval
    by_grade: dict[str, Interval]
    precision: float | None
    precision_at: dict[str, float | None]
    recalls: dict[str, Interval]


class BenchmarkResult(Record):
    """``benchmark.json``: bundles on all tables of a benchmark."""

    scanner_version: str = __version__
    benchmark: BenchmarkName
    folder: str
    figures: tuple[BenchmarkFigures, ...]


@dataclass(frozen=True)
class _Scored:
    """Score (N,) that ranks, and whether a scan would list the object, (N,) bool."""

    score: Float64
    is_listed: NDArray[np.bool_]


def run_benchmark(
    name: BenchmarkName,
    folder: Path,
    bundles: Sequence[tuple[str, Bundle]],
    *,
    beta: float | None = None,
    provider: str = "auto",
    threads: int = 1,
    parallel: int = 1,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> BenchmarkResult:
    """Measure bundles on every table of a benchmark.

    Stamps are scored as a scan scores objects whose other bands are missing. The benchmark's measures are AUROC, completeness
    and false-alarm rate at the finder's own threshold, completeness by grade, and precision, in the benchmark and at stated
    shares of lenses: C f / (C f + F (1 - f)).

    Parameters
    ----------
    name, folder
        The benchmark, and its files as they are published.
    bundles
        Their names and what they are.
    beta, provider, threads, parallel
        See :class:`scanner.ensemble.session.Scorer`.
    report
        Called with (objects scored, objects in all) for each table.

    Raises
    ------
    InputMissingError
        The folder has no table of the benchmark.
    ContentError
        A table or its stamps cannot be used.
    """
    of = BENCHMARKS[name]
    place = next((one for one in (folder, folder / "benchmarks") if sorted(one.glob(of.tables))), None)
    if place is None:
        raise InputMissingError(f"{folder}: holds no table {of.tables} of the benchmark {name}; name the folder of its files.")
    scorers = [(title, Scorer(bundle, provider, threads, beta, MOST_BAD, parallel)) for title, bundle in bundles]
    figures = []
    for path in sorted(place.glob(of.tables)):
        with tempfile.TemporaryDirectory(prefix="scanner-benchmark-") as temporary:
            out = Path(temporary) / "set"
            imported = import_labels(path, out, cutouts=place, preset=of.preset)
            dataset = LabelledSet(out)
            n_left_out, letter = sum(imported.n_left_out.values()), path.stem.removesuffix("_VIS").rpartition("-")[2]
            for number, (title, scorer) in enumerate(scorers):
                done = partial(_moved, report, number * len(dataset), len(scorers) * len(dataset))
                scored, judge = _score(scorer, dataset, done)
                negatives = of.negatives.get(letter, letter)
                figures.append(_figures(title, path.stem, negatives, scorer, scored, judge, dataset, n_left_out, of))
    return BenchmarkResult(benchmark=name, folder=str(folder), figures=tuple(figures))


def _moved(report: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    report(before + done, total)


def _score(scorer: Scorer, dataset: LabelledSet, report: Callable[[int], None]) -> tuple[_Scored, MemberName | None]:
    """Score a set, all of it by what every object has."""
    bad = dataset.store.bad_fraction
    judge = judge_of([band for number, band in enumerate(BANDS) if (bad[:, number] <= MOST_BAD).all()])
    scores, listed = [], []
    for start in range(0, len(dataset), BATCH):
        batch = dataset.store.read(slice(start, start + BATCH))
        vis, nisp = fill_bad_pixels(batch)
        found = scorer.score(vis, nisp, batch.sky, batch.sigma, batch.bad_fraction, batch.flags)
        scores.append(judged(scorer.bundle, found.logits, judge))
        listed.append(found.decision)
        report(start + len(batch))
    return _Scored(np.concatenate(scores), np.concatenate(listed)), judge


def _figures(
    bundle: str,
    table: str,
    negatives: str,
    scorer: Scorer,
    scored: _Scored,
    judge: MemberName | None,
    dataset: LabelledSet,
    n_left_out: int,
    of: Benchmark,
) -> BenchmarkFigures:
    is_lens, classes = dataset.truth.is_lens, dataset.truth.class_name
    n_lenses, n_others = int(is_lens.sum()), int((~is_lens).sum())
    if not n_lenses or not n_others:
        raise InputMissingError(
            f"{table}: {n_lenses:,} lenses and {n_others:,} non-lenses could be read; fetch all of its stamps."
        )
    n_found, n_false = int((scored.is_listed & is_lens).sum()), int((scored.is_listed & ~is_lens).sum())
    completeness, false_alarm_rate = wilson_interval(n_found, n_lenses), wilson_interval(n_false, n_others)
    grades = sorted({name for name in classes[is_lens].tolist() if name.startswith("grade ")})
    by_grade = {}
    for grade in grades:
        chosen = is_lens & (classes == grade)
        by_grade[grade.removeprefix("grade ")] = wilson_interval(int((scored.is_listed & chosen).sum()), int(chosen.sum()))
    recalls = recalls_at_fpr(scored.score[is_lens], scored.score[~is_lens])
    at = {f: purity(completeness.value, false_alarm_rate.value, f) for f in of.lens_fractions}
    return BenchmarkFigures(
        bundle=bundle,
        table=table,
        negatives=negatives,
        judge=judge,
        n_lenses=n_lenses,
        n_others=n_others,
        n_left_out=n_left_out,
        threshold=scorer.rule.threshold,
        n_found=n_found,
        n_false=n_false,
        auroc=auroc_interval(scored.score, is_lens),
        completeness=completeness,
        false_alarm_rate=false_alarm_rate,
        by_grade=by_grade,
        precision=n_found / (n_found + n_false) if n_found + n_false else None,
        precision_at={f"{f:g}": None if np.isnan(value) else float(value) for f, value in at.items()},
        recalls={f"{fpr:g}": recalls.interval(0, rate) for rate, fpr in enumerate(LOW_FPRS) if recalls.n_allowed[rate] > 0},
    )


def benchmark_tables(result: BenchmarkResult) -> tuple[Table, ...]:
    """Their measures and ours as text."""
    grades = sorted({grade for one in result.figures for grade in one.by_grade})
    shares = sorted({share for one in result.figures for share in one.precision_at}, key=float, reverse=True)
    rates = sorted({rate for one in result.figures for rate in one.recalls}, key=float, reverse=True)
    several = len({one.bundle for one in result.figures}) > 1

    def rows(cells: Callable[[BenchmarkFigures], Sequence[str]]) -> tuple[tuple[str, ...], ...]:
        return tuple((*([one.bundle] if several else []), one.table, *cells(one)) for one in result.figures)

    lead = (*(["bundle"] if several else []), "table")
    judges = {one.judge for one in result.figures} - {None}
    by = f"Scored by {', '.join(sorted(str(judge) for judge in judges))} alone, as bands are missing. " if judges else ""
    theirs = Table(
        name=f"benchmark-{result.benchmark}",
        title=f"{result.benchmark}: the benchmark's own measures",
        header=(
            *lead, "non-lenses", "lenses", "AUROC", "completeness", "false alarms", "precision",
            *(f"precision at {share}" for share in shares), *(f"completeness {grade}" for grade in grades),
        ),
        rows=rows(
            lambda one: (
                f"{one.n_others:,} {one.negatives}",
                f"{one.n_lenses:,}",
                interval(one.auroc),
                interval(one.completeness),
                interval(one.false_alarm_rate),
                _plain(one.precision),
                *(_plain(one.precision_at.get(share)) for share in shares),
                *(interval(one.by_grade.get(grade)) for grade in grades),
            )
        ),
        note=f"{by}Completeness, false alarms and precision are of what a scan lists at the bundle's threshold.",
    )  # fmt: skip
    ours = Table(
        name=f"benchmark-{result.benchmark}-recall",
        title=f"{result.benchmark}: recall where few non-lenses pass",
        header=(*lead, *(f"recall at FPR {rate}" for rate in rates), "left out"),
        rows=rows(lambda one: (*(interval(one.recalls.get(rate)) for rate in rates), f"{one.n_left_out:,}")),
    )
    return theirs, ours


def _plain(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3g}"
