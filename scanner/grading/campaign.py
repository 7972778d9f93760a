"""Campaigns: who grades which objects, how often, and with which known answers mixed in unseen.

They lie in the file of the grades. A grader asks for objects and gets them under names that only this grader knows, so that
neither a name nor the order tells a known answer from an object of the sky (Marshall et al. 2016, *Space Warps: I*, section 2).
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import numpy as np
from pydantic import AwareDatetime, Field

from scanner.errors import UsageError
from scanner.grading.crowd import KNOWN_ARCSEC
from scanner.grading.grade import Entry, NewGrade, Place, Viewer, grader_name
from scanner.grading.queue import DEFAULT_MIX, Mix, next_objects
from scanner.grading.similar import FeatureTable, features_if_any, vectors_of
from scanner.grading.store import GradeStore, add_grade, object_of, reading, writing
from scanner.labels.table import LabelRow
from scanner.query.catalogue import CANDIDATE_ID_SQL, SEPARATION_COLUMN, CandidateId, Catalogue, Search, search
from scanner.query.database import DEFAULT_LIMITS, DatabaseLimits
from scanner.query.region import Cone, Region, parse_cone
from scanner.query.sql import run_sql
from scanner.records import Record
from scanner.sphere import nearest
from scanner.survey.published import Published

#: How long an object stays in a grader's hands without a vote before others may get it, in seconds.
LEASE_S = 1800.0
#: A painted object and one of the sky this near show the same field, and are not both asked for.
SAME_FIELD_ARCSEC = 20.0
#: Known answers must last for a grader who sees every object, but for so many standard deviations of chance.
_SPARE_SIGMA = 4.0
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$"
State = Literal["running", "paused", "closed"]
Order = Literal["given", "random", "queue"]
ORDERS: tuple[Order, ...] = get_args(Order)
_COLUMNS = ("run", "tile_id", "target_id", "name", "ra", "dec", "p_calibrated", "tsne_x", "tsne_y")


class Plan(Record):
    """What a campaign is.

    ``selection``: which objects, in words. ``graders``: who may take part; empty: all graders. ``votes``: wanted of
    different graders for each object. ``blind``: the catalogue is closed to its graders until the campaign is. ``rate``: share
    of known answers in what a grader gets. ``feedback``: a grader sees the answer after a vote on it. ``until``: after this
    nothing is handed out. ``seed``: of everything that chance decides; anyone who knows it can recognise known answers.
    """

    name: str = Field(pattern=_NAME)
    selection: str
    graders: tuple[str, ...] = ()
    votes: int = Field(3, ge=1, le=100)
    blind: bool = False
    rate: float = Field(0.0, ge=0.0, le=0.5)
    feedback: bool = False
    until: AwareDatetime | None = None
    order: Order = "given"
    seed: int = Field(ge=0, lt=2**63)


class GraderProgress(Record):
    """How far one grader is; ``n_known`` of the votes were on known answers."""

    grader: str
    n_votes: int
    n_known: int
    last: datetime | None


class Campaign(Record):
    """A campaign and how far it is: ``n_done`` of ``n_objects`` have the votes that are wanted; ``n_known``: known answers."""

    plan: Plan
    state: State
    is_over: bool
    made: datetime
    n_objects: int
    n_known: int
    n_done: int
    n_votes: int
    graders: tuple[GraderProgress, ...]

    def includes(self, grader: str | None) -> bool:
        """Whether somebody may take part; who has no name yet may be anybody."""
        return grader is None or not self.plan.graders or grader in self.plan.graders


@dataclass(frozen=True)
class Subject:
    """An object of a campaign; ``known``: whether it is a lens, None: not known; ``salted``: painted, and on no sky."""

    place: Place
    known: bool | None = None
    salted: bool = False


@dataclass(frozen=True)
class Handout:
    """A subject in a grader's hands; ``id``: what this grader knows it by."""

    id: str
    subject: Subject


@dataclass(frozen=True)
class Vote:
    """A vote that was kept; ``answer``: whether the object is a lens, where it was known and the plan has feedback."""

    entry: Entry
    answer: bool | None


