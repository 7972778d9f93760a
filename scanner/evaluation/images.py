"""Single images of any telescope, such as known lenses: cut to the shape that networks know, scored over eight orientations."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.ndimage import map_coordinates

from scanner.config import CutoutsConfig
from scanner.cutouts import quality
from scanner.cutouts.extract import cut
from scanner.cutouts.quality import fill_bad_pixels
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.calibration import Calibration, sigmoid
from scanner.ensemble.preprocessing import ORIENTATIONS, turn
from scanner.ensemble.session import EnsembleSession
from scanner.errors import InputMissingError, TileError, TileListError
from scanner.evaluation.results import ImageScore
from scanner.records import (
    BANDS,
    MEMBER_BANDS,
    MEMBER_PIXELS,
    MEMBERS,
    NISP_CUTOUT_PIXELS,
    NISP_PIXEL_SCALE_ARCSEC,
    VIS_CUTOUT_PIXELS,
    VIS_PIXEL_SCALE_ARCSEC,
    Band,
    CutoutBatch,
    Float32,
    Float64,
    ImageRef,
    MemberName,
    Record,
    Targets,
    Tile,
)
from scanner.sky import tile_list
from scanner.sky.fits_image import read_image
from scanner.sky.mosaic import celestial_wcs
from scanner.sky.tile_images import open_tile

#: New pixels smaller than this share of the old ones are interpolated; on squares they would show steps.
ENLARGING = 0.8
#: Points along the side of a new pixel that measure which area it shares with old ones.
LATTICE = 8
_EXTENSION = re.compile(r"(?P<path>.+)\[(?P<extension>[^\[\]]+)\]")


@dataclass(frozen=True)
class NonLenses:
    """What images are compared with: what each judge (None: the combination) gives to the non-lenses of the set ``name``."""

    name: str
    scores: Mapping[MemberName | None, Float64]

    def share_above(self, log_odds: Float64, judge: MemberName | None) -> tuple[float, ...] | None:
        """Share of them to which the judge gives more than each of ``log_odds``; None if there are none."""
        rising = np.sort(self.scores[judge])
        if not len(rising):
            return None
        n_above = len(rising) - np.searchsorted(rising, log_odds, side="right")
        return tuple(float(share) for share in n_above / len(rising))


def score_image(
    name: str,
    batch: CutoutBatch,
    bundle: Bundle,
    bundle_name: str,
    session: EnsembleSession,
    *,
    judge: MemberName | None = None,
    others: NonLenses | None = None,
) -> ImageScore:
    """Score a batch of one over its eight orientations.

    Nothing on the sky has a preferred orientation, so the scatter over the orientations tells how far a score can be trusted.
    What a score is worth depends on how many non-lenses get a higher one: ``above`` says so for each orientation, and compares
    between bundles where probabilities do not. Probabilities of members are of each orientation as it is; what is compared with
    non-lenses has test-time augmentation where the bundle asks for it, as they have.

    Parameters
    ----------
    name, bundle_name
        To be quoted.
    batch
        One cutout.
    bundle, session
        What scores it.
    judge
        See :func:`judge_of`.
    others
        By the same bundle; None: there is nothing to compare with.
    """
    logits = image_logits(batch, session)
    probabilities = sigmoid(logits.astype(np.float64))
    seen = _as_scanned(bundle, logits, judge)
    log_odds = judged(bundle, seen, judge)
    bad = [float(value) for value in batch.bad_fraction[0]]
    above = None if others is None else others.share_above(log_odds, judge)
    return ImageScore(
        bundle=bundle_name,
        name=name,
        bad_fraction=(bad[0], bad[1], bad[2], bad[3]),
        probabilities=tuple(float(value) for value in probabilities.mean(axis=0)),
        scatter=tuple(float(value) for value in probabilities.std(axis=0)),
        grid_value=None if bundle.grid is None else float(bundle.grid.lookup(seen).value.mean()),
        calibrated=float(bundle.calibration.apply(seen.mean(axis=0, keepdims=True))[0]),
        judge=judge,
        log_odds=tuple(float(value) for value in log_odds),
        above=above,
        compared_with=None if others is None or above is None else others.name,
        n_compared=0 if others is None else len(others.scores[judge]),
    )


def _as_scanned(bundle: Bundle, logits: Float32, judge: MemberName | None) -> Float32:
    """What a scan has of an image that lies in each orientation, (8, M); the judge alone decides whether it looks again."""
    members = np.array([judge in (None, name) for name in bundle.manifest.member_names])
    augmentation, alone = bundle.augmentation, bundle.combination(members)
    if augmentation is None or not isinstance(alone, Calibration):
        return logits
    seen: Float32 = replace(augmentation, calibration=alone).as_scanned(logits[None])[0]
    return seen


def image_logits(batch: CutoutBatch, session: EnsembleSession) -> Float32:
    """Log-odds of a batch of one in all orientations, (8, M) float32."""
    vis, nisp = fill_bad_pixels(batch)
    levels = (np.repeat(values, ORIENTATIONS, axis=0) for values in (batch.sky, batch.sigma))
    return session.plain_logits(orientations(vis), orientations(nisp), *levels)


def orientations(images: Float32) -> Float32:
    """The eight orientations of one image or stack (1, ..., y, x): (8, ..., y, x)."""
    return np.concatenate([turn(images, orientation) for orientation in range(ORIENTATIONS)])


def judge_of(bands: Collection[Band]) -> MemberName | None:
    """The member that an image of ``bands`` is judged by; None where all are there: the combination.

    An image that lacks bands has them duplicated from one that is there (Table 2 of the paper). Then source and lens have one
    colour, as they hardly ever have on the sky, and the members that compare bands take it for no lens. So it is judged by the
    member that sees most of the bands that are there and no other; of equals, that of the larger image.

    Raises
    ------
    ValueError
        No band is given.
    """
    if set(bands) == set(BANDS):
        return None
    fit = [member for member in MEMBERS if set(MEMBER_BANDS[member]) <= set(bands)]
    if not fit:
        raise ValueError("no band is given")
    return max(fit, key=lambda member: (len(MEMBER_BANDS[member]), MEMBER_PIXELS[member]))


def judged(bundle: Bundle, logits: Float32, judge: MemberName | None) -> Float64:
    """What the judge gives to each row of ``logits`` (N, M): log-odds of the member, or the combination; (N,) float64."""
    return bundle.calibration.ranking_score(logits) if judge is None else logits[:, MEMBERS.index(judge)].astype(np.float64)


def read_images(path: Path) -> dict[str, CutoutBatch]:
    """Cut the centre of every tile of a list, by tile id.

    Raises
    ------
    TileError
        A tile cannot be cut, or lacks a band; the message says which.
    """
    tiles = tile_list.read(path)
    for failed in tiles.failed:
        raise TileError(f"{path}: tile {failed.tile_id}: {failed.reason}")
    return {tile_id: central_cutout(tile) for tile_id, tile in tiles.tiles.items()}


def central_cutout(tile: Tile) -> CutoutBatch:
    """Cut the centre of a tile's VIS image, as a batch of one."""
    with open_tile(tile, CutoutsConfig(require_all_bands=True)) as images:
        height, width = images.vis.shape
        x, y = (width - 1) / 2, (height - 1) / 2
        ra, dec = images.vis.wcs.all_pix2world([[x, y]], 0)[0]
        target = Targets(
            target_id=np.array([1], dtype=np.int64),
            ra=np.array([ra]),
            dec=np.array([dec]),
            x=np.array([x]),
            y=np.array([y]),
            magnitude=np.array([np.nan], dtype=np.float32),
        )
        return next(cut(images, target, 1))


