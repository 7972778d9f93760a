"""The addresses of the pages.

In: the names of a collection and a candidate. Out: pages that fetch what they show from the JSON API, so that what a viewer may
see is decided in one place. Refused: names that are not there (404).
"""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from scanner.errors import ScannerError
from scanner.report import explanations
from scanner.service.collections import CandidateId, Collection, UnknownCandidateError
from scanner.service.context import Context
from scanner.service.pages.rendering import assets, page
from scanner.service.pages.words import words
from scanner.service.security.viewer import viewer

#: Aladin Lite runs in a frame without an origin of its own: it may load from the CDS and from wherever images of the sky are,
#: and can read nothing of this service.
ALADIN_POLICY = "; ".join(
    (
        "sandbox allow-scripts",
        "default-src 'none'",
        "script-src 'self' https://aladin.cds.unistra.fr 'wasm-unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src * data: blob:",
        "connect-src * data: blob:",
        "font-src * data:",
        "worker-src blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
    )
)
#: The cone round a candidate whose VOTable is its row, in degrees: half an arcsecond.
ROW_RADIUS_DEG = 0.5 / 3600
#: Cells along one side of the t-SNE map by the number of candidates up to which they are so few.
MAP_BINS = ((1_000, 20), (20_000, 40), (2**63, 80))
_UNKNOWN = "There is no object of this id in this collection."
#: A page may be asked whether it is there.
READ = ["GET", "HEAD"]


def router(context: Context) -> APIRouter:
    """The routes."""
    routes = APIRouter(include_in_schema=False)
    registry = words()

    @routes.api_route("/", methods=READ)
    async def start(request: Request) -> Response:
        return page(request, "start", addresses=_addresses(context.base_url(request)))

    @routes.api_route("/c/{slug}/candidates", methods=READ)
    async def gallery(request: Request, slug: str) -> Response:
        return page(
            request,
            "gallery",
            collection=context.collections.get(slug),
            blind=_is_blind(request),
            words=registry.model_dump(),
            members=registry.members,
            flags=registry.flags,
        )

    @routes.api_route("/c/{slug}/candidates/{run}/{tile}/{target}", methods=READ)
    async def candidate(request: Request, slug: str, run: str, tile: str, target: str) -> Response:
        collection = context.collections.get(slug)
        wanted = CandidateId.parse(f"{run}/{tile}/{target}")
        if wanted is None:
            raise UnknownCandidateError(_UNKNOWN)
        name, ra, dec = await context.run(_found, collection, wanted)
        blind = _is_blind(request)
        explained = not blind and await context.run(_is_explained, collection, wanted)
        return page(
            request,
            "candidate",
            collection=collection,
            candidate_id=str(wanted),
            name=name,
            blind=blind,
            explained=explained,
            file_name=re.sub(r"[^A-Za-z0-9.+-]", "_", name),
            cone={"RA": f"{ra:.7f}", "DEC": f"{dec:.7f}", "SR": f"{ROW_RADIUS_DEG:.7f}", "VERB": 3},
            map_bins=next(bins for most, bins in MAP_BINS if collection.n_candidates <= most),
            words=registry.model_dump(),
        )

    @routes.api_route("/c/{slug}/tiles", methods=READ)
    async def tiles(request: Request, slug: str) -> Response:
        return page(request, "tiles", collection=context.collections.get(slug), blind=_is_blind(request))

    @routes.api_route("/login", methods=READ)
    async def login(request: Request, place: Annotated[str, Query(alias="next", max_length=2000)] = "/") -> Response:
        return page(request, "login", next=place, sentence="")

    @routes.api_route("/aladin", methods=READ)
    async def aladin(request: Request) -> Response:
        answer = page(request, "aladin")
        answer.headers.update({"Content-Security-Policy": ALADIN_POLICY, "X-Frame-Options": "SAMEORIGIN"})
        return answer

    @routes.api_route("/static/{fingerprint}/{name}", methods=READ)
    async def static(fingerprint: str, name: str) -> Response:
        return assets().answer(fingerprint, name)

    @routes.api_route("/favicon.ico", methods=READ)
    async def favicon() -> Response:
        return assets().answer("", "icon.svg")

    def _is_blind(request: Request) -> bool:
        """Whether scores are withheld from whoever asks: then the pages have no place for what only tells of scores."""
        return context.blindness.holds_for(viewer(request))

    return routes


def _found(collection: Collection, wanted: CandidateId) -> tuple[str, float, float]:
    """Name and position of an object; blocks."""
    row = collection.row(wanted)
    if row is None:
        raise UnknownCandidateError(_UNKNOWN)
    return row["name"][0].as_py(), row["ra"][0].as_py(), row["dec"][0].as_py()


def _is_explained(collection: Collection, wanted: CandidateId) -> bool:
    """Whether there is a picture of what the networks looked at; blocks. Where that cannot be told, there is none to show."""
    folder = collection.published.run_folders.get(wanted.run)
    try:
        return folder is not None and explanations.read(folder.store, wanted.tile_id, wanted.target_id) is not None
    except ScannerError:
        return False


def _addresses(base: str) -> tuple[tuple[str, str, str], ...]:
    """Name, address and meaning of what other programs ask."""
    return (
        ("TAP", f"{base}/tap", "ADQL, synchronous and asynchronous: TOPCAT, pyvo, astroquery"),
        ("Cone search", f"{base}/scs", "positions: TOPCAT, Aladin, pyvo"),
        ("Footprint", f"{base}/moc", "the scanned sky as a MOC: Aladin, mocpy"),
        ("JSON", f"{base}/openapi.json", "the API of these pages, as OpenAPI"),
    )
