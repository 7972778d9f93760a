"""Campaigns over HTTP: what is to be graded next, votes, and how far everybody is."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from scanner.config import StorageConfig
from scanner.errors import ScannerError, UsageError
from scanner.grading.campaign import Campaign, GraderProgress, Handout, NewCampaign, State, begin
from scanner.grading.grade import Grade, NewGrade, Viewer
from scanner.grading.store import GradeStore
from scanner.labels.table import LabelRow
from scanner.query.database import DatabaseLimits
from scanner.records import Record
from scanner.service.api.grades import name_of
from scanner.service.context import Context
from scanner.service.errors import BadRequestError, NotAllowedError, NotFoundError, Result, of_grades
from scanner.service.routing import ERRORS, CampaignName, HandoutId
from scanner.service.security.viewer import grader, viewer

logger = logging.getLogger(__name__)
#: So many are handed out at a time: their pictures are all found before the first is named, so that no wait tells of one.
LEAST_HANDED, MOST_HANDED = 8, 24


class CampaignView(Record):
    """A campaign as somebody may see it.

    ``takes_part``: it hands objects to whoever asks; ``leads``: they may pause, resume and close it; ``n_mine``: their votes.
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
    """All campaigns, the youngest first; ``may_begin``: whether whoever asks may begin another."""

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
    """A vote that was kept; ``answer``: what was known of the object before, where graders are told."""

    grade: Grade
    answer: Literal["lens", "other"] | None
    n_mine: int = Field(description="Objects that the grader has voted on.")


def router(context: Context) -> APIRouter:
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
