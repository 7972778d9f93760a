"""Light painted into real pixels, with the noise that it brings."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from scanner.config import CutoutsConfig
from scanner.cutouts import quality
from scanner.cutouts.extract import cut_pixels
from scanner.errors import UsageError
from scanner.labelled_set import FIELD_COLUMN
from scanner.records import (
    BANDS,
    NISP_BANDS,
    NISP_CUTOUT_PIXELS,
    VIS_CUTOUT_PIXELS,
    VIS_PIXEL_SCALE_ARCSEC,
    Band,
    CutoutBatch,
    Flag,
    Float32,
    Float64,
    Int64,
    Targets,
    Tile,
)
from scanner.simulation.datasets.cutouts import noiseless
from scanner.simulation.datasets.presets import LENS_CLASSES, CutoutScene, Preset, draw_offset
from scanner.simulation.datasets.truth import TruthRow, truth_table, truths_of
from scanner.simulation.injection.measured import MAX_BAD_FRACTION, read_psf
from scanner.simulation.injection.places import (
    DEFLECTOR,
    EMPTY,
    GALAXY,
    InjectionRequest,
    Places,
    Region,
    TileSummary,
    choose_deflector,
    flux_scale,
    joined,
)
from scanner.simulation.light.components import Component
from scanner.simulation.population import classes
from scanner.simulation.population.classes import draw_class
from scanner.simulation.population.deflectors import MAX_OFFSET, NEAR_LENS_OFFSET, draw_source
from scanner.simulation.population.galaxies import LabelledObject, Options, moved, power_law_magnitude
from scanner.simulation.population.lenses import NEAR_LENS_CLEARANCE
from scanner.simulation.population.neighbours import arc_like, companions, draw_field_galaxy
from scanner.simulation.population.truth import ArcMeasurement
from scanner.simulation.telescope import noise
from scanner.simulation.telescope.artefacts import Star
from scanner.simulation.telescope.exposure import CANVAS_PIXELS, Exposure, add_stars, draw_exposure
from scanner.simulation.telescope.psf import Psf, draw_psf
from scanner.sky.local_files import ScratchFolder
from scanner.sky.tile_images import TileImages, open_tile
from scanner.sphere import cell_numbers


@dataclass(frozen=True)
class Brush:
    """How light is painted into one tile.

    ``psfs``: those that have an image. ``widths``: factors on the widths of our own PSFs, for the others. ``grain``: factor on
    the standard deviation of the noise of painted light, in the simulation's units. ``native``: NISP bands with 0.3" pixels.
    """

    psfs: dict[Band, Psf]
    widths: dict[Band, float]
    grain: dict[Band, float]
    native: dict[Band, bool]


def brush_of(summary: TileSummary, psfs: dict[Band, Psf]) -> Brush:
    """What a tile's summary says, as the painter needs it."""
    cases = summary.alignment.split("/")
    cases = cases * len(NISP_BANDS) if len(cases) == 1 else cases
    grain = {
        band: math.sqrt(optics.variance_slope / flux_scale(optics.zero_point, band) / noise.VARIANCE_SLOPE[band])
        for band, optics in summary.bands.items()
    }
    widths = {band: optics.psf_width for band, optics in summary.bands.items()}
    return Brush(psfs, widths, grain, {band: case != "bin" for band, case in zip(NISP_BANDS, cases, strict=True)})


def tile_exposure(rng: Generator, brush: Brush) -> Exposure:
    """How painted light is seen: the tile's PSF; where it has no image, ours with its width and an orientation of its own.

    The orientation of the painted light's PSF is drawn for every object, whatever its class, so that it tells nothing.
    """
    native = all(brush.native.values())
    exposure = draw_exposure(rng, 1.0 if native else 0.0)
    psfs = tuple(
        brush.psfs[band] if band in brush.psfs else draw_psf(rng, band, exposure.roll, brush.widths.get(band, 1.0))
        for band in BANDS
    )
    return replace(exposure, psfs=psfs, native=native)


@dataclass(frozen=True)
class Paint:
    """Painted light of N cutouts and its noise, in the simulation's units; images as in a cutout store.

    ``vis``, ``vis_noise`` (N, 200, 200); ``nisp``, ``nisp_noise`` (N, 3, 66, 66); ``measured``: arcs of each scene's systems.
    """

    vis: Float32
    nisp: Float32
    vis_noise: Float32
    nisp_noise: Float32
    measured: list[list[ArcMeasurement]]


