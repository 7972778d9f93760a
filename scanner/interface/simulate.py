"""Draw tiles of a simulated sky and labelled datasets, or paint lenses into real tiles."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from scanner.atomic_file import write_atomically
from scanner.errors import InputMissingError, TileError, UsageError, importing
from scanner.interface.progress import bar
from scanner.processes import script_kept_from_children
from scanner.records import Band, CodecName, FailedTile, Record

if TYPE_CHECKING:
    from scanner.interface.objects import ObjectTable
    from scanner.simulation import DeviceName, GeneratorName, Ground, Parameters, PresetName
    from scanner.simulation.datasets.dataset import DatasetRecord
    from scanner.simulation.euclidise import EuclidisedRecord
    from scanner.simulation.injection.places import InjectionRecord


Request = TypeVar("Request", bound=Record)


@dataclass(frozen=True)
class SimulatedTiles:
    """Tiles that :func:`simulate` drew; of ``n_objects`` objects, ``n_visible`` are lenses whose arcs can be seen."""

    folder: Path
    n_objects: int
    n_visible: int

    @property
    def tile_list(self) -> Path:
        """What :func:`scanner.scan` takes."""
        return self.folder / "tile-list.txt"

    @property
    def truth(self) -> ObjectTable:
        """What is in the tiles, with every parameter that it was drawn with (``truth.parquet``)."""
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        from scanner.interface.objects import ObjectTable

        rows = pq.read_table(self.folder / "truth.parquet")
        place = rows.schema.get_field_index("tile_ids")
        field = rows.schema.field(place)
        tile_ids = pc.binary_join(rows["tile_ids"], " ")
        return ObjectTable.of(rows.set_column(place, field.with_type(tile_ids.type), tile_ids))


def simulate(
    out: str | Path,
    n_tiles: int = 2,
    size: int = 2000,
    *,
    seed: int = 1,
    overlap: float = 0.15,
    lenses_per_tile: float = 12.0,
    density: float = 1.0,
    companions: bool = True,
    workers: int | None = None,
    progress: bool | None = None,
) -> SimulatedTiles:
    """Draw overlapping tiles with catalogues, a tile list and the truth, as ``scanner simulate tiles`` does.

    Parameters
    ----------
    out
        Folder to make, or to go on with.
    n_tiles
        Number of tiles, in a row along right ascension.
    size
        Side of a tile in VIS pixels of 0.1″, at least 400.
    seed
        The same seed gives the same sky and the same bytes.
    overlap
        Share of a side that neighbours have in common, at most 0.5.
    lenses_per_tile
        Visible lenses in a tile, on average.
    density
        Galaxies and stars relative to the real sky.
    companions
        Write RMS and FLAG mosaics too.
    workers
        Processes, one a tile; one a core by default.
    progress
        Show a bar; by default on a terminal and in a notebook.

    Raises
    ------
    UsageError
        A number that makes no sense.
    OutputError
        The folder cannot be written, or holds something else.

    Examples
    --------
    >>> import scanner
    >>> sky = scanner.simulate("sky", n_tiles=2, size=800, seed=7, lenses_per_tile=8)
    >>> sky.tile_list.name, len(sky.truth) == sky.n_objects
    ('tile-list.txt', True)
    """
    from scanner.simulation.mosaics.tiles import TilesRequest, draw_tiles

    request = _checked(
        TilesRequest,
        n_tiles=n_tiles,
        size=size,
        seed=seed,
        overlap=overlap,
        lenses_per_tile=lenses_per_tile,
        density=density,
        companions=companions,
    )
    folder = Path(out)
    with script_kept_from_children(), bar("drawing tiles", shown=progress, unit="tiles") as move:
        n_visible, n_objects = draw_tiles(request, folder, workers or _cores(), move)
    return SimulatedTiles(folder, n_objects, n_visible)


def simulate_dataset(
    out: str | Path,
    preset: PresetName = "train",
    n_objects: int | None = None,
    *,
    seed: int = 1,
    red_fraction: float | None = None,
    generator: GeneratorName = "fast",
    parameters: Parameters = "physical",
    device: DeviceName = "cpu",
    codec: CodecName = "compact",
    workers: int | None = None,
    progress: bool | None = None,
) -> DatasetRecord:
    """Draw labelled cutouts to train and to measure on, as ``scanner simulate dataset`` does.

    Parameters
    ----------
    out
        Folder to make, or to go on with: a cutout store, ``truth.parquet`` and ``dataset.json``.
    preset
        How objects are drawn; ``scanner simulate presets`` lists what there is.
    n_objects
        Number of objects; the preset's by default.
    seed
        The same seed gives the same objects; presets never share any.
    red_fraction
        Share of red sources, instead of the preset's.
    generator, parameters, device, codec
        What traces the rays, parameters of compound lenses, what computes the pixels, how they are stored.
    workers
        Processes; one a core by default.
    progress
        Show a bar; by default on a terminal and in a notebook.

    Returns
    -------
    DatasetRecord
        ``n_lenses``, ``n_visible``, and what was asked for.

    Examples
    --------
    >>> import scanner
    >>> scanner.simulate_dataset("set", "eval", 4, workers=1).request.n_objects
    4
    """
    from scanner.simulation.datasets.dataset import DatasetRequest, draw_dataset
    from scanner.simulation.datasets.presets import PRESETS

    if n_objects is None and preset in PRESETS:
        n_objects = PRESETS[preset].n_objects
    request = _checked(
        DatasetRequest,
        preset=preset,
        n_objects=n_objects,
        seed=seed,
        red_source_fraction=red_fraction,
        generator=generator,
        parameters=parameters,
        device=device,
        codec=codec,
    )
    with script_kept_from_children(), bar("drawing objects", shown=progress, unit="objects") as move:
        return draw_dataset(request, Path(out), workers or _cores(), move)


def inject(
    tile_list: str | Path,
    out: str | Path,
    n_objects: int,
    *,
    preset: PresetName = "train",
    seed: int = 1,
    ground: Ground = "both",
    mosaics: bool = False,
    codec: CodecName = "compact",
    workers: int | None = None,
    progress: bool | None = None,
) -> InjectionRecord:
    """Paint lenses and look-alikes into real tiles, as ``scanner simulate inject`` does.

    Parameters
    ----------
    tile_list
        The tiles.
    out
        Folder to make, or to go on with: labelled cutouts; with ``mosaics``, copies of the mosaics with a tile list to scan.
    n_objects
        Number of objects.
    preset, seed
        How objects are drawn; the same seed and mosaics give the same objects.
    ground
        Paint beside real galaxies, whole objects into empty sky, or both.
    mosaics
        Paint into copies of the mosaics, to measure what a whole scan finds.
    codec
        How cutouts are stored.
    workers
        Processes; one a core by default.
    progress
        Show a bar; by default on a terminal and in a notebook.

    Returns
    -------
    InjectionRecord
        ``n_lenses``, ``n_visible``, what was found in each tile, and what was asked for.

    Raises
    ------
    InputMissingError
        A tile of the list is not there.
    """
    from scanner.simulation.injection import inject as injection
    from scanner.simulation.injection.places import InjectionRequest
    from scanner.sky.tile_list import read

    listed = read(tile_list)
    if listed.failed:
        raise InputMissingError(listed.failed[0].reason)
    request = _checked(
        InjectionRequest,
        preset=preset,
        n_objects=n_objects,
        seed=seed,
        tiles=tuple(listed.tiles.values()),
        ground="galaxies" if mosaics else ground,
        mosaics=mosaics,
        codec=codec,
    )
    unit = "tiles" if mosaics else "objects"
    with script_kept_from_children(), bar(f"drawing {unit}", shown=progress, unit=unit) as move:
        return injection.inject(request, Path(out), workers or _cores(), move)


def euclidise(
    tile_list: str | Path,
    out: str | Path,
    *,
    seed: int = 1,
    depth: float = 1.0,
    fwhm_arcsec: Mapping[Band, float] | None = None,
    zero_points: Mapping[Band, float] | None = None,
    progress: bool | None = None,
) -> EuclidisedRecord:
    """Make images of sharper telescopes, such as HST and JWST, like Euclid's, as ``scanner simulate euclidise`` does.

    Parameters
    ----------
    tile_list
        The images, by the band that they stand for: ``id=NAME VIS=f814w.fits VIS_PSF=psf.fits H=f160w.fits``; VIS is needed.
    out
        Folder to make, or to go on with: a tile list to scan, and a folder of mosaics for each tile.
    seed, depth
        Of the noise; exposure time in units of Euclid's.
    fwhm_arcsec
        Of bands whose PSF is taken for a Gaussian, where the list names no image of it.
    zero_points
        AB, of bands whose header does not tell.
    progress
        Show a bar; by default on a terminal and in a notebook.

    Returns
    -------
    EuclidisedRecord
        What was done to every image, and the tiles that could not be made, with the reasons.

    Raises
    ------
    InputMissingError
        There is no such list.
    OutputError
        The folder cannot be written, or holds tiles that were made with other settings.
    """
    with importing("euclidising", "prepare"):
        from scanner.simulation import euclidise as sharp
    from scanner.sky.tile_list import read

    listed = read(tile_list)
    folder, failed, made = Path(out), list(listed.failed), []
    with bar("euclidising", shown=progress, unit="tiles") as move:
        for done, tile in enumerate(listed.tiles.values()):
            move(done, len(listed.tiles))
            try:
                made.append(
                    sharp.euclidised_once(
                        tile, folder, seed=seed, depth=depth, fwhm_arcsec=fwhm_arcsec, zero_points=zero_points
                    )
                )
            except TileError as error:
                failed.append(FailedTile(tile_id=tile.tile_id, reason=str(error)))
        move(len(listed.tiles), len(listed.tiles))
    record = sharp.EuclidisedRecord(tiles=tuple(made), failed=tuple(failed))
    write_atomically(folder / sharp.LIST_FILE, "".join(f"{tile.line}\n" for tile in made).encode())
    write_atomically(folder / sharp.RECORD_FILE, record.to_bytes())
    return record


def _checked(model: type[Request], **values: Any) -> Request:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = f"{first['loc'][0]}: " if first["loc"] else ""
        raise UsageError(f"{where}{first['msg'].removeprefix('Value error, ')}.") from None


def _cores() -> int:
    return len(os.sched_getaffinity(0))
