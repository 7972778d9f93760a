"""What the VO services say of themselves (VOSI 1.1, TAPRegExt 1.0, VODataService 1.1), and of the sky they cover (MOC 2.0)."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from scanner.query.adql.functions import OPTIONAL_FEATURES, USER_DEFINED_FUNCTIONS
from scanner.service.collections import Collection
from scanner.service.context import (
    ERRORS,
    Context,
    Parameters,
    QueryParameter,
    Slug,
    add_routes,
    conditional,
    found,
    is_whole_number,
)
from scanner.service.errors import BadRequestError, NotAcceptableError
from scanner.service.vo.tap_query import FORMATS, TapTable, field_of, written
from scanner.service.vo.votable import element, text
from scanner.sphere import HEALPIX_ORDER

if TYPE_CHECKING:
    from mocpy import MOC

MEDIA_TYPE = "text/xml"
_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
_NAMESPACES = {
    "vosi": "http://www.ivoa.net/xml/VOSICapabilities/v1.0",
    "xsi": "http://www.w3.org/2001/XMLSchema-instance",
    "vr": "http://www.ivoa.net/xml/VOResource/v1.0",
    "vs": "http://www.ivoa.net/xml/VODataService/v1.1",
    "tr": "http://www.ivoa.net/xml/TAPRegExt/v1.0",
}
_TABLES = (
    f'xmlns:vosi="http://www.ivoa.net/xml/VOSITables/v1.0" xmlns:vs="{_NAMESPACES["vs"]}" xmlns:xsi="{_NAMESPACES["xsi"]}"'
)
_FEATURES = "ivo://ivoa.net/std/TAPRegExt#features-"


@dataclass(frozen=True)
class TapLimits:
    """Rows of an answer: unless MAXREC says otherwise, and at most; seconds: a sync query, an async job, its results' life."""

    default_rows: int
    most_rows: int
    job_seconds: int
    most_job_seconds: int
    retention_seconds: int
    most_retention_seconds: int


def capability(standard: str, url: str, attributes: str = "", use: str = "full", kind: str = "vs:ParamHTTP") -> str:
    """A capability; ``standard``: without ``ivo://ivoa.net/std/``; ``attributes``, ``use``, ``kind``: of its interface."""
    interface = _interface(url, attributes, use, kind)
    return f'<capability standardID="ivo://ivoa.net/std/{standard}">\n{interface}</capability>\n'


def capabilities_document(*capabilities: str, prefixes: tuple[str, ...] = ()) -> bytes:
    """A document of capability elements, which use the namespaces of some more ``prefixes``."""
    namespaces = {prefix: uri for prefix, uri in _NAMESPACES.items() if prefix in ("vosi", "xsi", "vs", *prefixes)}
    attributes = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in namespaces.items())
    return f"{_DECLARATION}<vosi:capabilities {attributes}>\n{''.join(capabilities)}</vosi:capabilities>\n".encode()


def _interface(url: str, attributes: str, use: str, kind: str) -> str:
    return f'<interface xsi:type="{kind}" {attributes}><accessURL use="{use}">{text(url)}</accessURL></interface>\n'


def availability(is_ready: bool, since: datetime) -> bytes:
    """``/tap/availability``."""
    note = "" if is_ready else "<vosi:note>The catalogue is being opened.</vosi:note>"
    return (
        f'{_DECLARATION}<vosi:availability xmlns:vosi="http://www.ivoa.net/xml/VOSIAvailability/v1.0">\n'
        f"<vosi:available>{str(is_ready).lower()}</vosi:available>\n"
        f"<vosi:upSince>{since:%Y-%m-%dT%H:%M:%SZ}</vosi:upSince>\n{note}</vosi:availability>\n"
    ).encode()


def capabilities(base_url: str, limits: TapLimits) -> bytes:
    """``/tap/capabilities``."""
    tap = f"{base_url}/tap"
    interface = _interface(tap, 'role="std" version="1.1"', "base", "vs:ParamHTTP")
    body = "".join((interface, _language(), *_formats(), _limits(limits)))
    return capabilities_document(
        f'<capability standardID="ivo://ivoa.net/std/TAP" xsi:type="tr:TableAccess">\n{body}</capability>\n',
        capability("VOSI#capabilities", f"{tap}/capabilities"),
        capability("VOSI#availability", f"{tap}/availability"),
        capability("VOSI#tables-1.1", f"{tap}/tables"),
        capability("DALI#examples", f"{tap}/examples", kind="vr:WebBrowser"),
        prefixes=("vr", "tr"),
    )


