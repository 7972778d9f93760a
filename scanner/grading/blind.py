"""Blind grading: who grades sees neither scores nor others' grades of what they have not graded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scanner.catalogue.columns import MEMBER_COLUMNS, MODEL_COLUMNS, RANK_COLUMN, SYSTEM_COLUMN, further_of
from scanner.grading.grade import Entry, Place, Viewer
from scanner.grading.store import GradeStore
from scanner.records import Flag

#: Columns that the ensemble made.
SCORE_NAMES = frozenset(
    (
        *(column.name for column in MEMBER_COLUMNS.values()),
        *(RANK_COLUMN.name, SYSTEM_COLUMN.name, "tsne_x", "tsne_y", "grid_value", "cell_count", "p_calibrated", "is_candidate"),
    )
)
#: What a lens model says tells as much as a score.
_MODEL_NAMES = frozenset(column.name for column in MODEL_COLUMNS)
_SCORE_FLAGS = Flag.EMPTY_CELL | Flag.UNDEFINED_NEIGHBOURS | Flag.OUTSIDE_EMBEDDING | Flag.FAR_FROM_TRAINING


class Blindness:
    """What is withheld from whom.

    Withheld is what the ensemble says: probabilities, place in the embedding, rank, decision, and the flags that it sets;
    and what lens models say.
    Readers cannot grade, so nothing is withheld from them.

    Parameters
    ----------
    store
        The grades.
    on
        Whether anything is withheld at all.
    """

    def __init__(self, store: GradeStore, *, on: bool) -> None:
        self.store = store
        self.on = on

    def holds_for(self, viewer: Viewer) -> bool:
        """Whether scores are withheld from somebody until they have graded."""
        return self.on and viewer.role == "grade"

    def hides_column(self, viewer: Viewer, column: str) -> bool:
        """Whether somebody may not sort or select by a column, since the order or selection would betray its values."""
        return self.holds_for(viewer) and (_tells(column) or column == "flags")

    def hide_scores(self, viewer: Viewer, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Rows as somebody may see them.

        Parameters
        ----------
        viewer
            Who asks.
        items
            Rows of a catalogue as JSON shows them: ``id``, ``ra``, ``dec`` and any other columns.

        Returns
        -------
        list of dict
            The rows with ``grade``, the viewer's own or None, and ``withheld``: whether scores are None for this reason.
        """
        places = [Place(item["id"], "", item["ra"], item["dec"]) for item in items]
        grades = {} if viewer.name is None else self.store.grades_of(viewer.name, places)
        found = []
        for item in items:
            grade = grades.get(item["id"])
            withheld = grade is None and self.holds_for(viewer)
            row = {**item, **_without_scores(item)} if withheld else dict(item)
            found.append({**row, "grade": grade, "withheld": withheld})
        return found

    def history(self, viewer: Viewer, place: Place) -> tuple[tuple[Entry, ...], bool]:
        """The entries of an object that somebody may see, and whether those of others are withheld."""
        said = self.store.history(place)
        if not self.holds_for(viewer) or (viewer.name is not None and self.store.grades_of(viewer.name, [place])):
            return said, False
        own = tuple(entry for entry in said if entry.grader == viewer.name)
        return own, True

    def standing(self, viewer: Viewer) -> tuple[Entry, ...]:
        """The standing grades of the objects whose grades somebody may see."""
        entries = self.store.standing()
        if not self.holds_for(viewer):
            return entries
        graded = {entry.object for entry in entries if entry.grader == viewer.name}
        return tuple(entry for entry in entries if entry.object in graded)


def _tells(column: str) -> bool:
    return column in SCORE_NAMES or column in _MODEL_NAMES or bool(further_of([column]))


def _without_scores(item: Mapping[str, Any]) -> dict[str, Any]:
    veil: dict[str, Any] = dict.fromkeys(filter(_tells, item))
    if item.get("flags") is not None:
        veil["flags"] = item["flags"] & ~int(_SCORE_FLAGS)
    return veil
