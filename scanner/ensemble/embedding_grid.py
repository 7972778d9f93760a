"""OU-T-SNE: the grid over the two-dimensional embedding of the training set's log-odds (Wilde et al. 2022, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from scanner import records
from scanner.ensemble.calibration import LOGIT_LIMIT, sigmoid
from scanner.errors import ContentError, UnavailableError, pip_install
from scanner.records import MEMBERS, Flag, Float32, Float64, Int64, Record, UInt32

#: Cells along each axis (section 3.3).
CELLS = 100
#: Share of held-out objects that lie closer to a training object than ``far_distance``.
NEAR_SHARE = 0.999
#: openTSNE's own numbers for a new object: perplexity of its neighbours, and how many it begins at the median of.
NEW_PERPLEXITY, NEW_NEIGHBOURS = 5, 25

Embedded = Literal["log-odds", "probabilities"]
Placing = Literal["nearest", "opentsne"]


class GridRule(Record):
    """What of the seven networks is embedded, and how new objects are placed."""

    embeds: Embedded = Field("log-odds", description="Limited log-odds, or the lens probabilities that the paper embeds.")
    places: Placing = Field(
        "nearest", description="At the nearest training object, or where openTSNE's transform moves them among all of them."
    )

    def coordinates(self, logits: NDArray[Any]) -> Float64:
        """What is embedded of log-odds (N, 7), (N, 7) float64."""
        rows = limited(logits).astype(np.float64)
        return sigmoid(rows) if self.embeds == "probabilities" else rows


#: The rule unless another is asked for, and the paper's.
NEAREST_LOG_ODDS, PAPER_RULE = GridRule(), GridRule(embeds="probabilities", places="opentsne")


@dataclass(frozen=True)
class GridLookup:
    """What the grid says of ``N`` objects.

    ``positions`` (N, 2) float32; ``value`` (N,) float32, the lens fraction; ``cell_count`` (N,) int64, training objects in the
    cell (0 where the value was borrowed); ``flags`` (N,) uint32 of :class:`~scanner.records.Flag`.
    """

    positions: Float32
    value: Float32
    cell_count: Int64
    flags: UInt32


@dataclass(frozen=True)
class EmbeddingGrid:
    """The embedded training set and the grid over it.

    The paper does not say how new objects are embedded. By default an object takes the position of the nearest training
    object in the seven log-odds (limited to ±20). Against openTSNE's own ``transform`` (7,000 training and 2,500 new rows)
    that puts 78% within one cell and agrees on 96% of decisions at 0.5; means over 2 to 25 neighbours fall between the
    clusters (44% and less; 91% and less), and the medoid of 3 to 25 does worse too. It is also exact, fast and independent of
    the batch. A position found so lies in a cell that holds a training object. With ``transform``, which a :class:`GridRule`
    can ask for, a new object may fall into an empty cell or outside the box (:meth:`EmbeddingGrid.value_at`), as the paper's
    did.

    ``logits`` (M, 7) and ``positions`` (M, 2) float32: the training objects; of those with the same logits the first.
    ``x_edges, y_edges`` (cells + 1,) float64: cell edges. ``lens_fraction`` (cells, cells; x, y) float32, NaN where no training
    object fell; ``counts`` (cells, cells) int64: all training objects in the cell, kept or not. ``far_distance`` () float64:
    Euclidean distance in what is embedded beyond which an object is unlike anything in training. A member that is surer than of
    any training object adds nothing to it: the mean over orientations makes the best lenses so. ``rule``: see
    :class:`GridRule`.
    """

    logits: Float32
    positions: Float32
    x_edges: Float64
    y_edges: Float64
    lens_fraction: Float32
    counts: Int64
    far_distance: Float64
    rule: GridRule = NEAREST_LOG_ODDS

    @classmethod
    def build(
        cls,
        logits: NDArray[Any],
        positions: NDArray[Any],
        labels: NDArray[Any],
        *,
        held_out: NDArray[Any],
        cells: int = CELLS,
        rule: GridRule | None = None,
    ) -> EmbeddingGrid:
        """Lay the grid over an embedded training set.

        Parameters
        ----------
        logits, positions, labels
            (N, 7) log-odds, (N, 2) positions and (N,) bool of the training objects, finite.
        held_out
            (K, 7) log-odds of objects that the members were not trained on; they set ``far_distance``.
        cells
            Cells along each axis.
        rule
            What was embedded, and how new objects will be placed.

        Raises
        ------
        ValueError
            Lengths differ, or a number is not finite.
        """
        rows, places = limited(logits), np.asarray(positions, dtype=np.float32)
        is_lens = np.asarray(labels, dtype=bool)
        if not len(rows) == len(places) == len(is_lens) or rows.shape[1:] != (len(MEMBERS),) or places.shape[1:] != (2,):
            raise ValueError(f"logits {rows.shape}, positions {places.shape} and labels {is_lens.shape} do not belong together")
        if not (np.isfinite(rows).all() and np.isfinite(places).all() and np.isfinite(held_out).all()) or not len(held_out):
            raise ValueError("logits and positions must be finite, and some objects held out")
        x_edges, y_edges = (_edges(places[:, axis].astype(np.float64), cells) for axis in (0, 1))
        cell = _cell(places, x_edges, y_edges)
        counts = np.bincount(cell, minlength=cells**2)
        lenses = np.bincount(cell, weights=is_lens, minlength=cells**2)
        fraction = np.divide(lenses, counts, out=np.full(cells**2, np.nan), where=counts > 0)

        rule = rule or NEAREST_LOG_ODDS
        # Each training object moves a new one; the nearest of equals is one of them.
        moving = rule.places == "opentsne"
        kept = np.arange(len(rows)) if moving else np.sort(np.unique(rows, axis=0, return_index=True)[1])
        beyond = _distance(_tree(rule.coordinates(rows[kept])), rule.coordinates(held_out))[0]
        return cls(
            logits=rows[kept],
            positions=places[kept],
            x_edges=x_edges,
            y_edges=y_edges,
            lens_fraction=fraction.reshape(cells, cells).astype(np.float32),
            counts=counts.reshape(cells, cells).astype(np.int64),
            far_distance=np.asarray(np.quantile(beyond, NEAR_SHARE), dtype=np.float64),
            rule=rule,
        )

    @cached_property
    def _embedded(self) -> Any:
        return _tree(self.rule.coordinates(self.logits))

    @cached_property
    def _reference(self) -> tuple[Any, Float64]:
        """The embedding as openTSNE has it, and where it has its centre: transforming moves that to the origin."""
        try:
            from openTSNE import TSNEEmbedding
            from openTSNE.affinity import PerplexityBasedNN
        except ImportError as error:
            raise UnavailableError(
                f"the bundle's grid places new objects by openTSNE, and {error.name} is missing; {pip_install('train')}, "
                "or 'scanner models regrid --place nearest'."
            ) from None
        rows, positions = self.rule.coordinates(self.logits), self.positions.astype(np.float64)
        # Exact neighbours: approximate ones depend on draws. Those among the training objects themselves are not used.
        affinities = PerplexityBasedNN(rows, perplexity=min(NEW_PERPLEXITY, (len(rows) - 1) / 3), method="exact")
        centre = (positions.max(axis=0) + positions.min(axis=0)) / 2.0
        return TSNEEmbedding(positions - centre, affinities, negative_gradient_method="fft", n_jobs=1), centre

    def _placed(self, coordinates: Float64) -> Float32:
        """Positions that openTSNE's ``transform`` finds, each among the training objects alone, (N, 2)."""
        embedding, centre = self._reference
        neighbours = min(NEW_NEIGHBOURS, len(self.logits))
        perplexity = min(NEW_PERPLEXITY, (len(self.logits) - 1) / 3)
        found = embedding.transform(coordinates, perplexity=perplexity, k=neighbours)
        return np.asarray(np.asarray(found) + centre, dtype=np.float32)

    @cached_property
    def _filled(self) -> tuple[Float32, UInt32]:
        """Value of every cell, borrowed where it is empty, and the flags that say so; both flat."""
        fraction = self.lens_fraction.astype(np.float64)
        defined = np.isfinite(fraction)
        padded, around = np.pad(np.where(defined, fraction, 0.0), 1), np.pad(defined, 1).astype(np.int64)
        nx, ny = fraction.shape
        steps = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
        total = sum(padded[i : i + nx, j : j + ny] for i, j in steps)
        number = sum(around[i : i + nx, j : j + ny] for i, j in steps)
        value = np.where(defined, fraction, total / np.maximum(number, 1))
        flags = np.where(defined, 0, int(Flag.EMPTY_CELL)).astype(np.uint32)
        lost = ~defined & (number == 0)
        known = np.argwhere(defined)
        for x, y in np.argwhere(lost):
            # The first of equals: argwhere runs in x, then y.
            nearest = known[np.argmin(((known - (x, y)) ** 2).sum(axis=1))]
            value[x, y] = fraction[tuple(nearest)]
        flags[lost] |= int(Flag.UNDEFINED_NEIGHBOURS)
        return value.ravel().astype(np.float32), flags.ravel()

    def value_at(self, positions: NDArray[Any]) -> GridLookup:
        """Look up positions in the embedding.

        Cell to value; an empty cell takes the mean of those of its eight neighbours that are defined (EMPTY_CELL), and where
        none is, the value of the nearest defined cell (UNDEFINED_NEIGHBOURS as well, which the paper leaves open). Positions
        outside the box are clipped to it (OUTSIDE_EMBEDDING).

        Parameters
        ----------
        positions
            (N, 2) finite.

        Raises
        ------
        ValueError
            A position is not finite.
        """
        places = np.asarray(positions, dtype=np.float32).reshape(-1, 2)
        if not np.isfinite(places).all():
            raise ValueError("positions must be finite")
        cell = _cell(places, self.x_edges, self.y_edges)
        value, flags = self._filled
        x, y = places[:, 0].astype(np.float64), places[:, 1].astype(np.float64)
        outside = (x < self.x_edges[0]) | (x > self.x_edges[-1]) | (y < self.y_edges[0]) | (y > self.y_edges[-1])
        return GridLookup(
            positions=places,
            value=value[cell],
            cell_count=self.counts.ravel()[cell],
            flags=flags[cell] | np.where(outside, int(Flag.OUTSIDE_EMBEDDING), 0).astype(np.uint32),
        )

    def lookup(self, logits: NDArray[Any]) -> GridLookup:
        """Place new objects as the rule says and look them up; FAR_FROM_TRAINING beyond ``far_distance``.

        Parameters
        ----------
        logits
            (N, 7) finite log-odds; those of members beyond the paper's seven, if any, are not embedded.

        Raises
        ------
        ValueError
            A log-odds is not finite.
        UnavailableError
            The rule needs openTSNE, which is not installed.
        """
        rows = np.atleast_2d(limited(logits))[:, : len(MEMBERS)]
        if not np.isfinite(rows).all():
            raise ValueError("logits must be finite")
        coordinates = self.rule.coordinates(rows)
        distance, nearest = _distance(self._embedded, coordinates)
        moved = self.rule.places == "opentsne" and len(rows) > 0
        found = self.value_at(self._placed(coordinates) if moved else self.positions[nearest])
        far = np.where(distance > self.far_distance, int(Flag.FAR_FROM_TRAINING), 0).astype(np.uint32)
        return GridLookup(found.positions, found.value, found.cell_count, found.flags | far)

    def save(self, path: Path) -> None:
        """Write an ``npz`` file without pickle; the same grid gives the same bytes."""
        records.save_arrays(path, self)

    @classmethod
    def load(cls, path: Path, rule: GridRule | None = None) -> EmbeddingGrid:
        """Read what :meth:`save` wrote; the bundle's manifest has the ``rule``, by default the default one.

        Raises
        ------
        ContentError
            The file is not such a grid.
        """
        grid = cls(**records.load_arrays(path, cls, "an embedding grid"), rule=rule or NEAREST_LOG_ODDS)
        shape = (len(grid.x_edges) - 1, len(grid.y_edges) - 1)
        fits = grid.logits.shape == (len(grid.positions), len(MEMBERS)) and grid.positions.shape[1:] == (2,)
        fits &= grid.x_edges.ndim == grid.y_edges.ndim == 1 and min(shape) > 0 and len(grid.logits) > 0
        if not fits or grid.lens_fraction.shape != shape or grid.counts.shape != shape or grid.far_distance.shape != ():
            raise ContentError(f"{path}: the arrays of the embedding grid do not fit together; export the bundle again.")
        wrong = grid._wrong()
        if wrong:
            raise ContentError(f"{path}: {wrong} of the embedding grid holds impossible values; export the bundle again.")
        return grid

    def _wrong(self) -> str | None:
        """Name of an array whose values no grid has."""
        is_empty = np.isnan(self.lens_fraction)
        within = (self.lens_fraction >= 0) & (self.lens_fraction <= 1)
        sound = {
            "logits": bool(np.isfinite(self.logits).all()),
            "positions": bool(np.isfinite(self.positions).all()),
            "x_edges": bool(np.isfinite(self.x_edges).all() and (np.diff(self.x_edges) > 0).all()),
            "y_edges": bool(np.isfinite(self.y_edges).all() and (np.diff(self.y_edges) > 0).all()),
            "lens_fraction": bool((is_empty | within).all() and within.any()),
            "counts": bool(((self.counts > 0) == ~is_empty).all() and (self.counts >= 0).all()),
            "far_distance": bool(np.isfinite(self.far_distance) and self.far_distance >= 0),
        }
        return next((name for name, is_sound in sound.items() if not is_sound), None)


