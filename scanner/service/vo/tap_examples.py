"""Queries to begin with, as TOPCAT and pyvo offer them to their users.

In: nothing. Out: an XHTML page with the marks that programs find them by. Nothing is refused.

Source: DALI 1.1, section 2.3 (DALI-examples); TAP Notes 1.0, section 2.4.3.
"""

from __future__ import annotations

from scanner.service.vo.markup import text

MEDIA_TYPE = "application/xhtml+xml"

#: Identifier, title, query; every one is answered by any collection.
EXAMPLES: tuple[tuple[str, str, str], ...] = (
    ("best", "The hundred best candidates", "SELECT TOP 100 * FROM candidates ORDER BY rank"),
    (
        "cone",
        "Objects within 5 arcminutes of a position, nearest first",
        "SELECT candidate_id, ra, dec, p_calibrated,\n"
        "  DISTANCE(POINT('ICRS', ra, dec), POINT('ICRS', 267.78, 65.53)) * 3600 AS separation\n"
        "FROM objects\n"
        "WHERE 1 = CONTAINS(POINT('ICRS', ra, dec), CIRCLE('ICRS', 267.78, 65.53, 5/60.0))\n"
        "ORDER BY separation",
    ),
    (
        "density",
        "Objects and candidates in every HEALPix cell of order 8",
        "SELECT ivo_healpix_index(8, ra, dec) AS cell, COUNT(*) AS n, MAX(p_calibrated) AS best\n"
        "FROM objects\nGROUP BY cell\nORDER BY n DESC",
    ),
    (
        "unknown",
        "Probable lenses that nobody knew",
        "SELECT name, ra, dec, p_calibrated FROM candidates\n"
        "WHERE known_name = '' AND p_calibrated > 0.5\nORDER BY p_calibrated DESC",
    ),
    ("failed", "Tiles that could not be scanned, and why", "SELECT tile_id, reason FROM tiles WHERE state = 'failed'"),
)


def document() -> bytes:
    """The page."""
    parts = [
        f'<div id="{identifier}" resource="#{identifier}" typeof="example"><h2 property="name">{text(title)}</h2>'
        f'<pre property="query">{text(query)}</pre></div>'
        for identifier, title, query in EXAMPLES
    ]
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<html xmlns="http://www.w3.org/1999/xhtml">\n'
        "<head><title>Examples of queries</title></head>\n"
        f'<body vocab="http://www.ivoa.net/rdf/examples#">\n<h1>Examples of queries</h1>\n{"".join(parts)}\n</body>\n</html>\n'
    ).encode()