def _language() -> str:
    versions = "".join(
        f'<version ivo-id="ivo://ivoa.net/std/ADQL#v{version}">{version}</version>' for version in ("2.0", "2.1")
    )
    parts = [f"<name>ADQL</name>{versions}<description>One table at a time, without subqueries</description>\n"]
    for kind, names in OPTIONAL_FEATURES.items():
        features = "".join(f"<feature><form>{name}</form></feature>" for name in names)
        parts.append(f'<languageFeatures type="{_FEATURES}{kind}">{features}</languageFeatures>\n')
    udf = "".join(
        f"<feature><form>{text(signature)}</form><description>{said}</description></feature>"
        for signature, said in USER_DEFINED_FUNCTIONS.items()
    )
    parts.append(f'<languageFeatures type="{_FEATURES}udf">{udf}</languageFeatures>\n')
    return f"<language>{''.join(parts)}</language>\n"


def _formats() -> Iterable[str]:
    for one in FORMATS:
        aliases = "".join(f"<alias>{alias}</alias>" for alias in one.names)
        attributes = {"ivo-id": one.identifier}
        yield element("outputFormat", attributes, f"<mime>{one.media_type}</mime>{aliases}") + "\n"


def _limits(limits: TapLimits) -> str:
    return (
        f"<retentionPeriod><default>{limits.retention_seconds}</default><hard>{limits.most_retention_seconds}</hard>"
        f"</retentionPeriod>\n<executionDuration><default>{limits.job_seconds}</default><hard>{limits.most_job_seconds}</hard>"
        f'</executionDuration>\n<outputLimit><default unit="row">{limits.default_rows}</default>'
        f'<hard unit="row">{limits.most_rows}</hard></outputLimit>\n'
    )


def tableset(schemas: Mapping[str, str], tables: Iterable[TapTable], *, columns: bool) -> bytes:
    """``/tap/tables``; ``columns``: with every table's columns."""
    by_schema: dict[str, list[TapTable]] = {schema: [] for schema in schemas}
    for table in tables:
        by_schema[table.schema].append(table)
    parts = [
        f"<schema><name>{text(schema)}</name><description>{text(schemas[schema])}</description>\n"
        + "".join(f"<table>{_table(table, columns=columns)}</table>\n" for table in own)
        + "</schema>\n"
        for schema, own in by_schema.items()
    ]
    return f"{_DECLARATION}<vosi:tableset {_TABLES}>\n{''.join(parts)}</vosi:tableset>\n".encode()


def single_table(table: TapTable) -> bytes:
    """``/tap/tables/{name}``."""
    return f'{_DECLARATION}<vosi:table {_TABLES} xsi:type="vs:Table">{_table(table, columns=True)}</vosi:table>\n'.encode()


def _table(table: TapTable, *, columns: bool) -> str:
    about = table.description
    lines = [element("name", {}, text(table.name)), element("description", {}, text(about.description))]
    lines += [element("utype", {}, text(table.utype))] if table.utype else []
    if columns:
        indexed = {about.healpix, *(about.position or ())}
        for column in about.schema:
            field = field_of(column)
            datatype, arraysize = field.datatype
            texts = {"name": written(field.name), "description": field.description, "unit": field.unit, "ucd": field.ucd,
                    "utype": field.utype}  # fmt: skip
            parts = [element(name, {}, text(value)) for name, value in texts.items() if value]
            attributes = {"xsi:type": "vs:VOTableType", "arraysize": arraysize, "extendedType": field.xtype}
            parts.append(element("dataType", attributes, datatype))
            parts += ["<flag>indexed</flag>"] if column.name in indexed else []
            lines.append(f"<column>{''.join(parts)}</column>")
        for key in table.keys:
            of_key = element("fromColumn", {}, key.column) + element("targetColumn", {}, key.target_column)
            target = element("targetTable", {}, key.target_table)
            lines.append(f"<foreignKey>{target}<fkColumn>{of_key}</fkColumn></foreignKey>")
    return "\n".join(lines)


