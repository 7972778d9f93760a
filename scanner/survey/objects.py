"""Single objects of a run: found by name, rank or place; cut again; scored again and compared with what the run says."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from astropy.io import fits
from astropy.wcs import WCS

from scanner import __version__
from scanner.atomic_file import write_atomically
from scanner.catalogue import columns
from scanner.config import RunConfig, StorageConfig
from scanner.cutouts import framed
from scanner.cutouts.extract import cut
from scanner.cutouts.framed import FramedCutout, fits_bytes, of_tile, wcs_of_store
from scanner.cutouts.store import CODECS
from scanner.ensemble import bundles
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.session import BATCH, Scorer
from scanner.errors import ContentError, InputMissingError, TileError, UsageError
from scanner.query.catalogue import Catalogue, Search, search
from scanner.query.region import Cone
from scanner.records import (
    TILE_ID_PATTERN,
    Band,
    CodecName,
    CommitRecord,
    CutoutBatch,
    Float32,
    Int64,
    Provider,
    Record,
    Targets,
    Tile,
)
from scanner.report import colour, self_contained
from scanner.sky import local_files, tile_list
from scanner.sky.local_files import fetch_tile, temporary_folder
from scanner.sky.tile_images import TileImages, open_tile
from scanner.sphere import PREFIX, designations, parse_designation
from scanner.storage import open_store
from scanner.survey.folder import fingerprint
from scanner.survey.folder.fingerprint import machine_fingerprint
from scanner.survey.folder.ledger import RunFolder, RunRecord
from scanner.survey.scan.tile import batch_size, score_batch

_CANDIDATES, _MERGED = "candidates.fits", "catalogue/hats.properties"
_RANK = re.compile(r"#?(\d{1,18})")
_PLACE = re.compile(rf"({TILE_ID_PATTERN.strip('^$')})/(-?\d{{1,19}})")
#: About a tile's row, the merged catalogue is searched for the same object.
_NEAR_DEG = 1 / 3600


@dataclass(frozen=True)
class FoundObject:
    """Row ``index`` of ``table``, the rows of its tile as they were scored; ``rank`` is None outside the merged catalogue.

    ``prefix``: what names begin with in the run's survey.
    """

    commit: CommitRecord
    table: pa.Table
    index: int
    rank: int | None
    prefix: str

    @property
    def row(self) -> pa.Table:
        """The object's own row."""
        return self.table.slice(self.index, 1)

    @property
    def name(self) -> str:
        """Its designation."""
        return designations(self.row["ra"].to_numpy(), self.row["dec"].to_numpy(), self.prefix)[0]


def find_object(folder: RunFolder, wanted: str, scratch: Path) -> FoundObject:
    """Find an object.

    Parameters
    ----------
    folder
        The run.
    wanted
        Name (``EUCL J…``), rank (``#3``) or place (``tile/target_id``).
    scratch
        Folder for what has to be fetched from an object store.

    Raises
    ------
    UsageError
        The text names no object, or several have the name.
    InputMissingError
        The run has no such object.
    ContentError
        The merged catalogue says something else of the object than its tile's table.
    """
    tile_id, target_id = _place(folder, wanted, scratch)
    commit = folder.commit_of(tile_id)
    if commit is None:
        raise InputMissingError(f"{folder.location}: holds no finished tile {tile_id}; 'scanner status' lists what there is.")
    table = folder.record().decided(folder.scores(commit))
    found = np.flatnonzero(table["target_id"].to_numpy() == target_id)
    if not len(found):
        raise InputMissingError(f"{folder.location}: tile {tile_id} has no object {target_id}.")
    row = table.slice(int(found[0]), 1)
    prefix = folder.record().config.targets.survey.prefix
    return FoundObject(commit=commit, table=table, index=int(found[0]), rank=_rank(folder, row, scratch), prefix=prefix)


def _place(folder: RunFolder, wanted: str, scratch: Path) -> tuple[str, int]:
    """Tile and id of the object that a text names."""
    text = wanted.strip()
    if match := _PLACE.fullmatch(text):
        return match[1], int(match[2])
    if match := _RANK.fullmatch(text):
        return _by_rank(folder, int(match[1]), scratch)
    designation = parse_designation(text)
    if designation is None:
        raise UsageError(
            f"{wanted!r} is no id of an object: give its name ('{PREFIX} J…'), its rank ('#3') or its place (tile/target_id)."
        )
    return _by_name(folder, designation[0], scratch)


