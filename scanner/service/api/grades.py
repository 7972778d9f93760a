"""Grades over HTTP: to read, give and take back; the next candidate to grade; agreement; label tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from shlex import quote
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from scanner.grading.agreement import Agreement, agreement
from scanner.grading.grade import Entry, Grade, NewGrade, Place, Tag, Viewer, grader_name
from scanner.grading.labels import FEWEST, FEWEST_JUDGES, LABEL_FORMATS, LabelFormat, label_bytes, label_rows, label_table
from scanner.query.formats import FILE_FORMATS
from scanner.records import Record
from scanner.service.api.listing import MOST_GRADED, ListQuery, by_grader, following
from scanner.service.collections import Collection
from scanner.service.context import Context
from scanner.service.errors import BadRequestError, NotAllowedError, Result, of_grades
from scanner.service.routing import ERRORS, RunId, TargetId, TileId
from scanner.service.security.viewer import NAME_COOKIE, grader, viewer

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
