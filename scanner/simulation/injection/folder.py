"""The folder of painted cutouts or mosaics: one request owns it, and the same request resumes it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from scanner import __version__
from scanner.atomic_file import replacement
from scanner.errors import InputMissingError, OutputError, TileError
from scanner.simulation.datasets.dataset import PARTS
from scanner.simulation.injection.places import Places, survey_tile
from scanner.simulation.injection.request import InjectionRecord, InjectionRequest, TileSummary
from scanner.simulation.parts import claim, run_all, write_record

SCRATCH = "scratch"
Progress = Callable[[int, int], None]


def claimed(out: Path, name: str, request: InjectionRequest) -> InjectionRecord:
    """Make the folder, or check that it is this request's; returns the record ``name`` that is there now.

    Raises
    ------
    OutputError
        The folder belongs to another request, or holds something else.
    """
    record = InjectionRecord(scanner_version=__version__, request=request, preset=request.drawn_as)
    found = claim(out, name, record, _read_record)
    if found.request != request or found.preset != record.preset:
        asked = request.described()
        there = found.request.described()
        difference = f"({there}), not the one asked for ({asked})" if asked != there else "with other tiles or an older preset"
        raise OutputError(f"{out}: holds another injection {difference}; choose another --out or remove it.")
    if found.complete:
        # A run that was killed between the two last steps left its parts behind.
        shutil.rmtree(out / PARTS, ignore_errors=True)
    return found


def _read_record(path: Path) -> InjectionRecord:
    try:
        return InjectionRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError):
        raise OutputError(f"{path}: not the record of an injection; choose another --out or remove the folder.") from None


def finish(
    out: Path, name: str, record: InjectionRecord, summaries: Sequence[TileSummary], counts: tuple[int, int]
) -> InjectionRecord:
    """Say in the record that all is there, with ``counts`` of lenses and of visible ones; remove what was only on the way."""
    n_lenses, n_visible = counts
    update = {"complete": True, "n_lenses": n_lenses, "n_visible": n_visible, "tiles": tuple(summaries)}
    finished = record.model_copy(update=update)
    write_record(out / name, finished)
    shutil.rmtree(out / PARTS)
    return finished


def scratch_of(out: Path) -> Path:
    """Where decompressed mosaics lie until the end."""
    return out / PARTS / SCRATCH


def survey_tiles(request: InjectionRequest, out: Path, workers: int) -> list[tuple[TileSummary, Places]]:
    """Survey the tiles that were not surveyed before; all of them, in their order.

    Raises
    ------
    InputMissingError
        A tile cannot be used.
    """
    (out / PARTS).mkdir(exist_ok=True)
    missing = [number for number in range(len(request.tiles)) if not _places_file(out, number).exists()]
    for _ in run_all(_survey, [(request, out, number) for number in missing], workers):
        pass
    return [_read(out, number) for number in range(len(request.tiles))]


def _survey(request: InjectionRequest, out: Path, number: int) -> None:
    tile = request.tiles[number]
    seed = [request.seed, number]
    try:
        summary, places = survey_tile(tile, request.drawn_as.options, request.n_objects, seed, scratch_of(out))
    except TileError as error:
        raise InputMissingError(f"tile {tile.tile_id}: {error}") from None
    (out / PARTS / f"tile-{number:05d}.json").write_text(summary.model_dump_json() + "\n", encoding="utf-8")
    path = _places_file(out, number)
    with replacement(path) as partial, partial.open("wb") as file:
        np.savez(file, **vars(places))


def _read(out: Path, number: int) -> tuple[TileSummary, Places]:
    summary = TileSummary.model_validate_json((out / PARTS / f"tile-{number:05d}.json").read_text(encoding="utf-8"))
    with np.load(_places_file(out, number)) as arrays:
        return summary, Places(**{name: arrays[name] for name in arrays.files})


def _places_file(out: Path, number: int) -> Path:
    return out / PARTS / f"tile-{number:05d}.npz"