def _by_rank(folder: RunFolder, rank: int, scratch: Path) -> tuple[str, int]:
    # Nearly always a candidate is meant, whose list is a small file.
    results = folder.results(folder.record())
    if _CANDIDATES in (results.sha256 or {}):
        with fits.open(io.BytesIO(results.read(_CANDIDATES)), memmap=False) as hdus:
            for row in hdus[1].data[hdus[1].data["rank"] == rank]:
                return str(row["tile_id"]), int(row["target_id"])
    for found in search(_catalogue(folder, scratch), Search(rank=rank, columns=("tile_id", "target_id"))).to_pylist():
        return found["tile_id"], found["target_id"]
    raise InputMissingError(f"{folder.location}: no object has rank {rank}.")


def _by_name(folder: RunFolder, name: str, scratch: Path) -> tuple[str, int]:
    columns = ("rank", "tile_id", "target_id", "is_candidate")
    bearers = search(_catalogue(folder, scratch), Search(name=name, columns=columns)).to_pylist()
    bearers = [row for row in bearers if row["is_candidate"]] or bearers
    if not bearers:
        raise InputMissingError(f"{folder.location}: no object is called {name}.")
    if len(bearers) > 1:
        ranks = ", ".join(f"#{row['rank']}" for row in bearers)
        raise UsageError(f"{folder.location}: {len(bearers)} objects are called {name}; give the rank of one: {ranks}.")
    return bearers[0]["tile_id"], bearers[0]["target_id"]


def _rank(folder: RunFolder, row: pa.Table, scratch: Path) -> int | None:
    """Rank of a tile's row in the merged catalogue, which must hold the same values; None where it is not there."""
    if _MERGED not in folder.record().sha256:
        return None
    (wanted,) = row.to_pylist()
    near = Search(region=Cone(wanted["ra"], wanted["dec"], _NEAR_DEG))
    for merged in search(_catalogue(folder, scratch), near).to_pylist():
        if (merged["tile_id"], merged["target_id"]) != (wanted["tile_id"], wanted["target_id"]):
            continue
        # What is not known is NaN, which is unequal to itself.
        if any(merged[name] != value and (merged[name] == merged[name] or value == value) for name, value in wanted.items()):
            raise ContentError(
                f"{folder.store.where('catalogue')}: says something else of {wanted['tile_id']}/{wanted['target_id']} than the "
                "tile itself does; give the run's command again, which merges its tiles anew."
            )
        return int(merged["rank"])
    return None


def _catalogue(folder: RunFolder, scratch: Path) -> Catalogue:
    results = folder.results(folder.record())
    if _MERGED not in (results.sha256 or {}):
        raise InputMissingError(f"{folder.location}: its tiles have not been merged yet; give the object as tile/target_id.")
    return Catalogue.open(results.below("catalogue"), scratch)


def candidate_cutouts(rows: pa.Table, folder: RunFolder, tiles: Mapping[str, Tile], config: RunConfig) -> CutoutBatch | None:
    """Gather the cutouts of some rows; None where there are no rows.

    Parameters
    ----------
    rows
        Rows with the columns of :mod:`scanner.catalogue.columns`.
    folder, tiles
        The run and the tiles it was made from, by id.
    config
        As the tiles were scanned with.
    """
    tile_ids = np.asarray(rows["tile_id"].to_pylist(), dtype=object)
    parts: list[CutoutBatch] = []
    order: list[Int64] = []
    for tile_id in sorted(set(tile_ids)):
        index = np.flatnonzero(tile_ids == tile_id)
        parts.append(tile_cutouts(rows.take(index), folder, tiles[tile_id], config).batch)
        order.append(index)
    if not parts:
        return None
    return CutoutBatch.joined(parts).take(np.argsort(np.concatenate(order)))


@dataclass(frozen=True)
class TileCutouts:
    """Cutouts of one tile, ``wcs`` of its VIS mosaic, and ``zero_points``: AB magnitude of one unit, where it is known."""

    batch: CutoutBatch
    wcs: WCS
    zero_points: dict[Band, float]


