"""What somebody could grade next.

In: a collection, a grader, the candidate that they look at. Out: the next candidate that they have not graded, from there on
and then from the start, by rank; under blind grading by place on the sky, since the rank would tell. Nothing is refused.
"""

from __future__ import annotations

from scanner.catalogue.columns import BEST_OF_EQUALS, HEALPIX_COLUMN, IDENTITY
from scanner.service.collections.collection import CANDIDATES, Collection
from scanner.service.collections.identifiers import IDENTIFIER_SQL
from scanner.service.grading.grade import Place
from scanner.service.grading.store import GradeStore

#: Candidates that are looked up at once.
STRIDE = 200


def next_ungraded(
    collection: Collection, store: GradeStore, grader: str, after: str | None = None, *, blind: bool = False
) -> str | None:
    """The id of the next candidate without a standing grade of a grader; None where all have one.

    Parameters
    ----------
    collection, store
        What is graded, and the grades.
    grader
        Who grades.
    after
        Id of the candidate to start behind; from the first one where it is no candidate, or None.
    blind
        Order by HEALPix index, not by rank.
    """
    key = ", ".join((HEALPIX_COLUMN.name, *IDENTITY) if blind else BEST_OF_EQUALS)
    numbered = f"SELECT {IDENTIFIER_SQL} AS id, name, ra, dec, row_number() OVER (ORDER BY {key}) AS place FROM {CANDIDATES}"
    start = 0
    if after is not None:
        found = collection.query(f"SELECT place FROM ({numbered}) WHERE id = ?", (after,))
        start = int(found["place"][0].as_py()) if len(found) else 0
    return _first(collection, store, grader, numbered, start, collection.n_candidates) or _first(
        collection, store, grader, numbered, 0, start
    )


def _first(collection: Collection, store: GradeStore, grader: str, numbered: str, start: int, stop: int) -> str | None:
    """The first one without a grade whose place is more than ``start`` and at most ``stop``."""
    for first in range(start, stop, STRIDE):
        last = min(first + STRIDE, stop)
        rows = collection.query(f"SELECT * FROM ({numbered}) WHERE place > ? AND place <= ? ORDER BY place", (first, last))
        columns = (rows[name].to_pylist() for name in ("id", "name", "ra", "dec"))
        places = [Place(*values) for values in zip(*columns, strict=True)]
        graded = store.grades_of(grader, places)
        ungraded = next((place.candidate_id for place in places if place.candidate_id not in graded), None)
        if ungraded is not None:
            return ungraded
    return None
