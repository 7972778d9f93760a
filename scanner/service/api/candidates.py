"""Which collections there are and what they hold: lists of the best objects, a page at a time, and single objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import astropy.units as u
import numpy as np
import pyarrow as pa
from astropy_healpix import healpix_to_lonlat
from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field
from starlette.requests import Request

from scanner.catalogue.columns import BEST_OF_EQUALS, FLAG_WORDS
from scanner.cutouts.framed import read_cutout
from scanner.errors import ContentError
from scanner.grading.grade import Viewer
from scanner.grading.similar import basis_if_any, objects_like
from scanner.query.catalogue import CANDIDATE_ID_SQL
from scanner.query.formats import FILE_FORMATS
from scanner.records import Flag, Float32, Int64, Record
from scanner.report.contact_sheet import links, sexagesimal
from scanner.service.api.listing import (
    MAX_CURSOR_LENGTH,
    MOST_GRADED,
    SCORES,
    ByGrader,
    Item,
    ListQuery,
    Neighbour,
    Selection,
    Similar,
    TileItem,
    by_grader,
    items_of,
    number,
    page,
)
from scanner.service.collections import LISTED, NO_FEATURES, Collection
from scanner.service.context import ERRORS, Bins, Context, RunId, Slug, TargetId, TileId
from scanner.service.errors import BadRequestError, NotAllowedError, NotFoundError
from scanner.service.security import viewer
from scanner.sphere import HEALPIX_ORDER, unit_vectors

if TYPE_CHECKING:
    HistogramColumn = str
else:
    HistogramColumn = Literal[("magnitude_vis", *SCORES)]

#: Cells of 52": finer ones would be single objects.
FINEST_ORDER = 12
#: Where the logarithm of a probability begins.
LEAST_PROBABILITY = 1e-6
_FINITE = "isfinite(tsne_x) AND isfinite(tsne_y)"


class SkyPosition(Record):
    """Degrees, ICRS."""

    ra: float
    dec: float


class CollectionSummary(Record):
    """One collection.

    ``version`` is a survey's, null for a run. ``n_listed``: objects that lists show, the best by rank and all
    candidates. ``area_deg2``: sky with good VIS pixels, counted once. ``center`` and
    ``radius_deg``: a circle round all of them, null where no tile is done.
    """

    slug: str
    title: str
    version: int | None
    runs: list[str]
    bundles: list[str]
    n_objects: int
    n_listed: int
    n_candidates: int
    n_tiles: int
    n_failed: int
    area_deg2: float
    center: SkyPosition | None
    radius_deg: float | None


class CollectionList(Record):
    """All of them, the default one first."""

    collections: list[CollectionSummary]


class TilePage(Record):
    """Tiles by run and id; ``next`` is null on the last page."""

    items: list[TileItem]
    next: int | None


class SkyCell(Record):
    """A HEALPix cell's centre in degrees, and the listed objects in it."""

    ra: float
    dec: float
    n: int


class SkyDensity(Record):
    """All cells that hold listed objects; ``order`` of the HEALPix grid: cells have sides of 58.6° / 2^order."""

    order: int
    cells: list[SkyCell]


class NeighbourList(Record):
    """Listed objects, the nearest on the map first; ``distance`` is in its units."""

    items: list[Neighbour]


class EmbeddingMap(Record):
    """Listed objects on a grid of ``n_x`` by ``n_y`` cells, x fastest; ``grid_value``: a cell's mean, null in an empty one."""

    x_min: float
    x_max: float
    y_min: float
    y_max: float
    n_x: int
    n_y: int
    counts: list[int]
    grid_value: list[float | None]


class Histogram(Record):
    """``edges`` (bins + 1), ascending; what lies outside is counted in the bin at that end, what is not known in none.

    ``objects``, ``candidates``: how many in each bin; ``candidate_sum``: the sum of the candidates' values.
    """

    edges: list[float]
    objects: list[int]
    candidates: list[int]
    candidate_sum: list[float]