def tile_cutouts(rows: pa.Table, folder: RunFolder, tile: Tile, config: RunConfig) -> TileCutouts:
    """Cutouts of some rows of one tile, in their order; parameters and errors are those of :func:`candidate_cutouts`."""
    targets = targets_of(rows)
    commit = folder.commit_of(tile.tile_id)
    parts: list[CutoutBatch] = []
    with temporary_folder(config.engine.scratch) as scratch:
        stored = None if commit is None else folder.cutouts(commit, scratch)
        kept = np.zeros(len(targets), np.bool_)
        if stored is not None:
            place = {int(target_id): row for row, target_id in enumerate(stored.target_id)}
            places = np.array([place.get(int(target_id), -1) for target_id in targets.target_id], dtype=np.int64)
            kept = places >= 0
            if kept.any():
                parts.append(stored.read(places[kept]))
                wcs, zero_points = wcs_of_store(stored.attributes), stored.attributes.zero_points
        if not kept.all():
            with _opened(tile, config, scratch) as images:
                parts += cut(images, targets.take(~kept))
                wcs, zero_points = images.vis.wcs, {**images.zero_points}
    batch = CutoutBatch.joined(parts)
    place = {int(target_id): row for row, target_id in enumerate(batch.targets.target_id)}
    order = np.array([place[int(target_id)] for target_id in targets.target_id], dtype=np.int64)
    known = {band: value for band, value in zero_points.items() if value is not None and math.isfinite(value)}
    return TileCutouts(batch.take(order), wcs, known)


def framed_again(row: pa.Table, tile: Tile, config: RunConfig) -> FramedCutout:
    """Cut one object again from its tile's mosaics.

    Parameters
    ----------
    row
        One row with the columns of :mod:`scanner.catalogue.columns`.
    tile, config
        The tile, and what it was scanned with.

    Raises
    ------
    InputMissingError
        The tile cannot be opened any more.
    """
    with temporary_folder(config.engine.scratch) as scratch, _opened(tile, config, scratch) as images:
        (batch,) = cut(images, targets_of(row), 1)
        return of_tile(batch, images)


@contextmanager
def _opened(tile: Tile, config: RunConfig, scratch: Path) -> Iterator[TileImages]:
    try:
        with open_tile(fetch_tile(tile, scratch, config.storage), config.cutouts, scratch) as images:
            yield images
    except TileError as error:
        raise InputMissingError(f"{error} Candidates are cut from it again, as their cutouts were not kept.") from None


def targets_of(rows: pa.Table) -> Targets:
    """The targets that rows of the catalogue were made from."""
    column = {name: rows[name].to_numpy() for name in ("target_id", "ra", "dec", "x", "y", "magnitude_vis")}
    magnitude = np.asarray(column.pop("magnitude_vis"), dtype=np.float32)
    return Targets(**column, magnitude=magnitude)


#: A log-odds off by 1e-3, the bar that a bundle's graph is held to, moves a probability by a quarter of that at most.
PROBABILITY_TOLERANCE = 2.5e-4
BAD_FRACTION_TOLERANCE = 1e-3
PIXEL_TOLERANCE_SIGMA = 1e-3

Agreement = Literal["equal", "within tolerance", "different"]
PixelAgreement = Literal["equal", "within tolerance", "different", "not kept"]
_TOLERANCES = {
    **{column.name: PROBABILITY_TOLERANCE for column in columns.MEMBER_COLUMNS.values()},
    "p_calibrated": PROBABILITY_TOLERANCE,
    **{column.name: BAD_FRACTION_TOLERANCE for column in columns.BAD_COLUMNS.values()},
}


class ReplayedValue(Record):
    """One column of the object's row; None stands for what is not known (NaN)."""

    name: str
    then: float | int | bool | str | None
    now: float | int | bool | str | None
    agreement: Agreement


class ReplayedPixels(Record):
    """The kept cutout beside the one cut again.

    ``largest_distance`` of two pixels: of an ``exact`` cutout in sigma of their band, of a ``compact`` one in half steps of the
    codec. ``equal`` says of a ``compact`` cutout that the new pixels are stored as the same codes: no distance is above 1.
    """

    agreement: PixelAgreement
    codec: CodecName | None = None
    largest_distance: float = 0.0


class ReplayReport(Record):
    """``scanner replay --json``. ``differences``: what is not as it was in the run, a line each."""

    format_version: Literal[1] = 1
    run_folder: str
    tile_id: str
    target_id: int
    name: str
    rank: int | None
    ra: float
    dec: float
    machine_then: str
    machine_now: str
    differences: tuple[str, ...]
    pixels: ReplayedPixels
    values: tuple[ReplayedValue, ...]
    files: tuple[str, ...] = ()

    @property
    def same_machine(self) -> bool:
        """Whether bits have to be equal."""
        return self.machine_then == self.machine_now

    @property
    def agreement(self) -> Agreement:
        """The worst of all values and of the pixels."""
        return _worst({value.agreement for value in self.values} | {self.pixels.agreement})

    @property
    def passed(self) -> bool:
        """Whether the result of the run stands."""
        return self.agreement == "equal" or (self.agreement == "within tolerance" and not self.same_machine)


