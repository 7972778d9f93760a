"""Log-odds of bundles for labelled sets, kept on disk, and every score that follows from them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scanner.atomic_file import write_atomically
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.calibration import Calibration
from scanner.ensemble.preprocessing import augment
from scanner.ensemble.session import EnsembleSession
from scanner.evaluation.results import BundleSummary, Negatives, Positives
from scanner.labelled_set import LabelledSet, Truth
from scanner.records import CutoutBatch, Float32, Float64, Int64

#: Name of the score of a grid.
GRID = "grid"
NEGATIVE_LABELS: Mapping[Negatives, str] = {
    "all": "all non-lenses",
    "hard": "look-alikes (ellipticals, companions, near-lenses)",
}
POSITIVE_LABELS: Mapping[Positives, str] = {"visible": "visible lenses", "all": "all lenses"}
#: Objects scored at once, and log-odds in a file.
BATCH, PART = 128, 4096


@dataclass(frozen=True)
class ScoredBundle:
    """A bundle and what it says of labelled sets.

    ``summary``: with a name that is unique among the bundles compared. ``logits``: by set, (N, M) each. ``scores``: by set and
    score, (N,) float64 each, comparable between sets.
    """

    bundle: Bundle
    summary: BundleSummary
    logits: Mapping[str, Float32]
    scores: Mapping[str, Mapping[str, Float64]]

    @property
    def name(self) -> str:
        """See :class:`~scanner.evaluation.results.BundleSummary`."""
        return self.summary.name

    @property
    def combined(self) -> Mapping[str, Float64]:
        """The score that a scan ranks by, the combination of the members, by set."""
        return {set_name: scores[self.summary.combined] for set_name, scores in self.scores.items()}

    @property
    def score_names(self) -> tuple[str, ...]:
        """Every score of this bundle, the members first."""
        return (*self.bundle.manifest.member_names, *(() if self.bundle.grid is None else (GRID,)), self.summary.combined)


def score(
    bundle: Bundle, name: str, logits: Mapping[str, Float32], grid_values: Mapping[str, Float32] | None = None
) -> ScoredBundle:
    """Compute every score of a bundle for every set; higher means more lens-like.

    Parameters
    ----------
    bundle
        Its grid, where it has one, and its calibration are applied.
    name
        For the evaluation.
    logits
        By set, (N, M) finite.
    grid_values
        By set, (N,), where they are known; None: looked up.
    """
    summary = summarise(bundle, name)
    members = bundle.manifest.member_names
    together = np.concatenate([np.empty((0, len(members)), np.float32), *logits.values()])
    found: dict[str, Float64] = {member: together[:, i].astype(np.float64) for i, member in enumerate(members)}
    combined = bundle.calibration.ranking_score(together)
    if bundle.grid is not None:
        known = grid_values or {set_name: bundle.grid.lookup(rows).value for set_name, rows in logits.items()}
        found[GRID] = np.concatenate([known[set_name] for set_name in logits]).astype(np.float64)
    found[summary.combined] = combined
    ends = np.cumsum([len(rows) for rows in logits.values()])[:-1]
    parts = {score_name: np.split(values, ends) for score_name, values in found.items()}
    scores = {
        set_name: {score_name: pieces[number] for score_name, pieces in parts.items()} for number, set_name in enumerate(logits)
    }
    return ScoredBundle(bundle, summary, logits, scores)


def summarise(bundle: Bundle, name: str) -> BundleSummary:
    """What an evaluation says of a bundle, under a name."""
    manifest = bundle.manifest
    return BundleSummary(
        name=name,
        version=manifest.version,
        fingerprint=bundle.fingerprint,
        model_sha256=manifest.networks_sha256,
        preprocessing=manifest.preprocessing,
        decides_on=manifest.decides_on,
        combined="calibrated" if isinstance(bundle.calibration, Calibration) else "mean",
    )


def lenses(truth: Truth, positives: Positives) -> NDArray[np.bool_]:
    """Rows of the lenses of a choice, (N,) bool."""
    return truth.is_lens & truth.visible if positives == "visible" else truth.is_lens


def others(truth: Truth, negatives: Negatives) -> NDArray[np.bool_]:
    """Rows of the non-lenses of a choice, (N,) bool."""
    return ~truth.is_lens if negatives == "all" else truth.is_hard_negative


def cached_logits(
    bundle: Bundle,
    dataset: LabelledSet,
    open_session: Callable[[], EnsembleSession],
    folder: Path | None,
    report: Callable[[int], None] = lambda n: None,
) -> Float32:
    """Read the log-odds of all rows of a dataset, and score what is missing: scoring takes hours, the figures seconds.

    A part of :data:`PART` objects is written when it is scored, so an interrupted evaluation goes on where it was, and a cache
    that was filled on another machine can be laid beside this one.

    Parameters
    ----------
    bundle, dataset
        What scores, and what is scored.
    open_session
        Called once at most, and only if something is missing.
    folder
        Of the cache; None: everything is scored and nothing is kept.
    report
        Called with the number of objects after every batch, read or scored.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    n_members = len(bundle.manifest.members)
    found = np.empty((len(dataset), n_members), dtype=np.float32)
    session = None
    for start in range(0, len(dataset), PART):
        rows = np.arange(start, min(start + PART, len(dataset)), dtype=np.int64)
        path = None if folder is None else folder / cache_key(bundle, dataset) / f"{start // PART:06d}.npy"
        part = None if path is None else read_array(path, (len(rows), n_members))
        if part is None:
            session = session or open_session()
            part = dataset_logits(session, dataset, rows, report=report)
            if path is not None:
                write_array(path, part)
        else:
            report(len(rows))
        found[rows] = part
    return found


