"""Grades over HTTP: what was said of a candidate, to say something, to take it back; how far graders agree; labels.

In: candidates by their ids; who asks, by token or, at this machine, by the name that they gave. Out: JSON, and label tables.
Refused: grades from readers (403) and from people without a name (400); under blind grading, labels to graders (403) and
everything that others said of what the grader has not graded, which is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from scanner.errors import ScannerError, UnavailableError, UsageError
from scanner.records import Record
from scanner.service.api.answers import ERRORS, RunId, TargetId, TileId
from scanner.service.collections import Collection
from scanner.service.context import Context
from scanner.service.errors import BadRequestError, BusyError, ForbiddenError, ServiceError
from scanner.service.grading.agreement import Agreement, agreement
from scanner.service.grading.grade import MAX_COMMENT, Entry, Grade, Place, grader_name
from scanner.service.grading.label_files import ENDINGS, MEDIA_TYPES, LabelFormat, label_bytes
from scanner.service.grading.labels import label_table
from scanner.service.grading.ungraded import next_ungraded
from scanner.service.security.viewer import NAME_COOKIE, Viewer, grader, viewer

Result = TypeVar("Result")
#: How long a browser remembers the name that somebody grades under, in seconds.
COOKIE_S = 365 * 24 * 3600

logger = logging.getLogger(__name__)


class NewGrade(Record):
    """A grade that somebody gives; the comment is plain text."""

    grade: Grade
    comment: str = Field("", max_length=MAX_COMMENT)


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

    ``grade``, ``comment``: those of whoever asks that stand. ``history``: every grade and every time that one was taken back,
    oldest first; ``withheld``: what others said is left out of it until whoever asks has graded. ``standing``: the numbers of
    the entries that stand.
    """

    candidate_id: str
    grader: Grader
    grade: Grade | None
    comment: str
    history: tuple[Entry, ...]
    standing: tuple[int, ...]
    withheld: bool


class NextCandidate(Record):
    """The next candidate without a grade; null where all have one."""

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
        return await context.run(_answered, function, *args)

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
            history=history,
            standing=tuple(entry.number for entry in standing),
            withheld=withheld,
        )

    def ask(candidate_id: str, who: Viewer) -> Grading:
        return grading(who, place_of(candidate_id)[1])

    def give(candidate_id: str, who: Viewer, said: NewGrade) -> Grading:
        collection, place = place_of(candidate_id)
        seen, blind = _seen(collection), blindness.holds_for(who)
        store.give(place, _name(who), said.grade, said.comment, catalogue=seen, blind=blind)
        return grading(who, place)

    def take_back(candidate_id: str, who: Viewer) -> Grading:
        collection, place = place_of(candidate_id)
        store.undo(place, _name(who), catalogue=_seen(collection))
        return grading(who, place)

    @routes.get("/me", summary="Who I am here, and whether I may grade")
    async def me(who: Annotated[Viewer, Depends(viewer)]) -> Grader:
        return described(who)

    @routes.put("/me", summary="Take a name to grade under, at the service's own machine")
    async def name(who: Annotated[Viewer, Depends(grader)], wanted: GraderName, request: Request, response: Response) -> Grader:
        if who.is_named_by_token:
            raise ForbiddenError("Your token says who you are; the name cannot be chosen.")
        chosen = _answered(grader_name, wanted.name)
        path = request.scope.get("root_path") or "/"
        response.set_cookie(
            NAME_COOKIE, chosen.replace(" ", "+"), max_age=COOKIE_S, path=path, httponly=True, samesite="strict"
        )
        return described(Viewer(chosen, who.role, False))

    @routes.get("/next", summary="The next candidate that I have not graded")
    async def ungraded(
        who: Annotated[Viewer, Depends(grader)],
        collection: Annotated[str | None, Query(description="Its name; the default one if left out.")] = None,
        after: Annotated[str | None, Query(max_length=600, description="Id of the candidate to start behind.")] = None,
    ) -> NextCandidate:
        chosen = context.collections.default if collection is None else context.collections.get(collection)

        def search() -> NextCandidate:
            blind = blindness.holds_for(who)
            return NextCandidate(candidate_id=next_ungraded(chosen, store, _name(who), after, blind=blind))

        return await run(search)

    @routes.get("/agreement", summary="How far the graders agree: kappas with intervals, tables of every two")
    async def agreeing(who: Annotated[Viewer, Depends(viewer)]) -> Agreement:
        return await run(lambda: agreement(blindness.standing(who)))

    @routes.get(
        "/export",
        summary="The label table",
        response_class=Response,
        responses={200: {"content": {media_type: {} for media_type in MEDIA_TYPES.values()}}},
    )
    async def export(
        who: Annotated[Viewer, Depends(viewer)],
        format: Annotated[LabelFormat, Query(description="Of the file.")] = "ecsv",  # noqa: A002
        least_graders: Annotated[int, Query(ge=1, le=1000, description="Fewer leave a label unclear.")] = 1,
    ) -> Response:
        if blindness.holds_for(who):
            raise ForbiddenError("Blind grading: labels would tell what others said; ask for them with a reader's token.")

        def labels() -> bytes:
            return label_bytes(label_table(store.standing(), store.places(), least_graders), format)

        content = await run(labels)
        ending = next(ending for ending, known in ENDINGS.items() if known == format)
        disposition = f'attachment; filename="labels{ending}"'
        return Response(content, media_type=MEDIA_TYPES[format], headers={"Content-Disposition": disposition})

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


def _answered(function: Callable[..., Result], *args: object) -> Result:
    """Call a function; what the file of grades refuses becomes an answer that does not name it."""
    try:
        return function(*args)
    except UsageError as error:
        raise BadRequestError(str(error)) from None
    except UnavailableError as error:
        logger.warning("%s", error)
        raise BusyError("Others are writing grades; try again in a moment.", {"Retry-After": "2"}) from None
    except ScannerError as error:
        logger.error("%s", error)
        raise ServiceError(
            "The file of grades cannot be used; whoever runs this service finds the reason in its log."
        ) from None


def _name(who: Viewer) -> str:
    if who.name is None:
        raise BadRequestError("Say who you are first: PUT /api/v1/grades/me with a name.")
    return who.name


def _seen(collection: Collection) -> str:
    """What a grader sees: a collection and, of a survey, its version."""
    version = collection.published.version
    return collection.slug if version is None else f"{collection.slug} version {version}"