def paint(scenes: Sequence[CutoutScene], brushes: Sequence[Brush]) -> Paint:
    """Draw the painted light of scenes, and its noise from each scene's own random numbers."""
    canvases, measured = noiseless(scenes)
    add_stars(canvases, [item.exposure for item in scenes], [[Star(c.x, c.y, c.flux) for c in item.points] for item in scenes])
    margin, fine = (CANVAS_PIXELS - VIS_CUTOUT_PIXELS) // 2, 3 * NISP_CUTOUT_PIXELS
    first = (CANVAS_PIXELS - fine) // 2
    inside = slice(first, first + fine)
    nisp = noise.bin3(canvases[:, 1:, inside, inside])
    vis_noise = np.empty((len(scenes), VIS_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS), dtype=np.float32)
    nisp_noise = np.empty_like(nisp)
    for row, (item, brush) in enumerate(zip(scenes, brushes, strict=True)):
        wide = canvases[row, 0, margin - 1 : -margin + 1, margin - 1 : -margin + 1]
        vis_noise[row] = brush.grain["VIS"] * vis_grain(item.rng, wide)
        for k, band in enumerate(NISP_BANDS):
            phase = item.exposure.phases[k]
            nisp_noise[row, k] = brush.grain[band] * nisp_grain(item.rng, nisp[row, k], band, brush.native[band], phase)
    return Paint(canvases[:, 0, margin:-margin, margin:-margin], nisp, vis_noise, nisp_noise, measured)


def vis_grain(rng: Generator, light: Any) -> Float32:
    """Noise of painted light in VIS, correlated as the mosaic's; ``light`` is one pixel wider on each side."""
    white = rng.standard_normal(light.shape, dtype=np.float32)
    return np.asarray(noise.vis_noise(white, light, 0.0), dtype=np.float32)


def nisp_grain(rng: Generator, light: Any, band: Band, native: bool, phase: tuple[float, float]) -> Float32:
    """Noise of painted light in 0.3" pixels of NISP, (n, n): native, or summed from a mosaic's 0.1" pixels."""
    n = len(light)
    if native:
        return np.asarray(rng.standard_normal((n, n), dtype=np.float32) * noise.native_rms(light, band, 0.0), dtype=np.float32)
    white = rng.standard_normal((n + 2, n + 2), dtype=np.float32)
    rows, columns = (np.arange(3 * n) / 3.0 + shift for shift in phase)
    scatter = noise.bin3(noise.resampled(white, rows, columns))
    return np.asarray(scatter * noise.rms(light / 9.0, band, 0.0), dtype=np.float32)


#: Classes whose middle is left as it is: a real deflector, another real object, empty sky.
RealClass = Literal["real_deflector", "real_galaxy", "real_sky"]
REAL_CLASSES: tuple[RealClass, ...] = get_args(RealClass)
#: Non-lenses on real galaxies: share of each. Half painted in the middle, half as they are.
REAL_GROUND: dict[str, float] = {
    "near_lens": 0.14,
    "companion": 0.18,
    "tangential": 0.18,
    "real_deflector": 0.22,
    "real_galaxy": 0.24,
    "real_sky": 0.04,
}
#: Classes that cannot be painted: real pixels have their own artefacts, what is empty is ``real_sky``, and what is painted is
#: the candidate.
_NOT_PAINTED = ("artefact", "empty", "beside_lens")
#: Unrelated galaxies painted into every cutout: how many, how far from the object at least and from the centre along x and y at
#: most (arcsec), how bright.
DECOYS, DECOY_DISTANCE_ARCSEC, DECOY_HALF_SIDE_ARCSEC, DECOY_MAGNITUDES = (1, 3), 3.5, 9.0, (21.5, 25.0)


def kind_of(class_name: str, into_sky: bool) -> int:
    """The kind of place that a class needs."""
    if into_sky or class_name == "real_sky":
        return EMPTY
    return GALAXY if class_name == "real_galaxy" else DEFLECTOR


def can_use_galaxies(preset: Preset) -> bool:
    """Whether a preset's lenses can be painted on real galaxies: single lenses only."""
    return "lens" in preset.mix or preset.lens_share == 0.0