class NewCampaign(Record):
    """What a campaign shall be, as its leader says; see :class:`Plan` and :func:`choose`.

    ``cone``: 'RA DEC RADIUS', a part of the sky. ``names``: of objects, instead of ``top`` or ``sql``. ``order``: none, random
    where the order must reveal nothing. ``seed``: drawn where there is none. ``mix``: of the order ``queue``.
    """

    name: str = Field(pattern=_NAME)
    graders: tuple[str, ...] = ()
    votes: int = Field(3, ge=1, le=100)
    blind: bool = False
    rate: float = Field(0.1, ge=0.0, le=0.5)
    feedback: bool = False
    until: AwareDatetime | None = None
    order: Order | None = None
    seed: int | None = Field(None, ge=0, lt=2**63)
    top: int | None = Field(None, ge=1)
    cone: str | None = Field(None, max_length=200)
    sql: str | None = Field(None, max_length=20_000)
    names: tuple[str, ...] | None = None
    control: int = Field(0, ge=0)
    mix: Mix = DEFAULT_MIX


def begin(
    store: GradeStore,
    published: Published,
    wanted: NewCampaign,
    known: Sequence[LabelRow] = (),
    painted: Sequence[Published] = (),
    limits: DatabaseLimits = DEFAULT_LIMITS,
) -> Campaign:
    """Choose the objects of a campaign and begin it.

    Parameters
    ----------
    store
        Where it is kept.
    published
        The run or survey whose objects are graded.
    wanted
        What it shall be.
    known
        Known answers that are mixed in: of objects of these runs of ``painted`` mosaics, or, without any, of ``published``.
    painted
        Those runs.
    limits
        What the choice may use.

    Raises
    ------
    UsageError
        See :func:`choose` and :meth:`Campaigns.create`.
    """
    if sum(one is not None for one in (wanted.top, wanted.sql, wanted.names)) > 1:
        raise UsageError("The best, a query and a list of names: give one of them.")
    order = wanted.order or ("random" if wanted.blind or wanted.control or known else "given")
    seed = secrets.randbits(62) if wanted.seed is None else wanted.seed
    catalogue = published.open_catalogue(limits=limits)
    chosen = choose(
        catalogue,
        top=wanted.top,
        region=None if wanted.cone is None else parse_cone(wanted.cone),
        sql=wanted.sql,
        names=wanted.names,
        control=wanted.control,
        order=order,
        seed=seed,
        features=features_if_any(published) if order == "queue" else None,
        mix=wanted.mix,
        graded=store.places().values() if order == "queue" else (),
    )
    subjects = [Subject(place) for place in chosen]
    for one in [run.open_catalogue(limits=limits) for run in painted] or [catalogue]:
        subjects += matched(known, one, salted=bool(painted))
    words = {"top": wanted.top, "cone": wanted.cone, "sql": wanted.sql, "control": wanted.control or None}
    if wanted.names is not None:
        words["names"] = f"{len(wanted.names):,}"
    plan = Plan(
        name=wanted.name,
        selection=", ".join(f"{word} {value}" for word, value in words.items() if value is not None),
        graders=tuple(grader_name(one) for one in wanted.graders),
        votes=wanted.votes,
        blind=wanted.blind,
        rate=wanted.rate if known else 0.0,
        feedback=wanted.feedback,
        until=wanted.until,
        order=order,
        seed=seed,
    )
    return Campaigns(store).create(plan, subjects)