#: The first one is that of clients that do not care.
MEDIA_TYPES = {"fits": "application/fits", "json": "application/json", "ascii": "text/plain"}
#: Other names of the same.
_ALIASES = {"image/fits": "fits", "application/x-fits": "fits", "txt": "ascii", "text": "ascii"}
#: Surveys grow while they are served.
MAX_AGE_S = 300


def moc_router(context: Context) -> APIRouter:
    """The routes, for GET and HEAD."""
    routes = APIRouter(tags=["Virtual Observatory"], responses=ERRORS)

    async def default_moc(request: Request) -> Response:
        return await answer(request, context.collections.default)

    async def moc(request: Request, slug: Slug) -> Response:
        return await answer(request, context.collections.get(slug))

    async def answer(request: Request, collection: Collection) -> Response:
        parameters = await Parameters.of(request)
        wanted = parameters.one("FORMAT", "RESPONSEFORMAT")
        name = _named(wanted) if wanted is not None else negotiated(request.headers.get("accept", "*/*"))
        content = await context.work.run(_content, collection, name, _order(parameters.one("ORDER")))
        suffix = {"ascii": "txt"}.get(name, name)
        return conditional(
            request, content, MEDIA_TYPES[name], max_age_s=MAX_AGE_S, filename=f"{collection.slug}.moc.{suffix}", vary="Accept"
        )

    for path, handler, whose in (("/moc", default_moc, "the first collection"), ("/moc/{slug}", moc, "one collection")):
        add_routes(
            routes,
            path,
            handler,
            QueryParameter("FORMAT", f"{', '.join(MEDIA_TYPES)} [default: as the Accept header asks, else fits]."),
            QueryParameter(
                "ORDER", f"Coarsest cells, 0 to {HEALPIX_ORDER} [default: as scanned].", "integer",
                schema=(("minimum", 0), ("maximum", HEALPIX_ORDER)),
            ),
            summary=f"Sky that was scanned: coverage map of {whose}",
            responses=found(*MEDIA_TYPES.values(), _304="You have it"),
            posted=False,
        )  # fmt: skip
    return routes


def negotiated(accept: str) -> str:
    """The format that an Accept header likes best.

    Raises
    ------
    NotAcceptableError
        It rules out all of them.
    """
    ranked: list[tuple[float, int, str]] = []
    for number, part in enumerate(accept.split(",")):
        media_type, *options = (piece.strip().lower() for piece in part.split(";"))
        quality = next((option[2:] for option in options if option.startswith("q=")), "1")
        try:
            weight = float(quality)
        except ValueError:
            weight = 1.0
        if weight <= 0:
            continue
        for name, own in MEDIA_TYPES.items():
            if media_type in ("*/*", own, f"{own.partition('/')[0]}/*") or _ALIASES.get(media_type) == name:
                ranked.append((-weight, number, name))
                break
    if not ranked:
        raise NotAcceptableError(f"There is no such format; accept one of {', '.join(MEDIA_TYPES.values())}.")
    return min(ranked)[2]


def _named(value: str) -> str:
    wanted = value.lower().partition(";")[0].strip()
    for name, media_type in MEDIA_TYPES.items():
        if wanted in (name, media_type) or _ALIASES.get(wanted) == name:
            return name
    raise BadRequestError(f"FORMAT={value}: is none of {', '.join(MEDIA_TYPES)}.")


def _order(value: str | None) -> int | None:
    if value is None:
        return None
    if not (is_whole_number(value, 2) and int(value) <= HEALPIX_ORDER):
        raise BadRequestError(f"ORDER={value}: is no whole number from 0 to {HEALPIX_ORDER}.")
    return int(value)


def _content(collection: Collection, name: str, order: int | None) -> bytes:
    if name == "fits" and order is None:
        return collection.footprint_fits()
    moc: MOC = collection.footprint
    if order is not None and order < moc.max_order:
        moc = moc.degrade_to_order(order)
    if name == "fits":
        stream = io.BytesIO()
        moc.serialize(format="fits").writeto(stream)
        return stream.getvalue()
    if name == "json":
        return json.dumps(moc.serialize(format="json"), separators=(",", ":")).encode()
    return str(moc.serialize(format="str")).encode()