def class_shares(
    preset: Preset, into_sky: bool, painted_only: bool = False, real_ground: Mapping[str, float] = REAL_GROUND
) -> Mapping[str, float]:
    """Share of each class, adding up to one; lenses are as many on both grounds. ``painted_only``: nothing is left as it is."""
    lenses: dict[str, float] = {name: share for name, share in preset.mix.items() if name in LENS_CLASSES}
    others: dict[str, float] = {name: share for name, share in preset.mix.items() if name not in (*LENS_CLASSES, *_NOT_PAINTED)}
    if not into_sky:
        lenses, others = {"lens": preset.lens_share} if lenses else {}, dict(real_ground)
    if painted_only:
        others = {name: share for name, share in others.items() if name not in REAL_CLASSES}
    total = sum(others.values())
    return lenses | {name: (1.0 - preset.lens_share) * share / total for name, share in others.items()}


def real_ground(own_share: float | None, n_deflectors: int, n_galaxies: int) -> Mapping[str, float]:
    """:data:`REAL_GROUND` with another share of objects as they are, any of the survey's galaxies as likely as any other."""
    if own_share is None:
        return REAL_GROUND
    painted = {name: share for name, share in REAL_GROUND.items() if name not in REAL_CLASSES}
    sky, n = REAL_GROUND["real_sky"], max(n_deflectors + n_galaxies, 1)
    galaxies = sum(REAL_GROUND[name] for name in REAL_CLASSES) - sky
    own = {"real_deflector": galaxies * n_deflectors / n, "real_galaxy": galaxies * n_galaxies / n, "real_sky": sky}
    total = sum(painted.values()), sum(own.values())
    shares = {name: (1.0 - own_share) * share / total[0] for name, share in painted.items()}
    return {name: share for name, share in (shares | {k: own_share * v / total[1] for k, v in own.items()}).items() if share}


def paint_object(
    rng: Generator, class_name: str, into_sky: bool, host: tuple[float, float, float, float], options: Options
) -> LabelledObject:
    """What is painted in the middle, about the origin.

    Parameters
    ----------
    rng
        Random numbers of the object.
    class_name
        One of :func:`class_shares`.
    into_sky
        Whether the whole object is painted.
    host
        VIS magnitude, VIS - H, axis ratio and position angle of the real galaxy, if there is one.
    options
        Of the preset.
    """
    if into_sky and class_name not in REAL_CLASSES:
        return classes.draw_object(rng, class_name, options)
    if class_name in REAL_CLASSES:
        return LabelledObject(class_name, [])
    deflector = choose_deflector(rng, *host, options)
    if class_name == "lens":
        return LabelledObject("lens", [], (draw_source(rng, deflector, (0.0, MAX_OFFSET), options),))
    if class_name == "near_lens":
        system = draw_source(rng, deflector, NEAR_LENS_OFFSET, options, clearance=NEAR_LENS_CLEARANCE)
        return LabelledObject("near_lens", [], (system,))
    light = companions(rng, options) if class_name == "companion" else arc_like(rng, deflector.lens.theta_e, options)
    return LabelledObject(class_name, light)


def decoys(rng: Generator, x: float, y: float) -> list[Component]:
    """Unrelated galaxies in a cutout whose object lies at ``(x, y)`` arcsec, away from it; the same for every class."""
    components: list[Component] = []
    for _ in range(int(rng.integers(DECOYS[0], DECOYS[1] + 1))):
        here_x, here_y = x, y
        while math.hypot(here_x - x, here_y - y) < DECOY_DISTANCE_ARCSEC:
            here_x, here_y = (float(value) for value in rng.uniform(-DECOY_HALF_SIDE_ARCSEC, DECOY_HALF_SIDE_ARCSEC, 2))
        components += draw_field_galaxy(rng, here_x, here_y, power_law_magnitude(rng, *DECOY_MAGNITUDES))
    return components


def painted_scene(
    rng: Generator, painted: LabelledObject, unrelated: list[Component], x: float, y: float, exposure: Exposure
) -> CutoutScene:
    """The painted light of a cutout whose object lies at ``(x, y)`` arcsec from its centre; ``unrelated`` is placed already."""
    return CutoutScene(
        rng=rng,
        class_name=painted.class_name,
        components=[*moved(painted.components, x, y), *unrelated],
        n_object=len(painted.components),
        systems=tuple(system.moved(x, y) for system in painted.systems),
        x=x,
        y=y,
        exposure=exposure,
    )