class KnownLens(Record):
    """One lens: an image for one to four bands, position and pixel scales where they are stated."""

    name: str
    images: dict[Band, ImageRef] = Field(min_length=1)
    scales_arcsec: dict[Band, float]
    position: tuple[float, float] | None = None


def read_known_lenses(path: Path) -> tuple[KnownLens, ...]:
    """Read a list of known lenses: the paper's Table 7, of a user's own images.

    A UTF-8 text file, one lens a line, ``#`` for comments, paths relative to the list::

        id=SDSSJ0946+1006  VIS=f160w.fits Y=f336w.fits J=f438w.fits H=f814w.fits  ra=146.7379 dec=10.1134
        id=jackpot         VIS=f814w.fits scale=0.05

    Bands are named by what they stand for (Table 2); those that are not given are duplicated from the nearest that is.
    ``file.fits[SCI]`` names an extension. ``ra`` and ``dec`` (degrees) say where the lens is in images with a WCS; else it is
    in the middle. ``scale`` (arcsec) is needed where headers have no WCS, ``VIS_scale`` and so on where bands differ.

    Raises
    ------
    InputMissingError
        The list is not there.
    TileListError
        It is empty, has words that cannot be understood, or names a lens twice; the message names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise TileListError(f"{path}: is not UTF-8 text; give a list, one lens a line.") from None
    except OSError as error:
        raise InputMissingError(f"{path}: the list of known lenses cannot be read ({error.strerror}).") from None
    found: dict[str, KnownLens] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        where = f"{path}:{number}"
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            raise TileListError(f"{where}: a quote is left open.") from None
        if words:
            lens = _lens(words, path.parent, where)
            if lens.name in found:
                raise TileListError(f"{where}: {lens.name} is given twice; remove one.")
            found[lens.name] = lens
    if not found:
        raise TileListError(f"{path}: holds no lens; write one a line: id=NAME VIS=FILE … scale=ARCSEC.")
    return tuple(found.values())


def _lens(words: list[str], base: Path, where: str) -> KnownLens:
    values: dict[str, str] = {}
    keys = ("id", "ra", "dec", "scale", *(band.lower() for band in BANDS), *(f"{band.lower()}_scale" for band in BANDS))
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not value or key.lower() not in keys:
            raise TileListError(
                f"{where}: cannot understand {word!r}; the keys are id, VIS, Y, J, H, ra, dec, scale, VIS_scale …."
            )
        if key.lower() in values:
            raise TileListError(f"{where}: {key} is given twice.")
        values[key.lower()] = value
    images = {band: _image(values[band.lower()], base) for band in BANDS if band.lower() in values}
    if "id" not in values or not images:
        raise TileListError(f"{where}: needs id=NAME and an image of at least one band, such as VIS=FILE.")
    numbers = {
        key: _number(key, value, where) for key, value in values.items() if key in ("ra", "dec") or key.endswith("scale")
    }
    if ("ra" in numbers) != ("dec" in numbers):
        raise TileListError(f"{where}: ra and dec belong together; state both or neither.")
    scales = {band: numbers.get(f"{band.lower()}_scale", numbers.get("scale")) for band in images}
    if any(scale is not None and not scale > 0 for scale in scales.values()):
        raise TileListError(f"{where}: a pixel scale must be more than 0 arcsec.")
    return KnownLens(
        name=values["id"],
        images=images,
        scales_arcsec={band: scale for band, scale in scales.items() if scale is not None},
        position=(numbers["ra"], numbers["dec"]) if "ra" in numbers else None,
    )


def _number(key: str, value: str, where: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise TileListError(f"{where}: {key}={value} is no number.") from None


def _image(value: str, base: Path) -> ImageRef:
    match = _EXTENSION.fullmatch(value)
    path, extension = (value, None) if match is None else (match["path"], match["extension"])
    number = int(extension) if extension is not None and extension.isdigit() else extension
    return ImageRef(path=str(base / path), extension=number)


def known_lens_cutouts(lenses: Iterable[KnownLens]) -> dict[str, CutoutBatch]:
    """Make the cutout of every lens of a list, by name; see :func:`cutout` for what is refused."""
    return {lens.name: known_lens_cutout(lens, number) for number, lens in enumerate(lenses, start=1)}


def known_lens_cutout(lens: KnownLens, number: int = 1) -> CutoutBatch:
    """Read the images of a lens and make its cutout.

    Raises
    ------
    TileError
        An image cannot be read, or has no WCS where none can be done without.
    """
    plates = {band: read_plate(image, lens.scales_arcsec.get(band), lens.position) for band, image in lens.images.items()}
    return stamp(plates, number)


@dataclass(frozen=True)
class Plate:
    """One image and where the object is in it.

    ``pixels`` (ny, nx) float64, NaN where masked. ``centre``: (x, y) of the object, zero-based. ``matrix`` (2, 2): pixels
    (x, y) per arcsec to the right and up in the cutout.
    """

    pixels: Float64
    centre: tuple[float, float]
    matrix: Float64


def read_plate(image: ImageRef, scale_arcsec: float | None, position: tuple[float, float] | None) -> Plate:
    """Read one image.

    Parameters
    ----------
    image
        File and extension.
    scale_arcsec
        Pixel scale where the header has no WCS; it overrules one that is there.
    position
        RA and Dec of the object in degrees; None: it is in the image's middle.

    Raises
    ------
    TileError
        Not an image, no WCS although one is needed, the object not on it.
    """
    pixels, header = read_image(image)
    height, width = pixels.shape
    middle = ((width - 1) / 2, (height - 1) / 2)
    if scale_arcsec is not None and position is None:
        return Plate(pixels, middle, np.eye(2) / scale_arcsec)
    if "CTYPE1" not in header:
        needed = "state" if position is None else "leave out ra and dec, have the object in the middle, and state"
        raise TileError(f"{image}: has no WCS; {needed} scale=ARCSEC.")
    wcs = celestial_wcs(header, (height, width), str(image))
    ra, dec = position if position is not None else wcs.all_pix2world([middle], 0)[0]
    step = 1.0 / 3600
    # East is left and north up in the cutout; over 20" the sky is flat.
    sky = [(ra, dec), (ra - step / math.cos(math.radians(dec)), dec), (ra, dec + step)]
    here, right, up = wcs.all_world2pix(sky, 0)
    if not (0 <= here[0] <= width - 1 and 0 <= here[1] <= height - 1):
        raise TileError(f"{image}: the object at {ra:.5f}, {dec:+.5f} is not on the image.")
    return Plate(pixels, (float(here[0]), float(here[1])), np.stack([right - here, up - here], axis=1))


def stamp(plates: dict[Band, Plate], number: int = 1) -> CutoutBatch:
    """Make the cutout of one object: 20" of VIS at 0.1", 19.8" of NISP at 0.3".

    What the image does not cover is NaN; it counts as bad, and is filled with noise of the band's own σ before a network sees
    it, never with zeros: an edge of zeros costs a lens half of its score.

    Parameters
    ----------
    plates
        By band; bands that are missing are duplicated from the nearest.
    number
        Its ``target_id``, which seeds the noise that fills what is not covered.
    """
    source = duplicate(set(plates))
    vis = resample(plates[source["VIS"]], VIS_CUTOUT_PIXELS, VIS_PIXEL_SCALE_ARCSEC)[None]
    nisp = np.stack(
        [resample(plates[source[band]], NISP_CUTOUT_PIXELS, NISP_PIXEL_SCALE_ARCSEC) for band in BANDS if band != "VIS"]
    )[None]
    measured = quality.measure(vis, nisp)
    nothing: NDArray[np.float64] = np.full(1, np.nan)
    return CutoutBatch(
        targets=Targets(np.array([number], np.int64), nothing, nothing, nothing, nothing, nothing.astype(np.float32)),
        vis=vis,
        nisp=nisp,
        x0=np.zeros(1, dtype=np.int64),
        y0=np.zeros(1, dtype=np.int64),
        offset=np.zeros((1, 2), dtype=np.float32),
        bad_fraction=measured.bad_fraction,
        sky=measured.sky,
        sigma=measured.sigma,
        flags=np.zeros(1, dtype=np.uint32),
    )


def duplicate(given: set[Band]) -> dict[Band, Band]:
    """Which given band stands for each of VIS, Y, J, H: itself, else the nearest in wavelength, of equals the bluer (Table 2).

    Raises
    ------
    ValueError
        No band is given.
    """
    if not given:
        raise ValueError("no band is given")
    order = {band: number for number, band in enumerate(BANDS)}
    return {band: min(given, key=lambda other: (abs(order[other] - order[band]), order[other])) for band in BANDS}


def resample(plate: Plate, n_pixels: int, scale_arcsec: float) -> Float32:
    """Resample an image about its object to ``n_pixels`` of ``scale_arcsec``, (n, n) float32; flux is conserved.

    Where the new pixels are not much smaller than the image's, each is the mean of a lattice of points in the squares of the
    old ones: the area that they share, exact where the grids fit. Smaller ones are interpolated linearly. NaN where a pixel
    touches one that is masked or not there.
    """
    density = math.sqrt(abs(np.linalg.det(plate.matrix)))
    ratio = scale_arcsec * density
    enlarging = ratio < ENLARGING
    per_side = 1 if enlarging else max(LATTICE, 2 * math.ceil(ratio))
    fine = (np.arange(n_pixels * per_side) + 0.5) / per_side - 0.5 * n_pixels
    right, up = np.meshgrid(fine * scale_arcsec, fine * scale_arcsec)
    x = plate.centre[0] + plate.matrix[0, 0] * right + plate.matrix[0, 1] * up
    y = plate.centre[1] + plate.matrix[1, 0] * right + plate.matrix[1, 1] * up
    # Half a pixel beyond the outermost centres still belongs to the image.
    height, width = plate.pixels.shape
    inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
    if enlarging:
        places = [np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
        values = map_coordinates(plate.pixels, places, order=1, mode="nearest")
        values[~inside] = np.nan
    else:
        values = np.full(x.shape, np.nan)
        columns, rows = np.floor(x[inside] + 0.5).astype(np.intp), np.floor(y[inside] + 0.5).astype(np.intp)
        values[inside] = plate.pixels[rows, columns]
    means = values.reshape(n_pixels, per_side, n_pixels, per_side).mean(axis=(1, 3))
    return np.asarray(means * ratio**2, dtype=np.float32)