def collections_router(context: Context) -> APIRouter:
    """The routes of collections as a whole."""
    routes = APIRouter(prefix="/api/v1/collections", responses=ERRORS)

    @routes.get("", tags=["collections"], summary="All collections, the default one first")
    async def collections() -> CollectionList:
        return await context.work.run(lambda: CollectionList(collections=[_summary(one) for one in context.collections]))

    @routes.get("/{slug}", tags=["collections"], summary="One collection")
    async def collection(slug: Slug) -> CollectionSummary:
        return await context.work.run(_summary, context.collections.get(slug))

    @routes.get("/{slug}/tiles", tags=["sky"], summary="Tiles: where they are, what came of them, why some failed")
    async def tiles(
        slug: Slug,
        limit: Annotated[int, Query(ge=1, le=20_000, description="Tiles of a page")] = 10_000,
        after: Annotated[int, Query(ge=0, le=2**40, description="'next' of the page before")] = 0,
    ) -> TilePage:
        rows = context.collections.get(slug).tiles
        items = await context.work.run(lambda: items_of(rows.slice(after, limit)))
        return TilePage(items=items, next=after + limit if after + limit < len(rows) else None)

    @routes.get("/{slug}/sky", tags=["sky"], summary="Listed objects counted in cells of the sky")
    async def sky(
        slug: Slug,
        max_cells: Annotated[int, Query(ge=12, le=20_000, description="The finest grid with no more cells is taken")] = 4000,
    ) -> SkyDensity:
        return await context.work.run(_density, context.collections.get(slug), max_cells)

    @routes.get(
        "/{slug}/candidates/{run}/{tile_id}/{target_id}/neighbours",
        tags=["embedding"],
        summary="The nearest of the listed objects on the t-SNE map",
    )
    async def neighbours(
        slug: Slug,
        run: RunId,
        tile_id: TileId,
        target_id: TargetId,
        who: Annotated[Viewer, Depends(viewer)],
        limit: Annotated[int, Query(ge=1, le=200, description="How many")] = 24,
    ) -> NeighbourList:
        collection = context.collections.get(slug)
        items = await context.work.run(_neighbours, collection, f"{run}/{tile_id}/{target_id}", limit)
        return NeighbourList(items=await context.work.run(context.blindness.hide_scores, who, items))

    @routes.get("/{slug}/tsne", tags=["embedding"], summary="Listed objects on the t-SNE map, counted in cells")
    async def tsne(slug: Slug, bins: Bins = 80) -> EmbeddingMap:
        return await context.work.run(_map, context.collections.get(slug), bins)

    @routes.get("/{slug}/histogram", tags=["statistics"], summary="Histogram of a column, of all objects and of candidates")
    async def histogram(
        slug: Slug,
        column: Annotated[HistogramColumn, Query(description="Column")] = "p_calibrated",
        bins: Bins = 50,
        scale: Annotated[Literal["linear", "log"], Query(description="Of the edges; log for probabilities only")] = "linear",
    ) -> Histogram:
        collection = context.collections.get(slug)
        return await context.work.run(_histogram, collection, column, bins, scale == "log" and column != "magnitude_vis")

    return routes


def _summary(collection: Collection) -> CollectionSummary:
    center, radius = _circle(collection)
    states = collection.tiles["state"].to_pylist()
    return CollectionSummary(
        slug=collection.slug,
        title=collection.title,
        version=collection.published.version,
        runs=sorted(collection.published.run_folders),
        bundles=list(collection.published.bundles),
        n_objects=collection.catalogue.n_rows,
        n_listed=collection.n_listed,
        n_candidates=collection.n_candidates,
        n_tiles=len(states),
        n_failed=states.count("failed"),
        area_deg2=round(collection.published.sky_area_deg2, 6),
        center=center,
        radius_deg=radius,
    )


def _circle(collection: Collection) -> tuple[SkyPosition | None, float | None]:
    """A circle round all tiles: their centres, and half a tile's diagonal beyond."""
    ra, dec, area = (collection.tiles[name].to_numpy() for name in ("ra", "dec", "sky_area_deg2"))
    known = np.isfinite(ra)
    if not known.any():
        return None, None
    directions = unit_vectors(ra[known], dec[known])
    x, y, z = middle = directions.mean(axis=0)
    center = SkyPosition(
        ra=round(float(np.degrees(np.arctan2(y, x)) % 360.0), 6), dec=round(float(np.degrees(np.arctan2(z, np.hypot(x, y)))), 6)
    )
    cosines = np.clip(directions @ (middle / max(float(np.linalg.norm(middle)), 1e-12)), -1, 1)
    reach = np.degrees(np.arccos(cosines)) + np.sqrt(area[known] / 2)
    return center, round(min(float(reach.max()), 180.0), 4)


def _density(collection: Collection, max_cells: int) -> SkyDensity:
    counted = collection.database.query(
        f"SELECT _healpix_29 >> ? AS pixel, count(*) AS n FROM {LISTED} GROUP BY pixel ORDER BY pixel",
        (2 * (HEALPIX_ORDER - FINEST_ORDER),),
    )
    pixels: Int64 = np.asarray(counted["pixel"].to_numpy(), dtype=np.int64)
    counts: Int64 = np.asarray(counted["n"].to_numpy(), dtype=np.int64)
    order = FINEST_ORDER
    while len(pixels) > max_cells:
        order -= 1
        pixels, first = np.unique(pixels >> 2, return_index=True)
        counts = np.add.reduceat(counts, first)
    ra, dec = healpix_to_lonlat(pixels, 2**order, order="nested")
    centres = zip(ra.to_value(u.deg), dec.to_value(u.deg), counts, strict=True)
    return SkyDensity(order=order, cells=[SkyCell(ra=round(x, 5), dec=round(y, 5), n=int(n)) for x, y, n in centres])