def choose(
    catalogue: Catalogue,
    *,
    top: int | None = None,
    region: Region | None = None,
    sql: str | None = None,
    names: Sequence[str] | None = None,
    control: int = 0,
    order: Order = "given",
    seed: int = 0,
    features: FeatureTable | None = None,
    mix: Mix = DEFAULT_MIX,
    graded: Iterable[Sequence[Place]] = (),
) -> list[Place]:
    """The objects that a campaign asks for, in their order, each once.

    Parameters
    ----------
    catalogue
        Where they are.
    top, region
        The best by rank; in a part of the sky.
    sql
        A SELECT over ``objects``, with at least the columns run, tile_id, target_id, name, ra and dec.
    names
        Designations, or ids ``run/tile_id/target_id``.
    control
        So many more, drawn from all objects: what the others would have missed.
    order
        As they come; by chance; or as :func:`~scanner.grading.queue.next_objects` mixes them.
    seed
        Of chance.
    features
        Vectors of the run's objects: what differs in them is different too, beside what lies apart in the embedding.
    mix
        Weights of the queue.
    graded
        The rows of each object that has a grade: the queue leaves them out, and what is different differs from them.

    Raises
    ------
    UsageError
        Nothing is found, a name is not in the catalogue, or the query lacks a column.
    """
    if sql is not None:
        rows = run_sql({"catalogue": catalogue}, sql, region=region).to_pylist()
        if rows and (missing := [name for name in _COLUMNS[:6] if name not in rows[0]]):
            raise UsageError(f"--sql: the answer has no column {missing[0]}; begin with SELECT * FROM objects.")
    elif names is not None:
        rows = [row for name in names for row in _named(catalogue, name)]
    elif top is not None or region is not None:
        rows = search(catalogue, Search(region=region, top=top, columns=_COLUMNS)).to_pylist()
    else:
        rows = []
    if control:
        objects = catalogue.source().relation
        by_chance = f"md5_number_lower('{int(seed)} ' || {CANDIDATE_ID_SQL}), run, tile_id, target_id"
        drawn = f"SELECT {', '.join(_COLUMNS)} FROM {objects.sql} ORDER BY {by_chance} LIMIT {int(control)}"
        rows += catalogue.query(drawn, objects.parameters).to_pylist()
    each = list({str(CandidateId.of(row)): row for row in rows}.items())
    if not each:
        raise UsageError("No object was chosen; say which: --top, --cone, --sql, --names or --control.")
    rng = np.random.default_rng(seed)
    if order == "random":
        each = [each[row] for row in rng.permutation(len(each))]
    elif order == "queue":
        done = {place.candidate_id for places in graded for place in places}
        others = [row for name in sorted(done - {name for name, _ in each}) for row in _rows_of(catalogue, name)]
        rows = [*(row for _, row in each), *others]
        p, x, y = (np.array([float(row.get(name, math.nan)) for row in rows]) for name in _COLUMNS[6:])
        spaces = [np.column_stack([x, y]).astype(np.float32)]
        if features is not None:
            spaces.append(vectors_of(features, [(str(row["tile_id"]), int(row["target_id"])) for row in rows]))
        is_graded = np.array([name in done for name, _ in each] + [True] * len(others))
        queue = next_objects(p, is_graded, mix, len(each), seed, spaces)
        each = [each[row] for row in queue.rows]
        if not each:
            raise UsageError("All of these objects are graded; choose others, or another order than queue.")
    return [Place(id_, row["name"], float(row["ra"]), float(row["dec"])) for id_, row in each]


def _named(catalogue: Catalogue, name: str) -> list[dict[str, Any]]:
    rows = _rows_of(catalogue, name)
    if not rows:
        raise UsageError(f"{name}: the catalogue has no such object; check the list of names.")
    return rows


def _rows_of(catalogue: Catalogue, name: str) -> list[dict[str, Any]]:
    """The row of an object by its designation or id; none where the catalogue does not have it."""
    is_id = CandidateId.parse(name) is not None
    question = Search(candidate_id=name, columns=_COLUMNS) if is_id else Search(name=name, top=1, columns=_COLUMNS)
    return list(search(catalogue, question).to_pylist())


def matched(rows: Sequence[LabelRow], catalogue: Catalogue, *, salted: bool) -> list[Subject]:
    """The objects of a catalogue whose answer a table knows, within :data:`~scanner.grading.crowd.KNOWN_ARCSEC`.

    Parameters
    ----------
    rows
        Of :func:`~scanner.labels.table.read_labels`.
    catalogue
        Where they are looked for.
    salted
        Whether they were painted.
    """
    found: dict[str, Subject] = {}
    for row in rows:
        if row.is_placed:
            cone = Cone(row.ra, row.dec, KNOWN_ARCSEC / 3600.0)
            near = search(catalogue, Search(region=cone, order=SEPARATION_COLUMN.name, top=1, columns=_COLUMNS))
            for one in near.to_pylist():
                place = Place(str(CandidateId.of(one)), one["name"], one["ra"], one["dec"])
                found.setdefault(place.candidate_id, Subject(place, row.is_lens, salted))
    return list(found.values())


