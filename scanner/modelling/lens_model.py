"""A lens model as it is kept: ``model.json`` with its pictures in ``models/TILE/TARGET/`` of a run, and ``models.parquet``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Literal

import pyarrow as pa
from pydantic import Field

from scanner import __version__
from scanner.atomic_file import PARTIAL_PREFIX
from scanner.catalogue.columns import MODEL_SCHEMA
from scanner.errors import ContentError
from scanner.records import BANDS, Band, Record, SealedRecord
from scanner.storage import Store
from scanner.storage.verified import VerifiedFiles

Status = Literal["converged", "not converged", "at a limit", "low S/N", "poor fit", "refused"]
Verdict = Literal["certified", "consistent", "no evidence", "better without a lens", "refused"]
#: What a galaxy may have in it that looks like arcs.
Pattern = Literal["ring", "spiral"]
#: Where the PSF of a band is from: the tile list's image of it, the width of the tile's stars, or Euclid's mean.
PsfSource = Literal["image", "stars", "mean"]
#: The folder of models in a run's, and the files of each; the record is written last, so a model is there whole or not.
MODELS, RECORD, PICTURE, IMAGES = "models", "model.json", "panels.png", "model.fits"


class ModelledGalaxy(Record):
    """A Sérsic profile of a model: arcsec from the cutout's centre, x along rows and y along columns of VIS.

    ``lensed``: it lies behind the deflector, and all but the flux's colour is of the source plane. ``radius_arcsec``:
    half-light radius √(ab). ``angle_rad``: of the major axis from +x to +y. ``bend_per_arcsec``: curvature of the major axis
    of a galaxy that is not lensed. ``flux``: VIS, Y, J, H before lensing, in the images' units; None where a band is missing.
    """

    lensed: bool
    x_arcsec: float
    y_arcsec: float
    radius_arcsec: float
    q: float
    angle_rad: float
    index: float
    bend_per_arcsec: float
    flux: tuple[float | None, float | None, float | None, float | None]


class ModelledMass(Record):
    """A singular isothermal ellipsoid and external shear; angles from +x to +y of VIS, positions from the cutout's centre.

    ``theta_e_arcsec`` is that of the sphere with the same mass within its critical curve, √(ab) of that curve; where the pixels
    and the network that sees Einstein radii put it together.
    ``position_angle_deg``, ``shear_position_angle_deg``: of the major axis, and of the axis along which the shear stretches
    images, east of north, 0 to 180; None where the cutout's place on the sky is not known.
    """

    theta_e_arcsec: float
    theta_e_error_arcsec: float
    q: float
    q_error: float
    angle_rad: float
    x_arcsec: float
    y_arcsec: float
    gamma1: float
    gamma2: float
    position_angle_deg: float | None = None
    shear_position_angle_deg: float | None = None


class SeenRadius(Record):
    """The Einstein radius that a network sees in the cutout (:mod:`scanner.modelling.radius_network`).

    ``network``: its fingerprint; empty where none was asked. ``theta_e_arcsec``: the median of what it thinks;
    ``low_arcsec`` to ``high_arcsec``: the middle 68 %. ``agreement``: probability, by the network, that the radius is within
    10 % of the model's.
    """

    network: str
    theta_e_arcsec: float
    low_arcsec: float
    high_arcsec: float
    agreement: float


class LensModel(SealedRecord):
    """``model.json``: the lens model of one candidate, or why there is none.

    ``input_fingerprint``: of the tile's files. ``psf``: where the point spread function of each band is from.
    ``zero_points``: AB magnitude of one unit of the images, where it is known.
    ``ln_evidence_ratio``: natural logarithm of how much better a lens explains the pixels than unlensed galaxies do.
    ``pattern``: what a galaxy in the middle has in it where that explains the pixels best without a lens.
    ``counter_image_snr``: ``arc_snr`` times the second brightest image's share of the brightest source's light.
    ``n_sources``: 2 where a second lensed galaxy is told from a clump of the first by its S/N, ``second_source_snr``, and by
    how much chi squared rises if it must have the first one's colour, ``second_source_colour``; else 1.
    ``deflector_kept``: share of the deflector's VIS light, as fitted alone, that is left to it beside the lensed source.
    ``p_lens_modelled``: probability of a lens by networks and model together; None where the networks gave none.
    ``chi2_lens``, ``chi2_companions``: of the best fit of each; ``n_pixels``: how many independent pixels there are.
    ``place``: where the files lie, below the record; ``sha256``: of each of them.
    """

    format_version: Literal[1] = 1
    tile_id: str
    target_id: int
    input_fingerprint: str
    scanner_version: str = __version__
    status: Status
    verdict: Verdict
    reason: str = ""
    psf: dict[Band, PsfSource] = Field(default_factory=dict)
    zero_points: dict[Band, float] = Field(default_factory=dict)
    bands: tuple[str, ...] = ()
    mass: ModelledMass | None = None
    galaxies: tuple[ModelledGalaxy, ...] = ()
    n_companions_without_lens: int = 0
    pattern: Pattern | None = None
    ln_evidence_ratio: float | None = None
    chi2_lens: float | None = None
    chi2_companions: float | None = None
    n_pixels: float | None = None
    n_images: int = 0
    magnification: float | None = None
    arc_snr: float | None = None
    counter_image_snr: float | None = None
    seen_radius: SeenRadius | None = None
    deflector_kept: float | None = None
    n_sources: int = 0
    second_source_snr: float | None = None
    second_source_colour: float | None = None
    p_lens_modelled: float | None = None
    place: str = ""
    sha256: dict[str, str] = Field(default_factory=dict)

    @property
    def sources(self) -> tuple[ModelledGalaxy, ...]:
        """The lensed galaxies, the brightest in VIS first."""
        lensed = (one for one in self.galaxies if one.lensed)
        return tuple(sorted(lensed, key=lambda one: -(one.flux[0] or 0.0)))

    def source_magnitude(self, band: Band) -> float:
        """AB magnitude of all lensed galaxies together as they would be seen without the lens; NaN where it is not known."""
        flux = sum(one.flux[BANDS.index(band)] or 0.0 for one in self.sources)
        return self.zero_points.get(band, math.nan) - 2.5 * math.log10(flux) if flux > 0.0 else math.nan


#: Of a record, what stands in each column of ``models.parquet``.
_VALUES: dict[str, str] = {
    "tile_id": "tile_id",
    "target_id": "target_id",
    "input_fingerprint": "input_fingerprint",
    "model_verdict": "verdict",
    "model_status": "status",
    "theta_e": "mass.theta_e_arcsec",
    "theta_e_err": "mass.theta_e_error_arcsec",
    "mass_q": "mass.q",
    "mass_q_err": "mass.q_error",
    "mass_pa": "mass.position_angle_deg",
    "shear_pa": "mass.shear_position_angle_deg",
    "ln_evidence_ratio": "ln_evidence_ratio",
    "chi2_lens": "chi2_lens",
    "chi2_companions": "chi2_companions",
    "n_model_pixels": "n_pixels",
    "n_images": "n_images",
    "n_sources": "n_sources",
    "model_magnification": "magnification",
    "arc_snr": "arc_snr",
    "counter_image_snr": "counter_image_snr",
    "theta_e_network": "seen_radius.theta_e_arcsec",
    "theta_e_agreement": "seen_radius.agreement",
    "p_lens_modelled": "p_lens_modelled",
}


def table_of(models: Iterable[LensModel], run_id: str) -> pa.Table:
    """Records as ``models.parquet`` has them, by tile and target; what a refused object has no value for is NaN."""
    ordered = sorted(models, key=lambda one: (one.tile_id, one.target_id))
    return pa.Table.from_pylist([{"run": run_id} | row_of(one) for one in ordered], MODEL_SCHEMA)


def row_of(model: LensModel) -> dict[str, object]:
    """A record as a row of ``models.parquet``, but for the run; what a refused object has no value for is NaN."""
    row: dict[str, object] = {"model_psf": model.psf.get("VIS", ""), "model_pattern": model.pattern or ""}
    for name, path in _VALUES.items():
        value: object = model
        for part in path.split("."):
            value = None if value is None else getattr(value, part)
        row[name] = math.nan if value is None else value
    mass = model.mass
    row["source_radius"] = model.sources[0].radius_arcsec if model.sources else math.nan
    row |= {f"source_magnitude_{band.lower()}": model.source_magnitude(band) for band in BANDS}
    row["shear"] = math.nan if mass is None else math.hypot(mass.gamma1, mass.gamma2)
    row["mass_within_theta_e"] = math.nan if mass is None else math.pi * mass.theta_e_arcsec**2
    return row


def key(tile_id: str, target_id: int) -> str:
    """Key of a model's folder in its run folder."""
    return f"{MODELS}/{tile_id}/{target_id}"