#: With ``ground="both"``, share of objects that are painted whole into empty sky.
SKY_SHARE = 0.4
#: In mosaics, painted objects are at least this far from one another, VIS pixels.
_APART_PIXELS = 60.0
_NAMES = {DEFLECTOR: "bright early-type galaxies", GALAXY: "other galaxies", EMPTY: "empty places"}


@dataclass(frozen=True)
class Plan:
    """``tile`` (N,) number of the tile; ``places`` of N rows; ``class_name`` (N,); ``into_sky`` (N,) bool."""

    tile: NDArray[np.int64]
    places: Places
    class_name: tuple[str, ...]
    into_sky: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.tile)

    def take(self, rows: range) -> Plan:
        """Some rows."""
        index = np.arange(rows.start, rows.stop)
        names = tuple(self.class_name[k] for k in index.tolist())
        return Plan(self.tile[index], self.places.take(index), names, self.into_sky[index])

    def host(self, row: int) -> tuple[float, float, float, float]:
        """VIS magnitude, VIS - H, axis ratio and position angle of the real galaxy of a row, NaN where there is none."""
        places = self.places
        magnitude, colour, q, angle = (float(v[row]) for v in (places.magnitude, places.colour, places.q, places.angle))
        return magnitude, colour, q, angle


def make_plan(request: InjectionRequest, found: Sequence[Places]) -> Plan:
    """Draw classes and places; every place is used before any is used again, and at most as often as the request says.

    Parameters
    ----------
    request
        How many, and how drawn.
    found
        Places of each tile.

    Raises
    ------
    UsageError
        Too few places of a kind; the message says how many there are.
    """
    rng = np.random.default_rng([request.seed, 0x706C616E])
    preset = request.drawn_as
    into_sky_share = {"sky": 1.0, "galaxies": 0.0, "both": SKY_SHARE}[request.ground]
    if not can_use_galaxies(preset):
        into_sky_share = 1.0
    n_deflectors, n_galaxies = (sum(int((places.kind == kind).sum()) for places in found) for kind in (DEFLECTOR, GALAXY))
    ground = real_ground(request.own_share, n_deflectors, n_galaxies)
    shares = {flag: class_shares(preset, flag, request.mosaics, ground) for flag in (False, True)}
    into_sky = rng.random(request.n_objects) < into_sky_share
    names = [draw_class(rng, shares[flag]) for flag in into_sky.tolist()]
    kinds = np.array([kind_of(name, flag) for name, flag in zip(names, into_sky.tolist(), strict=True)])
    if request.mosaics:
        found = [_apart(places) for places in found]
    tile = np.concatenate([np.full(len(places), number) for number, places in enumerate(found)])
    pool = joined(found)
    place = np.empty(request.n_objects, dtype=np.int64)
    short = []
    for kind, what in _NAMES.items():
        there, rows = np.flatnonzero(pool.kind == kind), np.flatnonzero(kinds == kind)
        if len(rows) > request.uses * len(there):
            short.append(f"{len(rows)} {what} are needed and there are {request.uses * len(there)}")
            continue
        rounds = [rng.permutation(there) for _ in range(max(1, -(-len(rows) // max(len(there), 1))))]
        place[rows] = np.concatenate(rounds)[: len(rows)]
    if short:
        raise UsageError(
            f"--n {request.n_objects} is more than the {len(found)} tiles hold: {'; '.join(short)};"
            " ask for fewer objects, another --ground, or give more tiles."
        )
    order = np.argsort(tile[place], kind="stable")
    return Plan(tile[place][order], pool.take(place[order]), tuple(names[k] for k in order.tolist()), into_sky[order])


def _apart(places: Places) -> Places:
    """Places that keep a distance from all before them: painted objects must not run into one another."""
    pairs = cKDTree(np.stack([places.x, places.y], axis=1)).query_pairs(_APART_PIXELS, output_type="ndarray")
    keep = np.ones(len(places), dtype=bool)
    for first, second in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].tolist():
        if keep[first]:
            keep[second] = False
    return places.take(np.flatnonzero(keep))


def columns(plan: Plan) -> dict[str, tuple[str, str, NDArray[Any]]]:
    """Columns of the truth table that tell where an object was painted: unit, description, values."""
    host = plan.places.kind != EMPTY
    unknown = np.full(len(plan), np.nan)
    return {
        "x_pixels": ("pix", "column of the object in the VIS mosaic, 0 in the middle of the first", plan.places.x),
        "y_pixels": ("pix", "row of the object in the VIS mosaic, 0 in the middle of the first", plan.places.y),
        "ra": ("deg", "right ascension of the object", plan.places.ra),
        "dec": ("deg", "declination of the object", plan.places.dec),
        "into_sky": ("", "the whole object is painted into empty sky", plan.into_sky),
        "host_id": ("", "id of the real galaxy; -1 where there is none", np.where(host, plan.places.target_id, -1)),
        "host_magnitude_vis": ("mag(AB)", "VIS magnitude of the real galaxy", np.where(host, plan.places.magnitude, unknown)),
        "host_vis_minus_h": (
            "mag(AB)",
            "VIS - H of the real galaxy within 1 arcsec",
            np.where(host, plan.places.colour, unknown),
        ),
    }


#: Objects painted at once: their canvases stay within the cache.
_BATCH_OBJECTS = 16
_MIDDLE = 0.5 * (VIS_CUTOUT_PIXELS - 1)


def truth_with_places(truth: Sequence[TruthRow], plan: Plan, tiles: Sequence[Tile], region: Region | None = None) -> pa.Table:
    """The truth of simulated cutouts, and where each object was painted; with a region, in which of its cells."""
    table = truth_table(truth)
    names = pa.array([tiles[number].tile_id for number in plan.tile.tolist()], pa.string())
    described = {"tile_id": ("", "tile whose pixels these are", names)}
    described |= {name: (unit, text, pa.array(values)) for name, (unit, text, values) in columns(plan).items()}
    if region is not None:
        cells = cell_numbers(plan.places.ra, plan.places.dec, region.order).tolist()
        fields = pa.array([f"healpix-{region.order}-{cell}" for cell in cells], pa.string())
        described[FIELD_COLUMN.name] = (FIELD_COLUMN.unit, FIELD_COLUMN.description, fields)
    for name, (unit, text, values) in described.items():
        field = pa.field(name, values.type, nullable=False, metadata={"unit": unit, "description": text})
        table = table.append_column(field, values)
    return table


def object_generator(request: InjectionRequest, index: int) -> Generator:
    """The random numbers of one painted object."""
    name = zlib.crc32(f"injection {request.preset}".encode())
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([name, request.seed, index])))


class OpenTiles:
    """Opens tiles as they are asked for; the last one stays open until the next is, or :meth:`close`."""

    def __init__(self, tiles: Sequence[Tile], summaries: Sequence[TileSummary], scratch: Path) -> None:
        self._tiles, self._summaries, self._scratch = tiles, summaries, scratch
        self._open: tuple[int, TileImages, Brush] | None = None

    def get(self, number: int) -> tuple[TileImages, Brush]:
        """One tile, and how light is painted into it."""
        if self._open is None or self._open[0] != number:
            self.close()
            tile, folder = self._tiles[number], ScratchFolder(self._scratch)
            images = open_tile(tile, CutoutsConfig(require_all_bands=True), self._scratch)
            self._open = number, images, brush_of(self._summaries[number], tile_psfs(tile, folder))
        return self._open[1], self._open[2]

    def close(self) -> None:
        """Let go of the tile that is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None


def tile_psfs(tile: Tile, scratch: ScratchFolder) -> dict[Band, Psf]:
    """The PSFs that the tile list names images of."""
    named = {band: tile.bands[band].psf for band in BANDS if band in tile.bands}
    return {band: read_psf(reference, band, scratch) for band, reference in named.items() if reference is not None}


def paint_rows(request: InjectionRequest, plan: Plan, tiles: OpenTiles, rows: range) -> tuple[CutoutBatch, list[TruthRow]]:
    """Cutouts and truth of some rows of the plan, tile after tile, in their order."""
    batches: list[CutoutBatch] = []
    truth: list[TruthRow] = []
    first = rows.start
    while first < rows.stop:
        last = first + 1
        while last < min(rows.stop, first + _BATCH_OBJECTS) and plan.tile[last] == plan.tile[first]:
            last += 1
        images, brush = tiles.get(int(plan.tile[first]))
        batch, painted = _paint(request, images, brush, plan.take(range(first, last)), first)
        batches.append(batch)
        truth += painted
        first = last
    columns = {name: np.concatenate([vars(batch)[name] for batch in batches]) for name in vars(batches[0]) if name != "targets"}
    targets = {name: np.concatenate([vars(batch.targets)[name] for batch in batches]) for name in vars(batches[0].targets)}
    return CutoutBatch(targets=Targets(**targets), **columns), truth


@dataclass(frozen=True)
class _RealPixels:
    """Real cutouts in the simulation's units, with their first pixels ``x0, y0`` (N,)."""

    vis: Float32
    nisp: Float32
    x0: Int64
    y0: Int64


def _paint(
    request: InjectionRequest, images: TileImages, brush: Brush, plan: Plan, first: int
) -> tuple[CutoutBatch, list[TruthRow]]:
    """Cut and paint objects of one tile; ``first``: the number of the first one in the dataset."""
    preset, places = request.drawn_as, plan.places
    generators = [object_generator(request, first + k) for k in range(len(plan))]
    shift = np.array([draw_offset(rng, preset) for rng in generators]) / VIS_PIXEL_SCALE_ARCSEC
    real = _cut(images, places.x, places.y, shift)
    x, y = ((place - corner - _MIDDLE) * VIS_PIXEL_SCALE_ARCSEC for place, corner in ((places.x, real.x0), (places.y, real.y0)))
    scenes = [_scene(rng, request, plan, k, brush, float(x[k]), float(y[k])) for k, rng in enumerate(generators)]
    painted = paint(scenes, [brush] * len(scenes))
    vis = real.vis + painted.vis + painted.vis_noise
    nisp = real.nisp + painted.nisp + painted.nisp_noise
    truth = with_host_magnitudes(truths_of(range(first, first + len(plan)), scenes, painted.measured), plan)
    measured = quality.measure(vis, nisp)
    flags = np.where(quality.is_masked(measured.bad_fraction), Flag.MASKED_PIXELS, 0).astype(np.uint32)
    targets = Targets(
        target_id=np.arange(first, first + len(plan)),
        ra=places.ra,
        dec=places.dec,
        x=places.x,
        y=places.y,
        magnitude=np.array([row.light.magnitude_vis for row in truth], dtype=np.float32),
    )
    batch = CutoutBatch(
        targets=targets,
        vis=vis,
        nisp=nisp,
        x0=real.x0,
        y0=real.y0,
        offset=(np.stack([x, y], axis=1) / VIS_PIXEL_SCALE_ARCSEC).astype(np.float32),
        bad_fraction=measured.bad_fraction,
        sky=measured.sky,
        sigma=measured.sigma,
        flags=flags,
    )
    return batch, truth


def with_host_magnitudes(truth: Sequence[TruthRow], plan: Plan) -> list[TruthRow]:
    """Rows whose object is the real galaxy, where there is one, and not what was painted beside it."""
    hosts = plan.places.magnitude.tolist()
    return [
        replace(row, light=replace(row.light, magnitude_vis=host)) if np.isfinite(host) else row
        for row, host in zip(truth, hosts, strict=True)
    ]


def _scene(rng: Generator, request: InjectionRequest, plan: Plan, k: int, brush: Brush, x: float, y: float) -> CutoutScene:
    painted = paint_object(rng, plan.class_name[k], bool(plan.into_sky[k]), plan.host(k), request.drawn_as.options)
    return painted_scene(rng, painted, decoys(rng, x, y), x, y, tile_exposure(rng, brush))


def _cut(images: TileImages, x: Float64, y: Float64, shift: NDArray[np.float64]) -> _RealPixels:
    """Cutouts with objects at ``(x, y)`` off centre by ``shift`` (N, 2) pixels; centred where they would reach too far out."""
    x0, y0, _ = images.alignment.place(x - shift[:, 0], y - shift[:, 1])
    vis, nisp = cut_pixels(images, x0, y0)
    bad = (quality.measure(vis, nisp).bad_fraction > MAX_BAD_FRACTION).any(axis=1)
    if bad.any():
        x0[bad], y0[bad], _ = images.alignment.place(x[bad], y[bad])
        vis[bad], nisp[bad] = cut_pixels(images, x0[bad], y0[bad])
    vis /= np.float32(flux_scale(images.vis.zero_point, "VIS"))
    for channel, band in enumerate(NISP_BANDS):
        nisp[:, channel] /= np.float32(flux_scale(images.nisp[band].zero_point, band))
    return _RealPixels(vis, nisp, x0, y0)