def compare_rows(then: pa.Table, now: pa.Table) -> tuple[ReplayedValue, ...]:
    """Compare two tables of one row, column by column of what is scored now."""
    return tuple(_compare(name, then[name][0].as_py(), now[name][0].as_py()) for name in now.column_names)


def compare_pixels(kept: CutoutBatch, again: CutoutBatch, codec: CodecName) -> ReplayedPixels:
    """Compare one kept cutout with the one cut again.

    Parameters
    ----------
    kept, again
        One cutout each; ``kept`` as its store gives it.
    codec
        Of the store.
    """
    how, distances, agreements = CODECS[codec], [], {"equal"}
    for band, (old, new) in enumerate(zip(_images(kept), _images(again), strict=True)):
        sky, sigma = again.sky[:, band], again.sigma[:, band]
        known = np.isfinite(new)
        distance = np.abs(old.astype(np.float64) - new)[known] / np.broadcast_to(sigma[:, None, None], new.shape)[known]
        loss = None if how.largest_error is None else how.largest_error(new, sky, sigma)[known]
        # Both as a store would give them: what the codec loses is no difference.
        stored = how.decode(how.encode(new, sky, sigma), sky, sigma)
        if not np.array_equal(old, stored, equal_nan=True):
            near = np.array_equal(np.isfinite(old), known) and bool(
                (distance <= (0.0 if loss is None else loss) + PIXEL_TOLERANCE_SIGMA).all()
            )
            agreements.add("within tolerance" if near else "different")
        distances.append(float(np.max(distance if loss is None else distance / loss, initial=0.0)))
    if (kept.x0 != again.x0).any() or (kept.y0 != again.y0).any():
        agreements.add("different")
    return ReplayedPixels(agreement=_worst(agreements), codec=codec, largest_distance=max(distances))


def _worst(agreements: Set[str]) -> Agreement:
    return "different" if "different" in agreements else "within tolerance" if "within tolerance" in agreements else "equal"


def _images(batch: CutoutBatch) -> tuple[Float32, ...]:
    """VIS, Y, J and H of a batch, each (N, height, width)."""
    return (batch.vis, *(batch.nisp[:, band] for band in range(batch.nisp.shape[1])))


def _compare(name: str, then: float | int | bool | str, now: float | int | bool | str) -> ReplayedValue:
    agreement: Agreement = "different"
    if then == now or (_unknown(then) and _unknown(now)):
        agreement = "equal"
    elif name in _TOLERANCES and abs(float(then) - float(now)) <= _TOLERANCES[name]:
        agreement = "within tolerance"
    return ReplayedValue(
        name=name, then=None if _unknown(then) else then, now=None if _unknown(now) else now, agreement=agreement
    )


def _unknown(value: float | int | bool | str) -> bool:
    return isinstance(value, float) and bool(np.isnan(value))


#: A VIS pixel of the picture takes this many pixels of the screen along each side, a NISP pixel three times as many.
ZOOM = 2


def write_cutout(folder: Path, stem: str, framed: FramedCutout, header: Mapping[str, str]) -> tuple[Path, ...]:
    """Write one cutout.

    Parameters
    ----------
    folder, stem
        Where; the folder is made if need be.
    framed
        The cutout.
    header
        Cards of the primary header, text by keyword.

    Returns
    -------
    tuple of Path
        The two files.

    Raises
    ------
    OutputError
        They cannot be written.
    """
    cutout = framed.cutout
    cards = dict(header) | {
        "X0": (int(cutout.x0[0]), "column of the tile's VIS mosaic, from 0"),
        "Y0": (int(cutout.y0[0]), "row of the tile's VIS mosaic, from 0"),
    }
    places = (folder / f"{stem}.fits", folder / f"{stem}.png")
    contents = (fits_bytes(framed.images, cards), self_contained.png(colour.side_by_side(cutout, ZOOM)))
    for place, content in zip(places, contents, strict=True):
        write_atomically(place, content)
    return places


