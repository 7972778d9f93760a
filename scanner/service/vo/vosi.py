"""What the VO services say of themselves: capabilities, availability, tables (VOSI 1.1, TAPRegExt 1.0, VODataService 1.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from scanner.query.adql.functions import OPTIONAL_FEATURES, USER_DEFINED_FUNCTIONS
from scanner.service.vo.adql_tables import TapTable, field_of, written
from scanner.service.vo.tap_query import FORMATS
from scanner.service.vo.votable import element, text

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