def _tree(embedded: Float64) -> Any:
    # Half a second to import, which --help should not wait for.
    from scipy.spatial import cKDTree

    return cKDTree(embedded)


def _distance(tree: Any, coordinates: Float64) -> tuple[Float64, Int64]:
    """Distances (N,) to training objects, scores limited to the range that each member has in training; the nearest objects."""
    distance, nearest = tree.query(coordinates)
    within = np.clip(coordinates, tree.mins, tree.maxes)
    moved = np.flatnonzero((within != coordinates).any(axis=1))
    distance[moved] = tree.query(within[moved])[0]
    return distance, nearest


def limited(logits: NDArray[Any]) -> Float32:
    """Log-odds as they are embedded and compared: limited to where they still say anything, float32."""
    return np.clip(np.asarray(logits, dtype=np.float32), -LOGIT_LIMIT, LOGIT_LIMIT)


def _edges(values: Float64, cells: int) -> Float64:
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, cells + 1)


def _cell(places: Float32, x_edges: Float64, y_edges: Float64) -> Int64:
    """Flat cell index, clipped to the box; a cell holds its lower edges, the last ones their upper edges too."""
    index = []
    for values, edges in ((places[:, 0], x_edges), (places[:, 1], y_edges)):
        index.append(np.clip(np.searchsorted(edges, values.astype(np.float64), side="right") - 1, 0, len(edges) - 2))
    return np.asarray(index[0] * (len(y_edges) - 1) + index[1], dtype=np.int64)
