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
from scanner.service.api.listing import MAX_CURSOR_LENGTH, Item, Order, Selection, SortColumn, items_of, page
from scanner.service.collections import LISTED, Collection
from scanner.service.context import Context
from scanner.service.errors import NotAllowedError
from scanner.service.routing import ERRORS, RunId, Slug, TargetId, TileId
from scanner.service.security.viewer import viewer

#: Formats that a list can be had in, and most rows of such a file.
TableFormat = Literal["csv", "votable", "fits", "ecsv", "ds9"]
MOST_ROWS = 100_000
#: A number that JSON and single precision have.
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e30, le=1e30)]


class ListQuery(Record):
    """Filters, order and page of a list."""

    sort: SortColumn | None = Field(None, description="Column that orders it; place: on the sky. Default: rank.")
    order: Order | None = Field(None, description="Default: the best first.")
    limit: int = Field(60, ge=1, le=1000, description="Rows of a page.")
    after: str | None = Field(None, max_length=MAX_CURSOR_LENGTH, description="'next' of the page before.")
    min_score: Number | None = Field(None, description="Least p_calibrated.")
    max_score: Number | None = Field(None, description="Largest p_calibrated.")
    min_magnitude: Number | None = Field(None, description="Brightest VIS magnitude.")
    max_magnitude: Number | None = Field(None, description="Faintest VIS magnitude.")
    flags: str | None = Field(None, max_length=10, description="any, none, or a sum of bits of which one must be set.")
    tile: str | None = Field(None, max_length=128, description="Only of this tile.")
    run: str | None = Field(None, max_length=300, description="Only of this run.")
    known: str = Field("any", pattern="^(any|yes|no)$", description="Whether a lens was known there before.")
    cone: str | None = Field(
        None, max_length=200, description="Position and radius, e.g. '150.1 2.2 30arcsec' or '10h00m24s +2d12m 1deg'."
    )
    name: str | None = Field(None, max_length=60, description="A part of the IAU style name.")
    min_rank: int | None = Field(None, ge=1, le=2**62, description="Only from this rank on.")
    systems: bool = Field(False, description="Only the best object of each system: none that lies within 8″ of a better one.")
    candidates: bool = Field(False, description="Only candidates: at or above the threshold.")
    objects: bool = Field(False, description="All objects of the catalogue, scored or not, not only the best by rank.")

    def selection(self, default: SortColumn) -> Selection:
        """The rows and their order."""
        wanted = self.model_dump(exclude={"sort", "limit", "after", "format"})
        return Selection(sort=self.sort or default, **wanted)


class TableQuery(ListQuery):
    """The same of a file: all rows at once, whatever ``limit`` and ``after`` say."""

    format: TableFormat = Field("csv", description="Of the file.")


class CandidatePage(Record):
    """A page of a list; ``next`` is null on the last page, ``total`` on all but the first."""

    items: list[Item]
    next: str | None
    total: int | None


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
        slug: Slug, wanted: Annotated[ListQuery, Query()], who: Annotated[Viewer, Depends(viewer)]
    ) -> CandidatePage:
        collection = context.collections.get(slug)
        selection = wanted.selection(_default_order(who))
        if any(blindness.hides_column(who, column) for column in selection.used):
            context.metrics.refused.labels("blind").inc()
            raise NotAllowedError("Blind grading: this order or filter would tell scores of what you have not graded.")
        found = await context.work.run(page, collection, selection, wanted.limit, wanted.after)
        items = await context.work.run(blindness.hide_scores, who, items_of(found.rows))
        return CandidatePage(items=items, next=found.next, total=found.total)

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
        selection = wanted.selection("rank")

        def written() -> bytes:
            # astropy's tables take a second to import, which a service that is being started should not wait for.
            from scanner.catalogue.export import TableHeading

            heading = TableHeading("objects", f"Objects of {collection.title}, in the order of the list")
            return FILE_FORMATS[wanted.format].write(page(collection, selection, MOST_ROWS, None).rows, heading)

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
        by = Selection(sort=_default_order(who))
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

    def _default_order(who: Viewer) -> SortColumn:
        return "place" if blindness.hides_column(who, "rank") else "rank"

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
