"""Which object a row of a catalogue stands for, when the catalogue is another one than that which was graded.

In: a :class:`~scanner.service.grading.grade.Place` and the file of grades. Out: the number of the object, or None where nothing
that was graded is there. Nothing is refused.

The rule is that of :mod:`scanner.catalogue.deduplicate`, since a merge may put another tile's row in the place of one that was
graded. A row stands for the object that was graded under its ``candidate_id``. Otherwise it stands for a graded object within
:data:`RADIUS_ARCSEC`, or within 3" where one of the rows graded as that object has its ``target_id``; one with its
``target_id`` goes before, then the nearest, then the first graded. But rows of one tile of one run are never the same
object. The answer is stored with the first grade that is given under a ``candidate_id``, so it never changes afterwards.
"""

from __future__ import annotations

import sqlite3

import numpy as np

from scanner.service.grading.grade import Place
from scanner.sphere import chord, unit_vectors

#: As ``catalogue.duplicate_radius_arcsec`` by default.
RADIUS_ARCSEC = 0.5
#: As in :mod:`scanner.catalogue.deduplicate`, whose trees a service would wait for when it starts.
SAME_ID_RADIUS_ARCSEC = 3.0


def object_of(place: Place, opened: sqlite3.Connection) -> int | None:
    """The object that a row stands for, by the rule above."""
    known = opened.execute("SELECT object FROM sightings WHERE candidate_id = ?", (place.candidate_id,)).fetchone()
    if known is not None:
        return int(known[0])
    reach = SAME_ID_RADIUS_ARCSEC / 3600.0 * (1 + 1e-6)
    near = opened.execute(
        "SELECT object, ra, dec FROM objects WHERE dec BETWEEN ? AND ?", (place.dec - reach, place.dec + reach)
    ).fetchall()
    if not near:
        return None
    ra, dec = np.array([row[1:] for row in near], dtype=np.float64).T
    here = unit_vectors(np.array([place.ra]), np.array([place.dec]))
    distance = np.linalg.norm(unit_vectors(ra, dec) - here, axis=1)
    found: list[tuple[bool, float, int]] = []
    for index in np.flatnonzero(distance <= chord(SAME_ID_RADIUS_ARCSEC)):
        number = int(near[index][0])
        ids = [row[0] for row in opened.execute("SELECT candidate_id FROM sightings WHERE object = ?", (number,))]
        if any(other.startswith(place.tile) for other in ids):
            continue
        same_id = any(other.rpartition("/")[2] == place.target_id for other in ids)
        if same_id or distance[index] <= chord(RADIUS_ARCSEC):
            found.append((not same_id, float(distance[index]), number))
    return min(found)[2] if found else None