@dataclass(frozen=True)
class ReplayRequest:
    """What is to be done again.

    ``run_folder``: a path or URL. ``candidate``: name, rank or place. ``storage``: how object stores are reached; None: as the
    run did. ``tile_list``, ``bundle``: in the place of the run's own.
    ``anyway``: go on where the tile's files have changed. ``out``: folder for the cutout's files. ``scratch``: folder for what
    is fetched, decompressed and resampled; None: the system's.
    """

    run_folder: str
    candidate: str
    storage: StorageConfig | None = None
    tile_list: str | None = None
    bundle: str | None = None
    anyway: bool = False
    out: Path | None = None
    scratch: Path | None = None


def replay(request: ReplayRequest) -> ReplayReport:
    """Cut and score one object of a run again.

    The run folder is only read. On a machine of the run's own fingerprint every value and every pixel has to be equal bit for
    bit. On another one sums come out in another order: probabilities may differ by :data:`PROBABILITY_TOLERANCE`, bad fractions
    by :data:`BAD_FRACTION_TOLERANCE`, pixels by :data:`PIXEL_TOLERANCE_SIGMA` of their band's sigma. What is looked up
    (position and cell of the embedding), counted or decided has to be equal anywhere.

    Raises
    ------
    InputMissingError
        The object, or what it was made from, is not there any more: tile list, tile, files, bundle.
    ContentError
        Input files have changed, unless the request takes them anyway; a table or a tile is damaged.
    UsageError
        See :func:`~scanner.survey.objects.find_object`.
    """
    folder = RunFolder(open_store(request.run_folder, request.storage or StorageConfig()))
    record = folder.record()
    storage = request.storage or record.config.storage
    with temporary_folder(None if request.scratch is None else str(request.scratch)) as scratch:
        found = find_object(folder, request.candidate, scratch)
        tile = tile_list.read(request.tile_list or record.tile_list, storage).tile(found.commit.tile_id)
        bundle = bundles.load(request.bundle or record.config.scoring.bundle, storage)
        scorer = _scorer(bundle, record)
        differences = [
            *_changed_since(record, found, bundle, scorer.provider),
            *_changed_inputs(tile, found, storage, request.anyway),
        ]
        try:
            with open_tile(local_files.fetch_tile(tile, scratch, storage), record.config.cutouts, scratch) as images:
                batch = _batch(found, images, record, scorer.provider)
                row = int(np.flatnonzero(batch.targets.target_id == found.row["target_id"][0].as_py())[0])
                cutout = batch.take(np.array([row]))
                if found.commit.rescored is not None:
                    batch, row = _stored_batch(folder, found, batch_size(record.config.cutouts, record.provider), scratch)
                now = columns.score_table(
                    batch, score_batch(scorer, batch), tile.tile_id, scorer.bundle.manifest.further_names
                ).slice(row, 1)
                files = () if request.out is None else _written(request.out, found, cutout, images, record)
        except TileError as error:
            raise ContentError(str(error)) from None
        pixels = _pixels(folder, found, cutout, scratch)
    here = machine_fingerprint(scorer.provider)
    differences += _changed_machine(found.commit.machine, here)
    return ReplayReport(
        run_folder=folder.location,
        tile_id=tile.tile_id,
        target_id=int(found.row["target_id"][0].as_py()),
        name=found.name,
        rank=found.rank,
        ra=found.row["ra"][0].as_py(),
        dec=found.row["dec"][0].as_py(),
        machine_then=found.commit.machine,
        machine_now=here,
        differences=tuple(differences),
        pixels=pixels,
        values=compare_rows(found.row, now),
        files=tuple(str(file) for file in files),
    )


def _scorer(bundle: Bundle, record: RunRecord) -> Scorer:
    """The run's own provider, or where this machine does not have it, the best that it has."""
    scoring, cutouts = record.config.scoring, record.config.cutouts
    settings = (
        scoring.threads,
        scoring.beta,
        cutouts.max_bad_fraction,
        1,
        cutouts.require_all_bands,
        scoring.threshold,
        scoring.screen,
    )
    try:
        return Scorer(bundle, record.provider, *settings)
    except UsageError:
        return Scorer(bundle, "auto", *settings)


