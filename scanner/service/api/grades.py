"""Grades and campaigns over HTTP: what is to be graded next, grades and votes, agreement, label tables."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from scanner.config import StorageConfig
from scanner.errors import ScannerError, UsageError
from scanner.grading.campaign import Campaign, GraderProgress, Handout, NewCampaign, State, begin
from scanner.grading.crowd import Agreement, agreement
from scanner.grading.grade import Entry, Grade, NewGrade, Place, Tag, Viewer, grader_name
from scanner.grading.labels import FEWEST, FEWEST_JUDGES, LABEL_FORMATS, LabelFormat, label_bytes, label_rows, label_table
from scanner.grading.store import GradeStore
from scanner.labels.table import LabelRow
from scanner.query.database import DatabaseLimits
from scanner.query.formats import FILE_FORMATS
from scanner.records import Record
from scanner.service.api.listing import MOST_GRADED, ListQuery, by_grader, following
from scanner.service.collections import Collection
from scanner.service.context import ERRORS, CampaignName, Context, HandoutId, RunId, TargetId, TileId
from scanner.service.errors import BadRequestError, NotAllowedError, NotFoundError, Result, of_grades
from scanner.service.security import NAME_COOKIE, grader, viewer

#: How long a browser remembers the name that somebody grades under, in seconds.
COOKIE_S = 365 * 24 * 3600


class GraderName(Record):
    """The name that somebody at this machine wants to grade under."""

    name: str


class Grader(Record):
    """Who asks: ``name`` is null until they have one; ``blind``: scores are withheld from them until they have graded."""

    name: str | None
    may_grade: bool
    named_by_token: bool
    blind: bool


class Grading(Record):
    """What was said of a candidate.

    ``grade``, ``comment``, ``tags``: the viewer's own that stand. ``history``: every grade and every time that one was taken
    back, oldest first; ``withheld``: what others said is left out of it until the viewer has graded. ``standing``: the
    numbers of the entries that stand.
    """

    candidate_id: str
    grader: Grader
    grade: Grade | None
    comment: str
    tags: tuple[Tag, ...]
    history: tuple[Entry, ...]
    standing: tuple[int, ...]
    withheld: bool


class NextQuery(ListQuery):
    """The list to go through (``graded`` does not count), and where to go on."""

    collection: str | None = Field(None, description="Its name; the default one if left out.")
    after: str | None = Field(None, max_length=600, description="Id of the object to start behind.")


class Learning(Record):
    """What a bundle may learn from: graded objects with a clear label, and the commands that do it, for each run.

    ``fewest``: lenses, and others, that it takes, a fifth of which judge. Commands have the names of the run and of the file of
    grades, and not where on its machine the service finds them.
    """

    n_lenses: int
    n_others: int
    n_unclear: int
    fewest: int
    commands: tuple[str, ...]


class NextCandidate(Record):
    """The next object without a grade; null where all have one."""

    candidate_id: str | None


def router(context: Context) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/api/v1/grades", tags=["grades"], responses=ERRORS)
    store, blindness = context.grades, context.blindness

    def described(who: Viewer) -> Grader:
        return Grader(
            name=who.name, may_grade=who.role == "grade", named_by_token=who.is_named_by_token, blind=blindness.holds_for(who)
        )

    async def run(function: Callable[..., Result], *args: object) -> Result:
        return await context.work.run(of_grades, function, *args)

    def place_of(candidate_id: str) -> tuple[Collection, Place]:
        collection, row = context.collections.find(candidate_id)
        (values,) = row.select(["name", "ra", "dec"]).to_pylist()
        return collection, Place(candidate_id, values["name"], values["ra"], values["dec"])

    def grading(who: Viewer, place: Place) -> Grading:
        history, withheld = blindness.history(who, place)
        shown = {entry.number for entry in history}
        standing = [entry for entry in store.standing_of(place) if entry.number in shown]
        own = next((entry for entry in standing if entry.grader == who.name), None)
        return Grading(
            candidate_id=place.candidate_id,
            grader=described(who),
            grade=None if own is None else own.grade,
            comment="" if own is None else own.comment,
            tags=() if own is None else own.tags,
            history=history,
            standing=tuple(entry.number for entry in standing),
            withheld=withheld,
        )

    def ask(candidate_id: str, who: Viewer) -> Grading:
        return grading(who, place_of(candidate_id)[1])

    def give(candidate_id: str, who: Viewer, said: NewGrade) -> Grading:
        collection, place = place_of(candidate_id)
        seen, blind = _seen(collection), blindness.holds_for(who)
        name = name_of(who, said)
        store.give(place, name, said.grade, said.comment, tags=said.tags, catalogue=seen, blind=blind, key=said.key)
        return grading(who, place)

    def take_back(candidate_id: str, who: Viewer) -> Grading:
        collection, place = place_of(candidate_id)
        store.undo(place, name_of(who), catalogue=_seen(collection))
        return grading(who, place)

    @routes.get("/me", summary="Who I am here, and whether I may grade")
    async def me(who: Annotated[Viewer, Depends(viewer)]) -> Grader:
        return described(who)

    @routes.put("/me", summary="Take a name to grade under, at the service's own machine")
    async def name(who: Annotated[Viewer, Depends(grader)], wanted: GraderName, request: Request, response: Response) -> Grader:
        if who.is_named_by_token:
            raise NotAllowedError("Your token says who you are; the name cannot be chosen.")
        chosen = of_grades(grader_name, wanted.name)
        path = request.scope.get("root_path") or "/"
        response.set_cookie(
            NAME_COOKIE, chosen.replace(" ", "+"), max_age=COOKIE_S, path=path, httponly=True, samesite="strict"
        )
        return described(Viewer(chosen, who.role, False))

    @routes.get("/next", summary="The next object of a list that I have not graded")
    async def ungraded(who: Annotated[Viewer, Depends(grader)], wanted: Annotated[NextQuery, Query()]) -> NextCandidate:
        collections = context.collections
        chosen = collections.default if wanted.collection is None else collections.get(wanted.collection)
        selection = wanted.selection(blindness, who)

        def search() -> NextCandidate:
            mine = by_grader(chosen, store, name_of(who), "no")
            if mine is None:
                raise BadRequestError(f"Lists of more than {MOST_GRADED:,} objects cannot be gone through like this.")
            return NextCandidate(candidate_id=following(chosen, selection, wanted.after, mine))

        return await run(search)

    @routes.get("/agreement", summary="How far the graders agree: kappas with intervals, tables of every two")
    async def agreeing(who: Annotated[Viewer, Depends(viewer)]) -> Agreement:
        return await run(lambda: agreement(blindness.standing(who)))

    @routes.get("/learning", summary="Whether there are grades enough to learn from, and how")
    async def learning(who: Annotated[Viewer, Depends(viewer)]) -> Learning:
        if not who.leads or blindness.holds_for(who):
            raise NotAllowedError("Only tokens of the role 'lead' see what there is to learn from.")

        def counted() -> Learning:
            labels = Counter(row["label"] for row in label_rows(store.standing(), store.places()).values())
            runs = [one.published.location for one in context.collections if one.published.version is None]
            names = [quote(location.rstrip("/").rpartition("/")[2]) for location in runs]
            grades = quote(store.path.name)
            return Learning(
                n_lenses=labels["lens"],
                n_others=labels["other"],
                n_unclear=labels["unclear"],
                fewest=max(FEWEST + FEWEST_JUDGES, 5 * FEWEST_JUDGES),
                commands=tuple(f"scanner train from-grades {name} --grades {grades} --out learned" for name in names),
            )

        return await run(counted)

    @routes.get(
        "/export",
        summary="The label table",
        response_class=Response,
        responses={200: {"content": {FILE_FORMATS[name].media_type: {} for name in LABEL_FORMATS}}},
    )
    async def export(
        who: Annotated[Viewer, Depends(viewer)],
        format: Annotated[LabelFormat, Query(description="Of the file.")] = "ecsv",  # noqa: A002
        least_graders: Annotated[int, Query(ge=1, le=1000, description="Fewer leave a label unclear.")] = 1,
    ) -> Response:
        if blindness.holds_for(who):
            raise NotAllowedError("Blind grading: labels would tell what others said; ask for them with a reader's token.")

        def labels() -> bytes:
            return label_bytes(label_table(store.standing(), store.places(), least_graders), format)

        content = await run(labels)
        disposition = f'attachment; filename="labels{FILE_FORMATS[format].suffixes[0]}"'
        return Response(content, media_type=FILE_FORMATS[format].media_type, headers={"Content-Disposition": disposition})

    @routes.get("/{run_id}/{tile_id}/{target_id}", summary="What was said of a candidate")
    async def said(run_id: RunId, tile_id: TileId, target_id: TargetId, who: Annotated[Viewer, Depends(viewer)]) -> Grading:
        return await run(ask, f"{run_id}/{tile_id}/{target_id}", who)

    @routes.post("/{run_id}/{tile_id}/{target_id}", summary="Grade a candidate, anew if it has a grade of mine")
    async def say(
        run_id: RunId, tile_id: TileId, target_id: TargetId, who: Annotated[Viewer, Depends(grader)], grade: NewGrade
    ) -> Grading:
        return await run(give, f"{run_id}/{tile_id}/{target_id}", who, grade)

    @routes.post("/{run_id}/{tile_id}/{target_id}/undo", summary="Take my grade back; the one before stands again")
    async def undo(run_id: RunId, tile_id: TileId, target_id: TargetId, who: Annotated[Viewer, Depends(grader)]) -> Grading:
        return await run(take_back, f"{run_id}/{tile_id}/{target_id}", who)

    return routes


def name_of(who: Viewer, said: NewGrade | None = None) -> str:
    """The name that somebody grades under, who must be the one who gave a grade."""
    if who.name is None:
        raise BadRequestError("Say who you are first: give a name to grade under.")
    if said is not None and said.grader not in (None, who.name):
        raise NotAllowedError(f"{said.grader} gave this grade, and you are {who.name}; it waits until {said.grader} is back.")
    return who.name


def _seen(collection: Collection) -> str:
    """What a grader sees: a collection and, of a survey, its version."""
    version = collection.published.version
    return collection.slug if version is None else f"{collection.slug} version {version}"


logger = logging.getLogger(__name__)
#: So many are handed out at a time: their pictures are all found before the first is named, so that no wait tells of one.
LEAST_HANDED, MOST_HANDED = 8, 24


class CampaignView(Record):
    """A campaign as somebody may see it.

    ``takes_part``: it hands objects to the viewer; ``leads``: they may pause, resume and close it; ``n_mine``: their votes.
    The numbers from ``n_objects`` on are null to graders of a campaign with known answers: a count that a vote does not move
    would tell which vote that was.
    """

    name: str
    state: State | Literal["over"]
    made: datetime
    until: datetime | None
    blind: bool
    feedback: bool
    votes: int
    takes_part: bool
    leads: bool
    n_mine: int
    selection: str | None = None
    n_objects: int | None = None
    n_known: int | None = None
    n_done: int | None = None
    n_votes: int | None = None
    graders: tuple[GraderProgress, ...] | None = None


class CampaignList(Record):
    """All campaigns, the youngest first; ``may_begin``: whether the viewer may begin another."""

    campaigns: tuple[CampaignView, ...]
    may_begin: bool
    has_painted: bool = Field(description="Whether there are painted runs to mix in; false to others.")


class WantedCampaign(NewCampaign):
    """A campaign over objects of a ``collection``.

    ``known``: known answers as CSV with RA, Dec and label, to be mixed in at ``rate``; ``painted``: they are of the painted
    runs that the service was given, not of the collection.
    """

    collection: str = Field(max_length=200)
    known: str | None = Field(None, max_length=200_000)
    painted: bool = False


class NewState(Record):
    """What a campaign shall be; ``closed`` is for good."""

    state: State


class Named(Record):
    """An object that is no secret: its ``id``, the collection ``slug`` whose page shows it, its ``name``."""

    id: str
    slug: str
    name: str


class Handed(Record):
    """An object to grade; ``id`` is known to this grader only. ``candidate``: null where the campaign is blind."""

    id: str
    candidate: Named | None


class HandedOut(Record):
    """What is to be graded now, in this order; empty where nothing is left, or nothing is handed out."""

    handed: tuple[Handed, ...]
    campaign: CampaignView


class KeptVote(Record):
    """A vote that was kept; ``answer``: what was known of the object before, where graders are shown it."""

    grade: Grade
    answer: Literal["lens", "other"] | None
    n_mine: int = Field(description="Objects that the grader has voted on.")


def campaign_router(context: Context) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/api/v1/campaigns", tags=["campaigns"], responses=ERRORS)
    campaigns = context.campaigns

    async def run(function: Callable[..., Result], *args: object) -> Result:
        return await context.work.run(of_grades, function, *args)

    def get(name: str) -> Campaign:
        try:
            return campaigns.get(name)
        except UsageError as error:
            raise NotFoundError(str(error)) from None

    def warmed(one: Handout, blind: bool) -> Handed:
        """Have its picture in memory."""
        place = one.subject.place
        try:
            collection, _, framed = context.cutout_of(place.candidate_id, salted=one.subject.salted)
            context.cutouts.handed(one.id, lambda: framed)
        except NotFoundError as error:
            logger.warning("%s has no picture for its graders: %s", place.candidate_id, error)
            return Handed(id=one.id, candidate=None)
        shown = None if blind else Named(id=place.candidate_id, slug=collection.slug, name=place.name)
        return Handed(id=one.id, candidate=shown)

    @routes.get("", summary="All campaigns that I take part in, or may see")
    async def listed(who: Annotated[Viewer, Depends(viewer)]) -> CampaignList:
        found = await run(campaigns.all)
        views = (_view(one, who) for one in found)
        return CampaignList(
            campaigns=tuple(one for one in views if one.takes_part or who.role != "grade"),
            may_begin=who.leads,
            has_painted=who.leads and context.salt is not None,
        )

    @routes.post("", status_code=201, summary="Begin a campaign")
    async def create(who: Annotated[Viewer, Depends(viewer)], wanted: WantedCampaign) -> CampaignView:
        if not who.leads:
            raise NotAllowedError("Only tokens of the role 'lead' begin campaigns.")
        if wanted.painted and (context.salt is None or not wanted.known):
            raise BadRequestError("Painted runs are mixed in where the service has them (--salt) and known answers are given.")
        published = context.collections.get(wanted.collection).published
        painted = [one.published.location for one in context.salt] if wanted.painted and context.salt is not None else []
        limits = DatabaseLimits(context.config.limits.memory_mb_each, context.config.limits.threads)
        found = await run(
            context.processes.call,
            _begun,
            context.grades.path,
            published.location,
            painted,
            context.config.storage,
            limits,
            wanted,
        )
        return _view(found, who)

    @routes.get("/{name}", summary="One campaign")
    async def campaign(name: CampaignName, who: Annotated[Viewer, Depends(viewer)]) -> CampaignView:
        return _view(await run(get, name), who)

    @routes.put("/{name}/state", summary="Pause, resume or close a campaign")
    async def set_state(name: CampaignName, who: Annotated[Viewer, Depends(viewer)], wanted: NewState) -> CampaignView:
        if not who.leads:
            raise NotAllowedError("Only tokens of the role 'lead' pause, resume and close campaigns.")
        return _view(await run(campaigns.set_state, name, wanted.state), who)

    @routes.post("/{name}/next", summary="What I am to grade now")
    async def hand_out(
        name: CampaignName,
        who: Annotated[Viewer, Depends(grader)],
        n: Annotated[int, Query(ge=LEAST_HANDED, le=MOST_HANDED, description="Most of them.")] = LEAST_HANDED,
    ) -> HandedOut:
        def handed() -> HandedOut:
            found = get(name)
            each = campaigns.hand_out(name, name_of(who), n)
            return HandedOut(handed=tuple(warmed(one, found.plan.blind) for one in each), campaign=_view(get(name), who))

        return await run(handed)

    @routes.post("/{name}/votes/{handout}", summary="Vote on what was handed to me")
    async def vote(name: CampaignName, handout: HandoutId, who: Annotated[Viewer, Depends(grader)], said: NewGrade) -> KeptVote:
        def kept() -> KeptVote:
            voted = campaigns.vote(name, name_of(who, said), handout, said, catalogue=f"campaign {name}")
            answer: Literal["lens", "other"] | None = None if voted.answer is None else "lens" if voted.answer else "other"
            return KeptVote(grade=said.grade, answer=answer, n_mine=_mine(campaigns.get(name), who.name))

        return await run(kept)

    return routes


def _begun(
    grades: Path, location: str, painted: Sequence[str], storage: StorageConfig, limits: DatabaseLimits, wanted: WantedCampaign
) -> Campaign:
    """Begin a campaign, in a process of its own: what it asks a catalogue may take more than there is."""
    from scanner.labels.table import read_labels
    from scanner.survey.published import open_published

    known: list[LabelRow] = []
    if wanted.known:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "known.csv"
            file.write_text(wanted.known, encoding="utf-8")
            try:
                known = read_labels(file).rows
            except ScannerError as error:
                raise UsageError(str(error).replace(str(file), "The known answers")) from None
    runs = [open_published(one, storage=storage) for one in painted]
    return begin(GradeStore(grades), open_published(location, storage=storage), wanted, known, runs, limits)


def _mine(one: Campaign, name: str | None) -> int:
    return next((progress.n_votes for progress in one.graders if progress.grader == name), 0)


def _view(one: Campaign, who: Viewer) -> CampaignView:
    plan = one.plan
    takes_part = who.role == "grade" and one.includes(who.name)
    is_secret = plan.rate > 0 and takes_part and one.state != "closed"
    shown = {} if is_secret else {name: getattr(one, name) for name in ("n_objects", "n_known", "n_done", "n_votes", "graders")}
    return CampaignView(
        name=plan.name,
        state="over" if one.is_over and one.state == "running" else one.state,
        made=one.made,
        until=plan.until,
        blind=plan.blind,
        feedback=plan.feedback,
        votes=plan.votes,
        takes_part=takes_part,
        leads=who.leads,
        n_mine=_mine(one, who.name),
        selection=None if is_secret else plan.selection,
        **shown,
    )
