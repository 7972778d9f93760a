"""An atlas on disk: arrays in zarr, PNG sheets, a record, and one page that holds everything.

In: what was made, and its sheets. Out: files in a folder, the page last. Refused: places that cannot be written (OutputError).

``arrays.zarr`` has a group a member: ``classes/<class>`` (channels, side, side) and ``classes/<class>-reached`` (steps + 1,),
``layers/<layer>/images`` (K, channels, side, side), ``kernels`` (K,) and, of a labelled set, ``activation`` (N, all kernels) of
the rows ``rows`` (N,), and ``strongest`` (K, examples), rows of the set.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scanner.atomic_file import write_atomically, writing_to
from scanner.explain.arrays import put, replaced_group
from scanner.explain.atlas.member import MemberAtlas
from scanner.explain.atlas.sheets import Sheet
from scanner.explain.display import png
from scanner.records import MEMBER_BANDS, Int64, MemberName
from scanner.report.explanations import AtlasRecord
from scanner.report.self_contained import asset, png_uri, template

ARRAYS, RECORD, PAGE = "arrays.zarr", "explanation.json", "index.html"


def write_atlas(
    out: Path,
    record: AtlasRecord,
    atlases: Sequence[MemberAtlas],
    sheets: Sequence[tuple[MemberName, Sequence[Sheet]]],
    rows: Int64 | None,
) -> None:
    """Write everything; ``rows``: of the labelled set, those that went through the networks.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    with writing_to(out):
        out.mkdir(parents=True, exist_ok=True)
        _write_arrays(out / ARRAYS, atlases, rows)
    pictures = {sheet.name: png(sheet.image[::-1]) for _, of_member in sheets for sheet in of_member}
    for name, content in pictures.items():
        write_atomically(out / name, content)
    write_atomically(out / RECORD, record.to_bytes())
    write_atomically(out / PAGE, render(record, sheets, pictures).encode())


def render(record: AtlasRecord, sheets: Sequence[tuple[MemberName, Sequence[Sheet]]], pictures: dict[str, bytes]) -> str:
    """The page as text, with the sheets inside."""
    uris = {name: png_uri(content) for name, content in pictures.items()}
    return template("atlas").render(record=record, sheets=sheets, uris=uris, style=asset("evaluation.css"))


def _write_arrays(path: Path, atlases: Sequence[MemberAtlas], rows: Int64 | None) -> None:
    with replaced_group(path) as group:
        if rows is not None:
            put(group, "rows", rows)
        for made in atlases:
            member = group.create_group(made.member, attributes={"channels": list(MEMBER_BANDS[made.member])})
            classes, layers = member.create_group("classes"), member.create_group("layers")
            for name, ascent in made.classes.items():
                put(classes, name, ascent.images[0])
                put(classes, f"{name}-reached", ascent.reached[:, 0])
            for number, layer in made.layers.items():
                of_layer = layers.create_group(number)
                for array in ("kernels", "images", "activation", "strongest"):
                    values = getattr(layer, array)
                    if values is not None:
                        put(of_layer, array, values)
