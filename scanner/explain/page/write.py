"""An object's page on disk: arrays in zarr, PNG, a record, and one page that holds everything.

In: what the methods made. Out: files in a folder, the page last. Refused: places that cannot be written (OutputError).

``arrays.zarr`` has a group a member: ``input`` (channels, side, side) as the network sees it, ``occlusion`` (m, m),
``guided_grad_cam`` (channels, side, side), ``dream_lens`` and ``dream_non_lens`` (channels, side, side).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from scanner.atomic_file import write_atomically, writing_to
from scanner.explain.arrays import put, replaced_group
from scanner.explain.display import enlarged, png
from scanner.explain.page.methods import SIDE, Made, Panel
from scanner.records import CutoutBatch, MemberName
from scanner.report import colour
from scanner.report.card import member_kind
from scanner.report.explanations import PageRecord
from scanner.report.self_contained import asset, png_uri, template

ARRAYS, RECORD, PAGE = "arrays.zarr", "explanation.json", "index.html"


def write_page(
    out: Path,
    record: PageRecord,
    cutout: CutoutBatch,
    made: Mapping[MemberName, Sequence[Made]],
    neighbours: Sequence[Panel],
) -> None:
    """Write everything.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    whole = _whole(cutout)
    panels = {member: [panel for one in of_member for panel in one.panels] for member, of_member in made.items()}
    with writing_to(out):
        out.mkdir(parents=True, exist_ok=True)
        _write_arrays(out / ARRAYS, made)
        encoded = {panel.name: png(panel.image) for group in (whole, *panels.values(), neighbours) for panel in group}
        for name, content in encoded.items():
            write_atomically(out / name, content)
        write_atomically(out / RECORD, record.to_bytes())
        write_atomically(out / PAGE, _page(record, whole, panels, neighbours, encoded).encode())


def _whole(cutout: CutoutBatch) -> tuple[Panel, ...]:
    sky, sigma = cutout.sky[0], cutout.sigma[0]
    pictures = {
        "VIS": colour.vis_image(cutout.vis[0], sky, sigma),
        "VIS + J, H": colour.colour_image(cutout.vis[0], cutout.nisp[0], sky, sigma),
        "H, J, Y": colour.nisp_image(cutout.nisp[0], sky, sigma),
    }
    names = ("vis.png", "colour.png", "nisp.png")
    return tuple(Panel(name, what, enlarged(image, SIDE)) for name, (what, image) in zip(names, pictures.items(), strict=True))


def _page(
    record: PageRecord,
    whole: Sequence[Panel],
    panels: Mapping[MemberName, Sequence[Panel]],
    neighbours: Sequence[Panel],
    encoded: Mapping[str, bytes],
) -> str:
    uris = {name: png_uri(content) for name, content in encoded.items()}
    return template("explanation").render(
        record=record,
        whole=whole,
        panels=panels,
        neighbours=neighbours,
        uris=uris,
        kinds={vote.member: member_kind(vote.member) for vote in record.votes},
        style=asset("evaluation.css"),
    )


def _write_arrays(path: Path, made: Mapping[MemberName, Sequence[Made]]) -> None:
    with replaced_group(path) as group:
        for of_member in made.values():
            for one in of_member:
                for name, values in one.arrays.items():
                    put(group, name, values)
