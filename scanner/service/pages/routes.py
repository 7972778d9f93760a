"""The pages: their addresses, templates, style sheets and scripts, and how a browser logs in; they fetch from the JSON API."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from importlib import resources
from pathlib import PurePath
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Form, Query, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse, Response

from scanner import __version__
from scanner.catalogue.columns import FLAG_WORDS, MEMBER_COLUMNS, further_column, further_of
from scanner.errors import ScannerError, UsageError
from scanner.grading.grade import MEANINGS, TAGS, Viewer
from scanner.grading.queue import DEFAULT_MIX, REASONS
from scanner.grading.similar import has_features
from scanner.modelling.lens_model import Verdict
from scanner.query.catalogue import CandidateId
from scanner.records import Record
from scanner.report import explanations
from scanner.report.contact_sheet import member_kind, member_title
from scanner.service.collections import NOT_RESCORED, Collection
from scanner.service.context import Context
from scanner.service.errors import NotFoundError, UnknownViewerError, of_grades
from scanner.service.security import ALADIN_POLICY, RECOVERY_POLICY, TOKEN_COOKIE, viewer

ASSET_MEDIA_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
#: An address with the fingerprint of all files never changes its meaning.
FOREVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class Assets:
    """The files by name, and a ``fingerprint`` of them all: modules import one another, so they change together."""

    files: dict[str, bytes]
    fingerprint: str

    @classmethod
    def load(cls) -> Assets:
        """Read the package's own files."""
        found = sorted(resources.files(__package__).joinpath("static").iterdir(), key=lambda file: file.name)
        files = {file.name: file.read_bytes() for file in found if PurePath(file.name).suffix in ASSET_MEDIA_TYPES}
        digest = hashlib.sha256()
        for name, content in files.items():
            digest.update(f"{name} {len(content)}\n".encode() + content)
        return cls(files, digest.hexdigest()[:12])

    def address(self, root: str, name: str) -> str:
        """Where a file is served, below the service's root path.

        Raises
        ------
        KeyError
            There is no such file.
        """
        if name not in self.files:
            raise KeyError(name)
        return f"{root}/static/{self.fingerprint}/{name}"

    def answer(self, fingerprint: str, name: str) -> Response:
        """One file; it may be kept for ever only where the address is of this very state.

        Raises
        ------
        NotFoundError
            There is no such file.
        """
        if name not in self.files:
            raise NotFoundError("There is nothing at this address.")
        kept = FOREVER if fingerprint == self.fingerprint else "no-cache"
        return Response(self.files[name], media_type=ASSET_MEDIA_TYPES[PurePath(name).suffix], headers={"Cache-Control": kept})


assets = cache(Assets.load)