def kept_logits(bundle: Bundle, dataset: LabelledSet, folder: Path) -> Float32 | None:
    """The log-odds of all rows, (N, M), if :func:`cached_logits` has kept every one of them."""
    starts = range(0, len(dataset), PART)
    shapes = [(min(PART, len(dataset) - start), len(bundle.manifest.members)) for start in starts]
    place = folder / cache_key(bundle, dataset)
    parts = [read_array(place / f"{number:06d}.npy", shape) for number, shape in enumerate(shapes)]
    return np.concatenate(parts) if parts and all(part is not None for part in parts) else None  # type: ignore[arg-type]


def dataset_logits(
    session: EnsembleSession,
    dataset: Cutouts,
    rows: Int64,
    orientations: Int64 | None = None,
    report: Callable[[int], None] = lambda n: None,
) -> Float32:
    """Score rows of a dataset.

    Parameters
    ----------
    session
        See :func:`scanner.ensemble.session.open_session`.
    dataset, rows
        What to score, (n,) row numbers.
    orientations
        How each is turned, (n,) of 0..7 as in :func:`scanner.ensemble.preprocessing.turn`, and then scored as it is; None: as a
        scan scores it, with test-time augmentation where the bundle asks for it.
    report
        Called with the number of objects after every batch.

    Returns
    -------
    numpy.ndarray
        (n, M) float32 lens log-odds, in the order of the bundle's members.
    """
    logits = np.empty((len(rows), session.n_members), dtype=np.float32)
    start = 0
    for batch, vis, nisp in dataset.batches(rows, BATCH):
        these = slice(start, start + len(batch))
        if orientations is None:
            logits[these] = session.logits(vis, nisp, batch.sky, batch.sigma)
        else:
            turned = augment(vis, orientations[these]), augment(nisp, orientations[these])
            logits[these] = session.plain_logits(*turned, batch.sky, batch.sigma)
        start += len(batch)
        report(len(batch))
    return logits


class Cutouts(Protocol):
    """What can be scored: a dataset, or several as one."""

    def batches(self, rows: Int64, size: int) -> Iterator[tuple[CutoutBatch, Float32, Float32]]:
        """Read rows: batches of at most ``size``, with VIS and NISP free of NaN."""
        ...


def cached_grid_values(bundle: Bundle, dataset: LabelledSet, logits: Float32, folder: Path | None) -> Float32:
    """Grid values of a bundle that has a grid, (N,) float32, kept beside the log-odds: looking up a point takes longest.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    grid = bundle.grid
    if grid is None:
        raise ValueError("the bundle has no grid")
    path = None if folder is None else folder / cache_key(bundle, dataset) / f"grid-{bundle.fingerprint[:16]}.npy"
    return kept_array(path, (len(logits),), lambda: grid.lookup(logits).value)


def kept_array(path: Path | None, shape: tuple[int, ...], compute: Callable[[], Float32]) -> Float32:
    """Read an array that took long to compute, or compute and keep it; None: it is not kept.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    found = None if path is None else read_array(path, shape)
    if found is None:
        found = compute()
        if path is not None:
            write_array(path, found)
    return found


def read_array(path: Path, shape: tuple[int, ...]) -> Float32 | None:
    """Read an array if it is there, whole, and of this shape; None: it has to be computed again."""
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return values if values.dtype == np.float32 and values.shape == shape else None


def write_array(path: Path, values: Float32) -> None:
    """Keep an array; its folder is made if need be.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=False)
    write_atomically(path, stream.getvalue())


def cache_key(bundle: Bundle, dataset: LabelledSet) -> str:
    """Folder name of a bundle's log-odds for a dataset, by the SHA-256 of what they depend on.

    That is the networks, the rule of test-time augmentation and the dataset: a bundle whose grid or card changed keeps them.
    """
    networks = bundle.manifest.networks_sha256
    if bundle.manifest.second_look is not None:
        rule = (
            bundle.manifest.second_look.model_dump_json(exclude_defaults=True) + bundle.manifest.calibration.model_dump_json()
        )
        networks = hashlib.sha256(f"{networks} {rule}".encode()).hexdigest()
    return f"{networks[:16]}-{dataset.content_key[:16]}"
