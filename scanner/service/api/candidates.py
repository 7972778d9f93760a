"""Lists of the best objects, a page at a time, and single objects with what their pages show."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import numpy as np
import pyarrow as pa
from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field
from starlette.requests import Request

from scanner.catalogue.columns import FLAG_WORDS
from scanner.cutouts.framed import read_cutout
from scanner.errors import ContentError
from scanner.grading.grade import Viewer
from scanner.grading.similar import basis_if_any, objects_like
from scanner.query.catalogue import CANDIDATE_ID_SQL
from scanner.query.formats import FILE_FORMATS
from scanner.records import Flag, Float32, Record
from scanner.report.card import links, sexagesimal
from scanner.service.api.listing import (
    MAX_CURSOR_LENGTH,
    MOST_GRADED,
    ByGrader,
    Item,
    ListQuery,
    Selection,
    Similar,
    by_grader,
    items_of,
    number,
    page,
)
from scanner.service.collections import LISTED, NO_FEATURES, Collection
from scanner.service.context import ERRORS, Context, RunId, Slug, TargetId, TileId
from scanner.service.errors import BadRequestError, NotAllowedError, NotFoundError
from scanner.service.security import viewer

#: Formats that a list can be had in, and most rows of such a file.
TableFormat = Literal["csv", "votable", "fits", "ecsv", "ds9"]
MovedOrder = Literal["most", "up", "down", "rank"]
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


class SimilarList(Record):
    """Objects of a run, the most like first."""

    items: list[Similar]


class Moved(Record):
    """An object among the best before a run was scored again, or after: rank 0 and no probability where it was not among them.

    ``id``: null where the catalogue has no object of this name any more.
    """

    id: str | None
    name: str
    ra: float
    dec: float
    rank_before: int
    rank_after: int
    p_before: float | None
    p_after: float | None
    candidate_before: bool
    candidate_after: bool


class MovedPage(Record):
    """Who moved between two bundles, ``before`` and ``after``, as name and version; ``next``: null on the last page."""

    before: str
    after: str
    total: int
    items: list[Moved]
    next: int | None


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

    @routes.get("/{slug}/candidates/{run}/{tile_id}/{target_id}/similar", summary="The objects of the run most like one")
    async def similar(
        slug: Slug,
        run: RunId,
        tile_id: TileId,
        target_id: TargetId,
        who: Annotated[Viewer, Depends(viewer)],
        limit: Annotated[int, Query(ge=1, le=200, description="How many")] = 24,
    ) -> SimilarList:
        collection = context.collections.get(slug)

        def found() -> SimilarList:
            row = collection.features.row_of(tile_id, int(target_id))
            if row is None:
                raise NotFoundError("The cutout of this object is not stored, so it has no features.")
            items = like(collection, collection.features.values[row].astype(np.float32), limit + 1, who)
            return SimilarList(items=[item for item in items if item["id"] != f"{run}/{tile_id}/{target_id}"][:limit])

        return await context.work.run(found)

    @routes.post(
        "/{slug}/similar",
        summary="The objects of a run most like a cutout of any origin, as FITS",
        openapi_extra={
            "requestBody": {
                "required": True,
                "description": "Extensions VIS (200 x 200 pixels of 0.1 arcsec) and Y, J, H (66 x 66 of 0.3 arcsec)",
                "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            }
        },
    )
    async def similar_to(
        slug: Slug,
        request: Request,
        who: Annotated[Viewer, Depends(viewer)],
        limit: Annotated[int, Query(ge=1, le=200, description="How many")] = 24,
    ) -> SimilarList:
        collection, content = context.collections.get(slug), await request.body()

        def found() -> SimilarList:
            basis = basis_if_any(collection.published)
            if basis is None:
                raise NotFoundError(NO_FEATURES)
            try:
                cutout = read_cutout(content, "The file")
            except ContentError as error:
                raise BadRequestError(str(error)) from None
            return SimilarList(items=like(collection, basis.vector_of(cutout), limit, who))

        return await context.work.run(found)

    def like(collection: Collection, vector: Float32, n: int, who: Viewer) -> list[dict[str, Any]]:
        objects = collection.catalogue.source().relation
        rows = objects_like(collection.features, vector, n, objects, collection.database.query)
        return blindness.hide_scores(who, items_of(rows))

    @routes.get("/{slug}/moved", summary="Who moved when the run was scored again")
    async def moved(
        slug: Slug,
        order: Annotated[
            MovedOrder, Query(description="The farthest first, by the ratio of ranks; or those of one way")
        ] = "most",
        limit: Annotated[int, Query(ge=1, le=1000, description="Rows of a page")] = 50,
        after: Annotated[int, Query(ge=0, le=2**40, description="'next' of the page before")] = 0,
    ) -> MovedPage:
        return await context.work.run(_moved, context.collections.get(slug), order, limit, after)

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


def _moved(collection: Collection, order: MovedOrder, limit: int, after: int) -> MovedPage:
    table = collection.moved
    before, now = (np.asarray(table[f"rank_{name}"], dtype=np.float64) for name in ("before", "after"))
    # Who is not among the best that were compared stands behind them.
    last = max(before.max(initial=0.0), now.max(initial=0.0)) + 1.0
    risen = np.log(np.where(before > 0.0, before, last) / np.where(now > 0.0, now, last))
    by = {"most": -np.abs(risen), "up": -risen, "down": risen, "rank": np.where(now > 0.0, now, last + before)}[order]
    wanted = {"up": risen > 0.0, "down": risen < 0.0}.get(order, np.ones(len(table), dtype=np.bool_))
    rows = np.lexsort((before, now, by))
    rows = rows[wanted[rows]]
    shown = table[rows[after : after + limit]]
    names = ", ".join("?" * len(shown)) or "NULL"
    objects = collection.catalogue.source().relation
    sql = f"SELECT name, {CANDIDATE_ID_SQL} AS id FROM {objects.sql} WHERE name IN ({names}) ORDER BY rank DESC"
    found = collection.database.query(sql, (*objects.parameters, *map(str, shown["name"])))
    ids = dict(zip(found["name"].to_pylist(), found["id"].to_pylist(), strict=True))
    items = [
        Moved(
            id=ids.get(str(row["name"])),
            name=str(row["name"]),
            ra=float(row["ra"]),
            dec=float(row["dec"]),
            rank_before=int(row["rank_before"]),
            rank_after=int(row["rank_after"]),
            p_before=number(float(row["p_before"])),
            p_after=number(float(row["p_after"])),
            candidate_before=bool(row["candidate_before"]),
            candidate_after=bool(row["candidate_after"]),
        )
        for row in shown
    ]
    next_ = after + limit if after + limit < len(rows) else None
    said = (str(table.meta.get(name, "")) for name in ("before", "after"))
    return MovedPage(before=next(said), after=next(said), total=len(rows), items=items, next=next_)


def _beside(collection: Collection, row: pa.Table, by: Selection, side: str, direction: str) -> str | None:
    """Id of the object next to a row in an order."""
    names = by.column, *by.ties
    (values,) = row.select(names).to_pylist()
    beyond = f"({', '.join(names)}) {side} ({', '.join('?' * len(names))})"
    order = ", ".join(f"{name} {direction}" for name in names)
    sql = f"SELECT {CANDIDATE_ID_SQL} AS id FROM {LISTED} WHERE {beyond} ORDER BY {order} LIMIT 1"
    found: list[str] = collection.database.query(sql, tuple(values.values()))["id"].to_pylist()
    return found[0] if found else None