def read(store: Store, tile_id: str, target_id: int) -> LensModel | None:
    """The model of an object; None where there is none.

    Raises
    ------
    ContentError
        It is damaged.
    """
    record = f"{key(tile_id, target_id)}/{RECORD}"
    try:
        content = store.read(record)
    except FileNotFoundError:
        return None
    return LensModel.from_bytes(content, store.where(record), _again(store, tile_id, target_id))


def files_of(store: Store, model: LensModel) -> VerifiedFiles:
    """The files beside a model, :data:`PICTURE` and :data:`IMAGES`; none where the object was refused."""
    folder = key(model.tile_id, model.target_id)
    place = f"{folder}/{model.place}" if model.place else folder
    return VerifiedFiles(store, place, model.sha256, _again(store, model.tile_id, model.target_id))


def read_file(store: Store, model: LensModel, name: str) -> bytes:
    """One of the files beside a model.

    Raises
    ------
    InputMissingError, ContentError
        It is missing or damaged, or there is none, as the object was refused.
    """
    files = files_of(store, model)
    if model.status == "refused":
        raise ContentError(f"{files.where(name)}: there is no model ({model.reason}).")
    return files.read(name)


def modelled(store: Store) -> Iterator[tuple[str, int]]:
    """Tile and target of every object that has a model, in order; what a killed worker left half-written is none."""
    places = (name.split("/") for name in store.names(MODELS))
    whole = (place for place in places if len(place) == 3 and place[2] == RECORD and not place[1].startswith(PARTIAL_PREFIX))
    yield from sorted((tile_id, int(target_id)) for tile_id, target_id, _ in whole)


def _again(store: Store, tile_id: str, target_id: int) -> str:
    return f"remove {store.where(key(tile_id, target_id))} and model it again"
