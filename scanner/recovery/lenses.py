"""The table of a recovery, ``lenses.parquet``: one row a painted lens, what it is and what became of it."""

from __future__ import annotations

import io
from typing import Literal, cast, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from scanner.catalogue.columns import Column, ColumnType
from scanner.simulation.datasets import truth

#: The table, and pictures of some of its lenses, found and lost.
LENSES, PICTURES = "lenses.parquet", "pictures.parquet"

#: What became of a painted lens: the run lists no object there; its pixels are masked, or reach over the mosaic's edge, so that
#: what is there is not listed or not scored; the screen ended it; it was not scored for another reason; it has a score.
Fate = Literal["not detected", "masked", "near an edge", "screened out", "not scored", "scored"]
FATES: tuple[Fate, ...] = get_args(Fate)

#: What was painted: the truth columns of simulated cutouts. ``target_id`` is the number of the lens in its recovery.
_NUMBER = Column("target_id", "int64", "", "Number of the lens in its recovery", "meta.id;meta.main")
TRUTH_COLUMNS: tuple[Column, ...] = tuple(
    _NUMBER
    if item.name == _NUMBER.name
    else Column(item.name, cast("ColumnType", item.dtype), item.unit, item.description[:1].upper() + item.description[1:], "")
    for item in truth.COLUMNS
)
PLACE_COLUMNS: tuple[Column, ...] = (
    Column("tile_id", "string", "", "Tile that the lens was painted into", "meta.id;obs.field"),
    Column("wave", "int32", "", "Wave of its tile in which it was painted", "meta.id"),
    Column("ra", "float64", "deg", "Right ascension of the lens (ICRS)", "pos.eq.ra;meta.main"),
    Column("dec", "float64", "deg", "Declination of the lens (ICRS)", "pos.eq.dec;meta.main"),
    Column("x", "float64", "pix", "Column in the VIS mosaic, 0 in the middle of the first", "pos.cartesian.x;instr.det"),
    Column("y", "float64", "pix", "Row in the VIS mosaic, 0 in the middle of the first", "pos.cartesian.y;instr.det"),
    Column("deflector_is_real", "bool", "", "Painted onto a real galaxy; else whole into the sky", "meta.code"),
    Column("host_id", "int64", "", "Id of the real galaxy in the run; -1: none", "meta.id"),
    Column("host_vis_minus_h", "float64", "mag(AB)", "VIS - H of the real galaxy within 1 arcsec", "phot.color"),
    Column("seen_sky_sigma", "float32", "", "Noise of a VIS pixel at the place, mosaic units", "stat.stdev;instr.pixel"),
    Column("seen_arc_snr", "float32", "", "S/N of the arcs in VIS at this noise; arc_snr is at the Wide Survey's", "stat.snr"),
    Column("vis_psf_fwhm_arcsec", "float32", "arcsec", "FWHM of the tile's VIS PSF", "instr.obsty.seeing"),
)
FATE_COLUMNS: tuple[Column, ...] = (
    Column("fate", "string", "", f"What became of it: {', '.join(FATES)}", "meta.code"),
    Column("found_id", "int64", "", "Id of the object that the run lists there; -1: none", "meta.id"),
    Column("found_tile_id", "string", "", "Tile of that object; empty: none", "meta.id;obs.field"),
    Column("separation_arcsec", "float64", "arcsec", "Distance of that object from the lens", "pos.angDistance"),
    Column(
        "blended_id", "int64", "", "Id of the nearest real object within 1 arcsec that is not its host; -1: none", "meta.id"
    ),
    Column("flags", "int32", "", "Its flags, as in the catalogue", "meta.code"),
    Column("probability", "float32", "", "Its calibrated probability", "stat.probability;src.class"),
    Column("grid_value", "float32", "", "Its grid value", "stat.likelihood"),
    Column("ranking_score", "float64", "", "What ranks it in this run; NaN: not scored", "stat.value"),
    Column("is_candidate", "bool", "", "It passes the threshold of the run", "meta.code;src.class"),
    Column("rank", "int64", "", "1 + other objects of the run that rank higher; -1: not scored", "meta.id"),
)
#: Of lenses that rank as high as what the run has lens models of, some are modelled too: :mod:`scanner.recovery.look`.
MODEL_COLUMNS: tuple[Column, ...] = (
    Column("reaches_models", "bool", "", "It ranks as high as the objects that the run has lens models of", "meta.code"),
    Column("model_verdict", "string", "", "What the evidence of its lens model says; empty: not modelled", "meta.code.qual"),
    Column("model_status", "string", "", "Whether its lens model converged, or what is wrong with it", "meta.code.status"),
    Column("model_theta_e", "float64", "arcsec", "Einstein radius of its lens model", "phys.angSize"),
    Column("model_theta_e_err", "float64", "arcsec", "Error of model_theta_e", "stat.error;phys.angSize"),
    Column("ln_evidence_ratio", "float64", "", "Logarithm of how much better a lens explains its pixels", "stat.likelihood"),
    Column("counter_image_snr", "float64", "", "S/N of the second brightest image of the model", "stat.snr"),
    Column("p_lens_modelled", "float64", "", "Probability of a lens by networks and model together", "stat.probability"),
)
#: What is known when a lens has been scanned, and in the end.
SCANNED_SCHEMA: pa.Schema = pa.schema([item.field() for item in (*TRUTH_COLUMNS, *PLACE_COLUMNS, *FATE_COLUMNS)])
COLUMNS: tuple[Column, ...] = (*TRUTH_COLUMNS, *PLACE_COLUMNS, *FATE_COLUMNS, *MODEL_COLUMNS)
SCHEMA: pa.Schema = pa.schema([item.field() for item in COLUMNS])


def parquet_bytes(table: pa.Table) -> bytes:
    """A table of a recovery as a file; the same rows give the same bytes, however they came together."""
    buffer = io.BytesIO()
    pq.write_table(table.combine_chunks(), buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()
