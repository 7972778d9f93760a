"""The nearest training examples of an object in the t-SNE map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scanner.ensemble.embedding_grid import EmbeddingGrid, limited
from scanner.records import Float32, Int64

N_NEIGHBOURS = 8


@dataclass(frozen=True)
class Neighbours:
    """The ``K`` nearest of ``N`` objects, nearest first; (N, K, …).

    ``rows`` int64: row of the grid's training objects, or of the set. ``distance`` float32: in the map, in its units;
    ``logit_distance`` float32: Euclidean, in log-odds limited to ±20. ``positions`` (N, K, 2) and ``logits`` (N, K, 7) float32.
    ``lens_fraction`` float32: share of lenses among the training objects of the neighbour's cell.
    """

    rows: Int64
    distance: Float32
    logit_distance: Float32
    positions: Float32
    logits: Float32
    lens_fraction: Float32


def neighbours(logits: Float32, grid: EmbeddingGrid, k: int = N_NEIGHBOURS, *, among: Float32 | None = None) -> Neighbours:
    """Find the nearest training objects, or the nearest objects of a labelled set.

    A bundle keeps the log-odds and positions of its training objects, not their images or labels: the share of lenses around
    one is that of its cell. Objects of a labelled set, whose images are at hand, are placed on the map as new objects are. An
    object is placed at the position of a training object, so many lie at one distance in the map; among those the nearer in
    log-odds come first.

    Parameters
    ----------
    logits
        (N, 7) lens log-odds, finite.
    grid
        Of the bundle that gave them.
    k
        How many; fewer where there are no more.
    among
        (M, 7) log-odds of the set to search; None: the training objects that the grid keeps.

    Raises
    ------
    ValueError
        A log-odds is not finite.
    """
    places = grid.lookup(logits).positions
    if among is None:
        known, known_places = grid.logits, grid.positions
    else:
        known, known_places = np.asarray(among, dtype=np.float32), grid.lookup(among).positions
    asked, known_limited = limited(logits), limited(known)
    n, most = len(places), min(k, len(known))
    rows = np.empty((n, most), dtype=np.int64)
    distance, logit_distance = np.empty((n, most), np.float32), np.empty((n, most), np.float32)
    for number, (place, odds) in enumerate(zip(places, asked, strict=True)):
        in_map = np.linalg.norm(known_places - place, axis=1)
        in_logits = np.linalg.norm(known_limited - odds, axis=1)
        nearest = np.lexsort((in_logits, in_map))[:most]
        rows[number], distance[number], logit_distance[number] = nearest, in_map[nearest], in_logits[nearest]
    return Neighbours(
        rows=rows,
        distance=distance,
        logit_distance=logit_distance,
        positions=known_places[rows],
        logits=known[rows],
        lens_fraction=grid.value_at(known_places[rows].reshape(-1, 2)).value.reshape(n, most),
    )