def known_needed(n_objects: int, rate: float) -> int:
    """Known answers that last for a grader who sees every object, where each in turn is known with probability ``rate``."""
    return math.ceil((n_objects * rate + _SPARE_SIGMA * math.sqrt(n_objects * rate)) / (1.0 - rate))


class Campaigns:
    """The campaigns in a file of grades, for many threads and processes.

    Parameters
    ----------
    store
        The file.
    clock
        Seconds since 1970.
    """

    def __init__(self, store: GradeStore, clock: Callable[[], float] = time.time) -> None:
        self._path = store.path
        self._clock = clock

    def create(self, plan: Plan, subjects: Iterable[Subject]) -> Campaign:
        """Begin a campaign.

        Painted objects in whose field another subject lies are left out: who sees both would know that one is painted.

        Parameters
        ----------
        plan
            What it is.
        subjects
            What is asked for, in order, and the known answers.

        Raises
        ------
        UsageError
            There is one of this name; the known answers do not last, or would give themselves away.
        """
        each = list(subjects)
        known_ids = {one.place.candidate_id for one in each if one.known is not None}
        asked = [one for one in each if one.known is None and one.place.candidate_id not in known_ids]
        known = _apart([one for one in each if one.known is not None], asked)
        if not asked:
            raise UsageError(f"{plan.name}: no object is asked for; say which.")
        if plan.rate and not plan.blind:
            raise UsageError(f"{plan.name}: known answers are invisible only where grading is blind: make it blind (--blind).")
        if plan.rate and plan.order != "random":
            raise UsageError(
                f"{plan.name}: by rank, their place would tell known answers apart: take the random order (--order random)."
            )
        if plan.rate and len(known) < (needed := known_needed(len(asked), plan.rate)):
            raise UsageError(
                f"{plan.name}: {len(known):,} known answers do not last for {len(asked):,} objects at a rate of {plan.rate:g}, "
                f"which takes {needed:,}; give more, or lower --rate."
            )
        with writing(self._path) as opened:
            if opened.execute("SELECT 1 FROM campaigns WHERE name = ?", (plan.name,)).fetchone():
                raise UsageError(f"{plan.name}: there is a campaign of this name; choose another.")
            made = datetime.now(UTC).isoformat(timespec="milliseconds")
            number = opened.execute(
                "INSERT INTO campaigns (name, plan, made) VALUES (?, ?, ?)", (plan.name, plan.model_dump_json(), made)
            ).lastrowid
            for place, one in enumerate([*asked, *known]):
                if one.salted:
                    _paint(opened, one.place)
                opened.execute(
                    "INSERT INTO subjects (campaign, candidate_id, name, ra, dec, known, salted, place)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (number, one.place.candidate_id, one.place.name, one.place.ra, one.place.dec, one.known, one.salted, place),
                )
            opened.execute("INSERT INTO campaign_states (campaign, state, given) VALUES (?, ?, ?)", (number, "running", made))
            return self._described(opened, number)

    def all(self) -> tuple[Campaign, ...]:
        """Every campaign, the youngest first."""
        with reading(self._path) as opened:
            numbers = opened.execute("SELECT campaign FROM campaigns ORDER BY campaign DESC").fetchall()
            return tuple(self._described(opened, number) for (number,) in numbers)

    def get(self, name: str) -> Campaign:
        """One campaign.

        Raises
        ------
        UsageError
            There is none of this name.
        """
        with reading(self._path) as opened:
            return self._described(opened, _number(opened, name))

    def set_state(self, name: str, state: State) -> Campaign:
        """Pause, resume or close a campaign. Votes on what graders have in their hands are taken all the same.

        Raises
        ------
        UsageError
            There is none of this name, or it is closed, which is for good.
        """
        with writing(self._path) as opened:
            number = _number(opened, name)
            if _state(opened, number) == "closed":
                raise UsageError(f"{name}: is closed, which is for good; create another.")
            given = datetime.now(UTC).isoformat(timespec="milliseconds")
            opened.execute("INSERT INTO campaign_states (campaign, state, given) VALUES (?, ?, ?)", (number, state, given))
            return self._described(opened, number)

    def hand_out(self, name: str, grader: str, most: int) -> tuple[Handout, ...]:
        """What a grader is to grade now: what is in their hands already, and then others, ``most`` together.

        No object is in the hands of more graders than it lacks votes, and nobody gets one again after a vote. Each in turn is a
        known answer with the probability of the plan's rate, whatever came before, so that no place in the order tells of it.

        Returns
        -------
        tuple of Handout
            Empty where nothing is left, or the campaign is paused, closed or over.

        Raises
        ------
        UsageError
            There is none of this name, or the grader does not take part.
        """
        with writing(self._path) as opened:
            number = _number(opened, name)
            campaign = self._described(opened, number)
            plan, now = campaign.plan, self._clock()
            if not campaign.includes(grader):
                raise UsageError(f"{name}: {grader} does not take part in this campaign.")
            if campaign.state != "running" or campaign.is_over:
                return ()
            handed = _in_hand(opened, number, grader, plan.votes, now)[:most]
            until = now + LEASE_S
            opened.executemany("UPDATE handouts SET until = ? WHERE handout = ?", [(until, one.id) for one in handed])
            n_handed = opened.execute(
                "SELECT count(*) FROM handouts JOIN subjects USING (subject) WHERE campaign = ? AND grader = ?",
                (number, grader),
            ).fetchone()[0]
            asked = _rows(opened, _FREE, (number, grader, grader, now, plan.votes, most - len(handed)))
            known = sorted(_rows(opened, _KNOWN, (number, grader)), key=lambda row: _draw(plan, grader, "known", row[1]))
            while len(handed) < most and asked:
                is_known = known and int(_draw(plan, grader, "slot", str(n_handed)), 16) < plan.rate * 2**128
                subject, *values = (known if is_known else asked).pop(0)
                handout = _draw(plan, grader, "handout", str(values[0]))[:20]
                opened.execute("INSERT INTO handouts VALUES (?, ?, ?, ?)", (handout, subject, grader, until))
                handed.append(Handout(handout, _subject(values)))
                n_handed += 1
            return tuple(handed)

    def handout(self, name: str, grader: str, handout: str) -> Handout:
        """What a grader knows by a name.

        Raises
        ------
        UsageError
            The grader was handed nothing of this name.
        """
        with reading(self._path) as opened:
            return _handout(opened, name, grader, handout)

    def vote(self, name: str, grader: str, handout: str, said: NewGrade, *, catalogue: str = "") -> Vote:
        """Keep a grader's vote on what was handed out, also after the time for it, and while the campaign is paused or closed.

        A second vote on the same takes the place of the first, but where the plan has feedback: then the first one stands.

        Raises
        ------
        UsageError
            The grader was handed nothing of this name, or has voted on it and seen the answer.
        """
        with writing(self._path) as opened:
            found = _handout(opened, name, grader, handout)
            plan = _plan(opened, _number(opened, name))
            before = opened.execute("SELECT key FROM entries WHERE handout = ?", (handout,)).fetchall()
            if plan.feedback and before and (said.key is None or (said.key,) not in before):
                raise UsageError("Your first vote on this one stands.")
            entry = add_grade(opened, found.subject.place, grader, said, catalogue=catalogue, blind=plan.blind, handout=handout)
            return Vote(entry, found.subject.known if plan.feedback else None)

    def closes_catalogue_to(self, viewer: Viewer) -> str | None:
        """Name of a blind campaign that keeps somebody from looking its objects up; None: there is none."""
        if viewer.role != "grade" or not self._path.exists():
            return None
        with reading(self._path) as opened:
            for number, text in opened.execute(
                "SELECT campaign, plan FROM campaigns WHERE plan ->> 'blind' ORDER BY campaign DESC"
            ):
                plan = Plan.model_validate_json(text)
                takes_part = viewer.name is None or not plan.graders or viewer.name in plan.graders
                if takes_part and _state(opened, number) != "closed":
                    return plan.name
        return None

    def known_answers(self) -> dict[int, bool]:
        """Whether graded objects whose answer some campaign knows are lenses, by object."""
        with reading(self._path) as opened:
            rows = opened.execute(
                "SELECT DISTINCT object, known FROM entries JOIN handouts USING (handout) JOIN subjects USING (subject)"
                " WHERE known IS NOT NULL"
            )
            return {number: bool(known) for number, known in rows}

    def salted_ids(self) -> frozenset[str]:
        """Ids of the painted objects of all campaigns."""
        with reading(self._path) as opened:
            return frozenset(row[0] for row in opened.execute("SELECT candidate_id FROM subjects WHERE salted"))

    def _described(self, opened: sqlite3.Connection, number: int | None) -> Campaign:
        plan = _plan(opened, number)
        (made,) = opened.execute("SELECT made FROM campaigns WHERE campaign = ?", (number,)).fetchone()
        n_objects, n_known = opened.execute(
            "SELECT sum(known IS NULL), sum(known IS NOT NULL) FROM subjects WHERE campaign = ?", (number,)
        ).fetchone()
        votes = opened.execute(
            "SELECT subject, grader, known IS NOT NULL, given FROM subjects JOIN handouts USING (subject)"
            " JOIN (SELECT handout, max(given) AS given FROM entries GROUP BY handout) USING (handout)"
            " WHERE campaign = ? ORDER BY grader",
            (number,),
        ).fetchall()
        of_object: dict[int, int] = {}
        of_grader: dict[str, list[tuple[bool, str]]] = {}
        for subject, grader, is_known, given in votes:
            of_object[subject] = of_object.get(subject, 0) + (not is_known)
            of_grader.setdefault(grader, []).append((bool(is_known), given))
        graders = {grader: of_grader.get(grader, []) for grader in dict.fromkeys((*plan.graders, *of_grader))}
        return Campaign(
            plan=plan,
            state=_state(opened, number),
            is_over=plan.until is not None and self._clock() > plan.until.timestamp(),
            made=made,
            n_objects=n_objects,
            n_known=n_known,
            n_done=sum(n >= plan.votes for n in of_object.values()),
            n_votes=len(votes),
            graders=tuple(
                GraderProgress(
                    grader=grader,
                    n_votes=len(given),
                    n_known=sum(is_known for is_known, _ in given),
                    last=max((text for _, text in given), default=None),
                )
                for grader, given in graders.items()
            ),
        )