#: What a heading says of a status that people meet.
HEADINGS = {
    400: "This cannot be asked",
    401: "A token is needed",
    403: "Not for you",
    404: "Nothing here",
    408: "It took too long",
    429: "Too fast",
    503: "Busy",
}


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("scanner.service.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page(request: Request, template: str, *, status: int = 200, **shown: Any) -> Response:
    """Render one page.

    Parameters
    ----------
    request
        Tells the root that links begin with, and who looks.
    template
        Its name without ``.html.jinja``.
    status
        HTTP status of the answer.
    **shown
        What the template shows besides.
    """
    root = str(request.scope.get("root_path", "")).rstrip("/")
    viewer = request.scope.get("state", {}).get("viewer")
    common = {
        "root": root,
        "static": lambda name: assets().address(root, name),
        "version": __version__,
        "page": template,
        "viewer": viewer.name if isinstance(viewer, Viewer) and viewer.is_named_by_token else None,
        "collection": None,
        "candidate_id": None,
    }
    text = _environment().get_template(f"{template}.html.jinja").render(common | shown)
    return HTMLResponse(text, status)


def message(request: Request, status: int, sentence: str, request_id: str) -> Response:
    """The page in place of one that cannot be shown: the form of errors for people."""
    heading = HEADINGS.get(status, HTTPStatus(status).phrase)
    if status == HTTPStatus.UNAUTHORIZED:
        return page(request, "login", status=status, next="/", sentence=sentence)
    return page(request, "message", status=status, heading=heading, sentence=sentence, request_id=request_id)


#: The cone round a candidate whose VOTable is its row, in degrees: half an arcsecond.
ROW_RADIUS_DEG = 0.5 / 3600
#: Cells along one side of the t-SNE map by the number of listed objects up to which they are so few.
MAP_BINS = ((1_000, 20), (20_000, 40), (2**63, 80))
#: A page may be asked whether it is there.
READ = ["GET", "HEAD"]
#: A place on this server; two slashes, or a backslash, would lead to another one.
_HERE = re.compile(r"/(?![/\\])[^\x00-\x20\\]*")
#: How long a browser keeps the cookie, in seconds.
TOKEN_COOKIE_S = 30 * 24 * 3600


class MemberWords(Record):
    """One member: the ``column`` of its probability, its ``name``, what it sees (``title``), its colour (``kind``)."""

    column: str
    name: str
    title: str
    kind: str


class FlagWords(Record):
    """One flag: its ``bit``, a word, a sentence."""

    bit: int
    word: str
    explanation: str


class Words(Record):
    """All of them, and what a rank and a probability are beside.

    ``n_objects``: that are ranked. ``last_candidate_rank``: 0 where there is no candidate. ``sky_prevalence``: by run id, the
    share of lenses that probabilities are stated for. ``verdicts``: that lens models may have; none where there are no models.
    """

    members: tuple[MemberWords, ...]
    flags: tuple[FlagWords, ...]
    n_objects: int
    last_candidate_rank: int
    sky_prevalence: dict[str, float | None]
    verdicts: tuple[Verdict, ...]


def words(collection: Collection) -> Words:
    """The registry's words, those of the further members that a catalogue has, and its numbers."""
    column_names = collection.catalogue.schema.names
    members = tuple(
        MemberWords(column=column.name, name=member, title=member_title(member), kind=member_kind(member))
        for member, column in MEMBER_COLUMNS.items()
    ) + tuple(
        MemberWords(column=column.name, name=name, title=column.description, kind="vis")
        for name, column in ((name, further_column(name)) for name in further_of(column_names))
    )
    flags = tuple(FlagWords(bit=flag.value, word=word, explanation=text) for flag, (word, text) in FLAG_WORDS.items())
    return Words(
        members=members,
        flags=flags,
        n_objects=collection.catalogue.n_rows,
        last_candidate_rank=collection.last_candidate_rank,
        sky_prevalence=dict(collection.published.sky_prevalence),
        verdicts=get_args(Verdict) if "model_verdict" in column_names else (),
    )


def router(context: Context) -> APIRouter:
    """The routes."""
    routes = APIRouter(include_in_schema=False)

    @routes.api_route("/", methods=READ)
    async def start(request: Request) -> Response:
        if await context.work.run(of_grades, context.campaigns.closes_catalogue_to, viewer(request)):
            return _to(request, "/campaigns")
        return page(request, "start", addresses=_addresses(context.base_url(request)))

    @routes.api_route("/c/{slug}/candidates", methods=READ)
    async def gallery(request: Request, slug: str) -> Response:
        collection = context.collections.get(slug)
        return page(
            request,
            "gallery",
            collection=collection,
            blind=_is_blind(request),
            words=words(collection).model_dump(),
        )

    @routes.api_route("/c/{slug}/candidates/{run}/{tile}/{target}", methods=READ)
    async def candidate(request: Request, slug: str, run: str, tile: str, target: str) -> Response:
        collection = context.collections.get(slug)
        row = await context.work.run(collection.find, f"{run}/{tile}/{target}")
        values = row.slice(0, 1).to_pylist()[0]
        wanted = CandidateId.of(values)
        name, ra, dec = (values[column] for column in ("name", "ra", "dec"))
        blind = _is_blind(request)
        explained = not blind and await context.work.run(_is_explained, collection, wanted)
        return page(
            request,
            "candidate",
            collection=collection,
            candidate_id=str(wanted),
            name=name,
            blind=blind,
            explained=explained,
            has_features=not blind and await context.work.run(has_features, collection.published),
            verdict="" if blind else values.get("model_verdict", ""),
            file_name=re.sub(r"[^A-Za-z0-9.+-]", "_", name),
            cone={"RA": f"{ra:.7f}", "DEC": f"{dec:.7f}", "SR": f"{ROW_RADIUS_DEG:.7f}", "VERB": 3},
            grades=MEANINGS,
            tags=TAGS,
            map_bins=next(bins for most, bins in MAP_BINS if collection.n_listed <= most),
            words=words(collection).model_dump(),
        )

    @routes.api_route("/campaigns", methods=READ)
    async def campaigns(request: Request) -> Response:
        collections = context.collections if viewer(request).leads else ()
        mix = tuple(zip(REASONS, DEFAULT_MIX.weights, strict=True))
        return page(request, "campaigns", collections=[(one.slug, one.title) for one in collections], mix=mix)

    @routes.api_route("/campaigns/{name}", methods=READ)
    async def campaign(request: Request, name: str) -> Response:
        try:
            found = await context.work.run(context.campaigns.get, name)
        except UsageError as error:
            raise NotFoundError(str(error)) from None
        return page(request, "campaign", name=name, is_blind=found.plan.blind, grades=MEANINGS, tags=TAGS)

    @routes.api_route("/c/{slug}/tiles", methods=READ)
    async def tiles(request: Request, slug: str) -> Response:
        return page(request, "tiles", collection=context.collections.get(slug), blind=_is_blind(request))

    @routes.api_route("/c/{slug}/moved", methods=READ)
    async def moved(request: Request, slug: str) -> Response:
        collection = context.collections.get(slug)
        if not collection.was_rescored:
            raise NotFoundError(NOT_RESCORED)
        return page(request, "moved", collection=collection, blind=_is_blind(request))

    @routes.api_route("/c/{slug}/completeness/{run}", methods=READ)
    async def completeness(slug: str, run: str) -> Response:
        found = next((one for one in context.collections.get(slug).recoveries if one.run == run), None)
        if found is None:
            raise NotFoundError("There is no recovery of this run here; 'scanner serve --recovery' shows them.")
        return HTMLResponse(found.page, headers={"Content-Security-Policy": RECOVERY_POLICY})

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

    @routes.post("/login")
    async def take_token(
        request: Request,
        token: Annotated[str, Form(max_length=200)],
        next: Annotated[str, Form(max_length=2000)] = "/",  # noqa: A002
    ) -> Response:
        if context.tokens and context.tokens.find(token) is None:
            context.metrics.refused.labels("token").inc()
            raise UnknownViewerError("This token is not known.")
        answer = _to(request, next)
        if context.tokens:
            answer.set_cookie(
                TOKEN_COOKIE,
                token,
                TOKEN_COOKIE_S,
                path=_root(request),
                secure=_is_https(context, request),
                httponly=True,
                samesite="strict",
            )
        return answer

    @routes.post("/logout")
    async def logout(request: Request) -> Response:
        answer = _to(request, "/login")
        answer.delete_cookie(
            TOKEN_COOKIE, path=_root(request), secure=_is_https(context, request), httponly=True, samesite="strict"
        )
        return answer

    def _is_blind(request: Request) -> bool:
        """Whether scores are withheld from the viewer: then the pages have no place for them."""
        return context.blindness.holds_for(viewer(request))

    return routes


def _is_explained(collection: Collection, wanted: CandidateId) -> bool:
    """Whether there is a readable picture of what the networks looked at; blocks."""
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


def _to(request: Request, place: str) -> RedirectResponse:
    return RedirectResponse(request.scope.get("root_path", "") + (place if _HERE.fullmatch(place) else "/"), 303)


def _root(request: Request) -> str:
    return f"{request.scope.get('root_path', '')}/"


def _is_https(context: Context, request: Request) -> bool:
    return context.base_url(request).startswith("https://")