def _changed_since(record: RunRecord, found: FoundObject, bundle: Bundle, provider: str) -> Iterator[str]:
    if record.scanner_version != __version__:
        yield f"scanner: {record.scanner_version} → {__version__}"
    if record.bundle_fingerprint != bundle.fingerprint:
        yield (
            f"bundle: {record.bundle_name} {record.bundle_version} ({record.bundle_fingerprint[:12]}) → "
            f"{bundle.manifest.name} {bundle.manifest.version} ({bundle.fingerprint[:12]}); name the run's with --bundle"
        )
    if record.provider != provider:
        yield f"provider: {record.provider} → {provider}; this machine does not have the run's"
    if fingerprint.of_config(record.config, record.provider) != record.config_fingerprint:
        yield "settings: those in run.json are not those of its fingerprint; it was edited, or written by another scanner"
    if (found.commit.config_fingerprint, found.commit.bundle_fingerprint) != (
        record.config_fingerprint,
        record.bundle_fingerprint,
    ):
        yield f"settings: tile {found.commit.tile_id} was not scanned with the settings and bundle that run.json names"


def _changed_inputs(tile: Tile, found: FoundObject, storage: StorageConfig, anyway: bool) -> Iterator[str]:
    try:
        now = fingerprint.of_files(tile, storage)
    except TileError as error:
        raise InputMissingError(str(error)) from None
    then, names = found.commit.input_files, tile.files
    changed = [str(names.get(role, role)) for role in sorted(then.keys() | now.keys()) if then.get(role) != now.get(role)]
    if not changed:
        return
    told = f"{', '.join(changed)} {'has' if len(changed) == 1 else 'have'} changed since tile {tile.tile_id} was scanned"
    if not anyway:
        raise ContentError(
            f"{told}, so the comparison would say nothing of the run; restore the old files, or compare with these by --anyway."
        )
    yield f"inputs: {told}"


def _changed_machine(then: str, now: str) -> Iterator[str]:
    """What tells two machines apart: the parts of their fingerprints that only one of them has."""
    if not then:
        yield "machine: the run does not say what it was made on"
    elif then != now:
        old, new = then.split("; "), now.split("; ")
        gone, come = ([part for part in mine if part not in others] for mine, others in ((old, new), (new, old)))
        yield f"machine: {', '.join(gone) or 'nothing'} → {', '.join(come) or 'nothing'}"


def _batch(found: FoundObject, images: TileImages, record: RunRecord, provider: Provider) -> CutoutBatch:
    """The cutouts that the object was scored with: on a CPU none but itself count, on a GPU those of its batch."""
    alone = BATCH[provider] == 1
    size = 1 if alone else batch_size(record.config.cutouts, record.provider)
    rows = found.table.slice(found.index // size * size, size)
    (batch,) = cut(images, targets_of(rows), len(rows))
    return batch


def _stored_batch(folder: RunFolder, found: FoundObject, size: int, scratch: Path) -> tuple[CutoutBatch, int]:
    """The stored cutouts that the object was scored again with, and its row."""
    store, target_id = folder.cutouts(found.commit, scratch), found.row["target_id"][0].as_py()
    rows = np.empty(0, np.int64) if store is None else np.flatnonzero(store.target_id == target_id)
    if store is None or not len(rows):
        raise UsageError(
            f"{folder.location}: {found.name} was not scored again, as its cutout is not stored: its scores are those of the "
            f"scan; 'scanner rescore {folder.location} --bundle …' with the scan's bundle goes back to them."
        )
    first = int(rows[0]) // size * size
    return store.read(slice(first, first + size)), int(rows[0]) - first


def _pixels(folder: RunFolder, found: FoundObject, cutout: CutoutBatch, scratch: Path) -> ReplayedPixels:
    store = folder.cutouts(found.commit, scratch)
    rows = np.empty(0, np.int64) if store is None else np.flatnonzero(store.target_id == cutout.targets.target_id[0])
    if store is None or not len(rows):
        return ReplayedPixels(agreement="not kept")
    return compare_pixels(store.read(rows[:1]), cutout, store.attributes.codec)


def _written(out: Path, found: FoundObject, cutout: CutoutBatch, images: TileImages, record: RunRecord) -> tuple[Path, ...]:
    header = {
        "OBJECT": found.name,
        "TILE": found.commit.tile_id,
        "TARGET": str(found.row["target_id"][0].as_py()),
        "BUNDLE": f"{record.bundle_name} {record.bundle_version}",
        "CREATOR": f"scanner {__version__}",
    }
    return write_cutout(out, found.name.replace(" ", "_"), framed.of_tile(cutout, images), header)
