"""The truth table of labelled cutouts: one row an object, in the order of the cutout store.

In: :class:`TruthRow` objects. Out: columns for ``truth.parquet``. NaN, zero or False where a column does not apply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class TruthRow:
    """One row of ``truth.parquet``: what was drawn, and what can be measured of it without noise. NaN: does not apply."""

    target_id: int
    is_lens: bool
    visible: bool
    class_name: str
    x_arcsec: float
    y_arcsec: float
    theta_e_arcsec: float
    z_lens: float
    z_source: float
    sigma_v_kms: float
    source_magnitude_vis: float
    source_offset_arcsec: float
    red_source: bool
    magnification: float
    mag_eff: float
    n_source_im: int
    n_pix_source: int
    arc_snr: float
    magnitude_vis: float
    psf_roll: float
    native_nisp_noise: bool


def truth_columns(rows: Sequence[TruthRow]) -> dict[str, Any]:
    """The rows as columns, ready for :func:`pyarrow.table`."""
    return {item.name: [getattr(row, item.name) for row in rows] for item in fields(TruthRow)}