_SUBJECT = "subject, candidate_id, subjects.name, ra, dec, known, salted"
_VOTED = "EXISTS (SELECT 1 FROM entries WHERE entries.handout = handouts.handout)"
#: Subjects that lack votes, counting those that somebody else has in hand: campaign, grader, grader, now, votes wanted, most.
_FREE = f"""
SELECT {_SUBJECT} FROM subjects WHERE campaign = ? AND known IS NULL
 AND NOT EXISTS (SELECT 1 FROM handouts WHERE handouts.subject = subjects.subject AND grader = ?)
 AND (SELECT count(*) FROM handouts
      WHERE handouts.subject = subjects.subject AND grader != ? AND (until > ? OR {_VOTED})) < ?
 ORDER BY place LIMIT ?
"""
_KNOWN = f"""
SELECT {_SUBJECT} FROM subjects WHERE campaign = ? AND known IS NOT NULL
 AND NOT EXISTS (SELECT 1 FROM handouts WHERE handouts.subject = subjects.subject AND grader = ?)
"""
#: What a grader has in hand, in the order of handing out, unless others have voted enough meanwhile.
_MINE = f"""
SELECT handout, {_SUBJECT} FROM handouts JOIN subjects USING (subject)
 WHERE campaign = ? AND grader = ? AND NOT {_VOTED}
 AND (known IS NOT NULL OR until > ? OR (
     SELECT count(*) FROM handouts AS others WHERE others.subject = subjects.subject AND others.grader != ?
     AND (others.until > ? OR EXISTS (SELECT 1 FROM entries WHERE entries.handout = others.handout))) < ?)
 ORDER BY handouts.rowid
"""


