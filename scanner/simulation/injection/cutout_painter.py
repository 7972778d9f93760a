"""Cutouts of real tiles with painted light, object by object of a plan.

In: a plan and the opened tiles. Out: a :class:`~scanner.records.CutoutBatch` in the simulation's units, and the truth. Refused:
what :func:`~scanner.sky.tile_images.open_tile` and :func:`~scanner.simulation.injection.tile_psf.read_psf` refuse.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from scanner.config import CutoutsConfig
from scanner.cutouts import quality
from scanner.cutouts.extract import cut_pixels
from scanner.records import (
    BANDS,
    NISP_BANDS,
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
from scanner.simulation.datasets.cutout_scene import CutoutScene, draw_offset
from scanner.simulation.datasets.truth import TruthRow, truths_of
from scanner.simulation.injection.measured_objects import MAX_BAD_FRACTION
from scanner.simulation.injection.painted_scene import decoys, paint_object, painted_scene
from scanner.simulation.injection.painting import Brush, brush_of, paint, tile_exposure
from scanner.simulation.injection.plan import Plan
from scanner.simulation.injection.request import InjectionRequest, TileSummary
from scanner.simulation.injection.tile_psf import read_psf
from scanner.simulation.injection.tile_survey import flux_scale
from scanner.simulation.telescope.psf import Psf
from scanner.sky.local_files import ScratchFolder
from scanner.sky.tile_images import TileImages, open_tile

#: Objects painted at once: their canvases stay within the cache.
_BATCH_OBJECTS = 16
_MIDDLE = 0.5 * (VIS_CUTOUT_PIXELS - 1)


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
            images = open_tile(tile, CutoutsConfig(), self._scratch)
            self._open = number, images, brush_of(self._summaries[number], tile_psfs(tile, folder))
        return self._open[1], self._open[2]

    def close(self) -> None:
        """Let go of the tile that is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None


def tile_psfs(tile: Tile, scratch: ScratchFolder) -> dict[Band, Psf]:
    """The PSFs that the tile list names images of."""
    named = {band: tile.bands[band].psf for band in BANDS}
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
