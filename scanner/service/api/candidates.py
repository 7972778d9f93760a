"""Lists of the best objects, a page at a time, and single objects with what their pages show."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import pyarrow as pa
from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field

from scanner.catalogue.columns import FLAG_WORDS
from scanner.grading.grade import Viewer
from scanner.query.formats import FILE_FORMATS
from scanner.query.search import CANDIDATE_ID_SQL
from scanner.records import Flag, Record
from scanner.report.card import links, sexagesimal
from scanner.service.api.listing import (
    MAX_CURSOR_LENGTH,
    MOST_GRADED,
    ByGrader,
    Item,
    ListQuery,
    Selection,
    by_grader,
    items_of,
    page,
)
from scanner.service.collections import LISTED, Collection
from scanner.service.context import Context
from scanner.service.errors import BadRequestError, NotAllowedError
from scanner.service.routing import ERRORS, RunId, Slug, TargetId, TileId
from scanner.service.security.viewer import viewer

#: Formats that a list can be had in, and most rows of such a file.
TableFormat = Literal["csv", "votable", "fits", "ecsv", "ds9"]
MOST_ROWS = 100_000


class PageQuery(ListQuery):
    """A page of a list."""

    limit: int = Field(60, ge=1, le=1000, description="Rows of a page.")
    after: str | None = Field(None, max_length=MAX_CURSOR_LENGTH, description="'next' of the page before.")


class TableQuery(ListQuery):
    """A list as a file: all its rows."""

    format: TableFormat = Field("csv", description="Of the file.")


class CandidatePage(Record):
    """A page of a list; ``next`` is null on the last page, ``total`` and ``graded`` on all but the first.

    ``graded``: how many of them all whoever asks has graded; null where they have no name, or the lists are too long to tell.
    """

    items: list[Item]
    next: str | None
    total: int | None
    graded: int | None


class Link(Record):
    """A public sky viewer, centred on an object."""

    name: str
    href: str


class FlagWord(Record):
    """A flag in a word and in a sentence."""

    word: str
    explanation: str


class PositionText(Record):
    """A position as people read it."""

    ra_text: str
    dec_text: str


class CandidateDetail(Record):
    """One object; ``previous`` and ``next`` are the ids of the objects before and after it in the list, null at its ends."""

    id: str
    row: Item
    position: PositionText
    links: list[Link]
    flags: list[FlagWord]
    previous: str | None
    next: str | None


def router(context: Context) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/api/v1/collections", tags=["candidates"], responses=ERRORS)
    blindness = context.blindness

    @routes.get("/{slug}/candidates", summary="The best objects, filtered and ordered, a page at a time")
    async def candidates(
        slug: Slug, wanted: Annotated[PageQuery, Query()], who: Annotated[Viewer, Depends(viewer)]
    ) -> CandidatePage:
        collection = context.collections.get(slug)
        try:
            selection = wanted.selection(blindness, who)
        except NotAllowedError:
            context.metrics.refused.labels("blind").inc()
            raise

        def listed() -> CandidatePage:
            found = page(collection, selection, wanted.limit, wanted.after, graded_by(collection, who, wanted))
            items = blindness.hide_scores(who, items_of(found.rows))
            return CandidatePage(items=items, next=found.next, total=found.total, graded=found.graded)

        return await context.work.run(listed)

    @routes.get(
        "/{slug}/table",
        summary="The list as a file",
        response_class=Response,
        responses={200: {"content": {FILE_FORMATS[name].media_type: {} for name in get_args(TableFormat)}}},
    )
    async def table(slug: Slug, wanted: Annotated[TableQuery, Query()], who: Annotated[Viewer, Depends(viewer)]) -> Response:
        if blindness.holds_for(who):
            raise NotAllowedError("Blind grading: a table of the list would tell scores of what you have not graded.")
        collection = context.collections.get(slug)
        selection = wanted.selection(blindness, who)

        def written() -> bytes:
            # astropy's tables take a second to import, which a service that is being started should not wait for.
            from scanner.catalogue.export import TableHeading

            heading = TableHeading("objects", f"Objects of {collection.title}, in the order of the list")
            rows = page(collection, selection, MOST_ROWS, None, graded_by(collection, who, wanted)).rows
            return FILE_FORMATS[wanted.format].write(rows, heading)

        content = await context.work.run(written)
        file = f"{slug}{FILE_FORMATS[wanted.format].suffixes[0]}"
        headers = {"Content-Disposition": f'attachment; filename="{file}"'}
        return Response(content, media_type=FILE_FORMATS[wanted.format].media_type, headers=headers)

    @routes.get("/{slug}/candidates/{run}/{tile_id}/{target_id}", summary="One object, candidate or not")
    async def candidate(
        slug: Slug, run: RunId, tile_id: TileId, target_id: TargetId, who: Annotated[Viewer, Depends(viewer)]
    ) -> CandidateDetail:
        collection = context.collections.get(slug)
        return await context.work.run(detail, collection, f"{run}/{tile_id}/{target_id}", who)

    def detail(collection: Collection, candidate_id: str, who: Viewer) -> CandidateDetail:
        row = collection.find(candidate_id)
        item = blindness.hide_scores(who, items_of(row))[0]
        ra_text, dec_text = sexagesimal(item["ra"], item["dec"])
        by = ListQuery().selection(blindness, who)
        set_bits = Flag(item["flags"] or 0)
        return CandidateDetail(
            id=item["id"],
            row=item,
            position=PositionText(ra_text=ra_text, dec_text=dec_text),
            links=[Link(name=name, href=href) for name, href in links(item["ra"], item["dec"])],
            flags=[FlagWord(word=word, explanation=text) for flag, (word, text) in FLAG_WORDS.items() if flag in set_bits],
            previous=_beside(collection, row, by, "<", "DESC"),
            next=_beside(collection, row, by, ">", "ASC"),
        )

    def graded_by(collection: Collection, who: Viewer, wanted: ListQuery) -> ByGrader | None:
        """What the viewer has graded, where that is asked for or has to be told."""
        if who.name is None:
            return ByGrader(wanted=wanted.graded) if wanted.graded != "any" else None
        mine = by_grader(collection, context.grades, who.name, wanted.graded)
        if mine is None and wanted.graded != "any":
            raise BadRequestError(f"graded: lists of more than {MOST_GRADED:,} objects cannot be asked for this.")
        return mine

    return routes


def _beside(collection: Collection, row: pa.Table, by: Selection, side: str, direction: str) -> str | None:
    """Id of the object next to a row in an order."""
    names = by.column, *by.ties
    (values,) = row.select(names).to_pylist()
    beyond = f"({', '.join(names)}) {side} ({', '.join('?' * len(names))})"
    order = ", ".join(f"{name} {direction}" for name in names)
    sql = f"SELECT {CANDIDATE_ID_SQL} AS id FROM {LISTED} WHERE {beyond} ORDER BY {order} LIMIT 1"
    found: list[str] = collection.database.query(sql, tuple(values.values()))["id"].to_pylist()
    return found[0] if found else None
