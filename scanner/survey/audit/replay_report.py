"""What a replay found: the row of then beside the row of now, the pixels kept beside those cut again, and a verdict.

In: rows of ``scores.parquet`` and cutouts. Out: :class:`ReplayReport`. Nothing is refused.

The rule. On a machine of the run's own fingerprint every value and every pixel has to be equal bit for bit. On another one
sums come out in another order: probabilities may differ by :data:`PROBABILITY_TOLERANCE`, bad fractions by
:data:`BAD_FRACTION_TOLERANCE`, pixels by :data:`PIXEL_TOLERANCE_SIGMA` of their band's sigma. What is looked up (position and
cell of the embedding), counted or decided has to be equal anywhere.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Literal

import numpy as np
import pyarrow as pa

from scanner.catalogue import columns
from scanner.cutouts import codec as compact
from scanner.cutouts.layout import CodecName
from scanner.records import CutoutBatch, Float32, Record

#: A log-odds off by 1e-3, the bar that a bundle's graph is held to, moves a probability by a quarter of that at most.
PROBABILITY_TOLERANCE = 2.5e-4
BAD_FRACTION_TOLERANCE = 1e-3
PIXEL_TOLERANCE_SIGMA = 1e-3

Agreement = Literal["equal", "within tolerance", "different"]
PixelAgreement = Literal["equal", "within tolerance", "different", "not kept"]
_TOLERANCES = {
    **{column.name: PROBABILITY_TOLERANCE for column in columns.MEMBER_COLUMNS},
    "p_calibrated": PROBABILITY_TOLERANCE,
    **{column.name: BAD_FRACTION_TOLERANCE for column in columns.BAD_COLUMNS},
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
    """Compare two tables of one row, column by column of :data:`~scanner.catalogue.columns.SCORE_SCHEMA`."""
    return tuple(_compare(name, then[name][0].as_py(), now[name][0].as_py()) for name in columns.SCORE_SCHEMA.names)


def compare_pixels(kept: CutoutBatch, again: CutoutBatch, codec: CodecName) -> ReplayedPixels:
    """Compare one kept cutout with the one cut again.

    Parameters
    ----------
    kept, again
        One cutout each; ``kept`` as its store gives it.
    codec
        Of the store.
    """
    distances, agreements = [], {"equal"}
    for band, (old, new) in enumerate(zip(_images(kept), _images(again), strict=True)):
        sky, sigma = again.sky[:, band], again.sigma[:, band]
        known = np.isfinite(new)
        distance = np.abs(old.astype(np.float64) - new)[known] / np.broadcast_to(sigma[:, None, None], new.shape)[known]
        half_step = compact.largest_error(new, sky, sigma)[known] if codec == "compact" else np.zeros_like(distance)
        # Both as a store would give them: what the codec loses is no difference.
        stored = new if codec == "exact" else compact.decode(compact.encode(new, sky, sigma), sky, sigma)
        if not np.array_equal(old, stored, equal_nan=True):
            near = np.array_equal(np.isfinite(old), known) and bool((distance <= half_step + PIXEL_TOLERANCE_SIGMA).all())
            agreements.add("within tolerance" if near else "different")
        distances.append(float(np.max(distance / half_step if codec == "compact" else distance, initial=0.0)))
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