def _neighbours(collection: Collection, candidate_id: str, limit: int) -> list[dict[str, Any]]:
    (centre,) = collection.find(candidate_id).select(["tsne_x", "tsne_y", "rank"]).to_pylist()
    rows = collection.database.query(
        f"SELECT *, sqrt(pow(tsne_x::DOUBLE - ?, 2) + pow(tsne_y::DOUBLE - ?, 2)) AS distance FROM {LISTED} "
        f"WHERE {_FINITE} AND isfinite(?::DOUBLE) AND isfinite(?::DOUBLE) AND rank <> ? "
        f"ORDER BY distance, {', '.join(BEST_OF_EQUALS)} LIMIT ?",
        (*[centre["tsne_x"], centre["tsne_y"]] * 2, centre["rank"], limit),
    )
    return items_of(rows)


def _map(collection: Collection, bins: int) -> EmbeddingMap:
    (box,) = collection.database.query(
        f"SELECT min(tsne_x)::DOUBLE AS x_min, max(tsne_x)::DOUBLE AS x_max, min(tsne_y)::DOUBLE AS y_min, "
        f"max(tsne_y)::DOUBLE AS y_max FROM {LISTED} WHERE {_FINITE}"
    ).to_pylist()
    if box["x_min"] is None:
        return EmbeddingMap(x_min=0, x_max=0, y_min=0, y_max=0, n_x=0, n_y=0, counts=[], grid_value=[])
    x_step, y_step = ((box[f"{axis}_max"] - box[f"{axis}_min"]) / bins or 1.0 for axis in "xy")
    cells = collection.database.query(
        f"SELECT least(floor((tsne_y - ?) / ?), ?)::BIGINT * ? + least(floor((tsne_x - ?) / ?), ?)::BIGINT AS cell, "
        f"count(*) AS n, avg(grid_value) FILTER (isfinite(grid_value)) AS value "
        f"FROM {LISTED} WHERE {_FINITE} GROUP BY cell",
        (box["y_min"], y_step, bins - 1, bins, box["x_min"], x_step, bins - 1),
    )
    counts: list[int] = [0] * (bins * bins)
    values: list[float | None] = [None] * (bins * bins)
    for cell, n, value in zip(*(cells[name].to_pylist() for name in ("cell", "n", "value")), strict=True):
        counts[cell], values[cell] = n, value
    return EmbeddingMap(**box, n_x=bins, n_y=bins, counts=counts, grid_value=values)


def _histogram(collection: Collection, column: HistogramColumn, bins: int, logarithmic: bool) -> Histogram:
    source = collection.catalogue.source(columns=(column, "is_candidate")).relation
    low, high = (LEAST_PROBABILITY if logarithmic else 0.0), 1.0
    if column == "magnitude_vis":
        (box,) = collection.database.query(
            f"SELECT min({column})::DOUBLE AS low, max({column})::DOUBLE AS high FROM {source.sql} WHERE isfinite({column})",
            source.parameters,
        ).to_pylist()
        if box["low"] is not None:
            low, high = float(np.floor(box["low"])), float(np.floor(box["high"]) + 1)
    edges = np.geomspace(low, high, bins + 1) if logarithmic else np.linspace(low, high, bins + 1)
    value = f"ln(greatest({column}::DOUBLE, ?)) - ln(?)" if logarithmic else f"greatest({column}::DOUBLE, ?) - ?"
    width = (np.log(high / low) if logarithmic else high - low) / bins
    counted = collection.database.query(
        f"SELECT least(floor(({value}) / ?), ?)::BIGINT AS bin, count(*) AS objects, "
        f"count(*) FILTER (is_candidate) AS candidates, coalesce(sum({column}::DOUBLE) FILTER (is_candidate), 0) AS total "
        f"FROM {source.sql} WHERE isfinite({column}) GROUP BY bin ORDER BY bin",
        (low, low, width, bins - 1, *source.parameters),
    )
    objects, candidates, total = [0] * bins, [0] * bins, [0.0] * bins
    for row in counted.to_pylist():
        place = row["bin"]
        objects[place], candidates[place], total[place] = row["objects"], row["candidates"], row["total"]
    return Histogram(edges=edges.tolist(), objects=objects, candidates=candidates, candidate_sum=total)


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

    ``graded``: how many of all of them the viewer has graded; null where they have no name, or the lists are too long to tell.
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
    """The routes of their objects."""
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
        """What the viewer has graded, where the request asks for it or the answer needs it."""
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