def _rows(opened: sqlite3.Connection, sql: str, values: Sequence[object]) -> list[tuple[object, ...]]:
    return opened.execute(sql, values).fetchall()


def _in_hand(opened: sqlite3.Connection, number: int, grader: str, votes: int, now: float) -> list[Handout]:
    rows = opened.execute(_MINE, (number, grader, now, grader, now, votes))
    return [Handout(handout, _subject(values)) for handout, _, *values in rows]


def _handout(opened: sqlite3.Connection, name: str, grader: str, handout: str) -> Handout:
    row = opened.execute(
        f"SELECT {_SUBJECT} FROM handouts JOIN subjects USING (subject) WHERE handout = ? AND grader = ? AND campaign = ?",
        (handout, grader, _number(opened, name)),
    ).fetchone()
    if row is None:
        raise UsageError("Nothing of this name was handed to you.")
    return Handout(handout, _subject(row[1:]))


def _subject(values: Sequence[object]) -> Subject:
    *place, known, salted = values
    return Subject(Place(*place), None if known is None else bool(known), bool(salted))  # type: ignore[arg-type]


def _number(opened: sqlite3.Connection, name: str) -> int:
    row = opened.execute("SELECT campaign FROM campaigns WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise UsageError(f"{name}: there is no campaign of this name.")
    return int(row[0])


def _plan(opened: sqlite3.Connection, number: int | None) -> Plan:
    (text,) = opened.execute("SELECT plan FROM campaigns WHERE campaign = ?", (number,)).fetchone()
    return Plan.model_validate_json(text)


def _state(opened: sqlite3.Connection, number: int | None) -> State:
    sql = "SELECT state FROM campaign_states WHERE campaign = ? ORDER BY number DESC LIMIT 1"
    state: State = opened.execute(sql, (number,)).fetchone()[0]
    return state


def _draw(plan: Plan, grader: str, what: str, of: object) -> str:
    """32 hexadecimal digits that look random without the seed."""
    return hmac.new(str(plan.seed).encode(), f"{plan.name}\n{grader}\n{what}\n{of}".encode(), hashlib.sha256).hexdigest()[:32]


def _paint(opened: sqlite3.Connection, place: Place) -> None:
    """Make a painted object one of its own, wherever on the sky it was painted."""
    number = object_of(place, opened)
    if number is None or not _is_salted(opened, number):
        if opened.execute("SELECT 1 FROM sightings WHERE candidate_id = ?", (place.candidate_id,)).fetchone():
            raise UsageError(f"{place.candidate_id}: was graded as an object of the sky, and cannot be mixed in as painted.")
        number = opened.execute("INSERT INTO objects (ra, dec, salted) VALUES (?, ?, 1)", (place.ra, place.dec)).lastrowid
        opened.execute(
            "INSERT INTO sightings VALUES (?, ?, ?, ?, ?)", (place.candidate_id, number, place.name, place.ra, place.dec)
        )


def _is_salted(opened: sqlite3.Connection, number: int) -> bool:
    return bool(opened.execute("SELECT salted FROM objects WHERE object = ?", (number,)).fetchone()[0])


def _apart(known: list[Subject], asked: list[Subject]) -> list[Subject]:
    """The known answers without the painted ones in whose field another subject lies."""
    if not known or not asked:
        return known
    here, there = (np.array([(one.place.ra, one.place.dec) for one in part]).T for part in (known, asked))
    distance_arcsec, _ = nearest(*here, *there)
    return [one for one, near in zip(known, distance_arcsec, strict=True) if not one.salted or near > SAME_FIELD_ARCSEC]
