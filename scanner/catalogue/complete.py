"""What a merged catalogue says beyond the scores: where on the sky an object is, and its name.

In: ranked rows. Out: the same rows with all columns of :data:`~scanner.catalogue.columns.CATALOGUE_SCHEMA`. Refused: rows that
lack others than those (KeyError).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from scanner.catalogue import columns
from scanner.catalogue.designation import designations
from scanner.sphere import healpix_29


def complete(ranked: pa.Table) -> pa.Table:
    """Add HEALPix index, designation and known lens.

    Parameters
    ----------
    ranked
        N rows of :data:`~scanner.catalogue.columns.SOURCE_SCHEMA` with their rank.

    Returns
    -------
    pyarrow.Table
        N rows of :data:`~scanner.catalogue.columns.CATALOGUE_SCHEMA`, in their order.
    """
    ra, dec = ranked["ra"].to_numpy(), ranked["dec"].to_numpy()
    nothing = [""] * len(ranked)
    known_name, known_separation, known_reference = columns.KNOWN_COLUMNS
    for added, values in (
        (columns.HEALPIX_COLUMN, healpix_29(ra, dec)),
        (columns.NAME_COLUMN, designations(ra, dec)),
        (known_name, nothing),
        (known_separation, np.full(len(ranked), np.nan)),
        (known_reference, nothing),
    ):
        ranked = columns.with_column(ranked, added, values)
    return columns.as_schema(ranked, columns.CATALOGUE_SCHEMA)


def listed(merged: pa.Table, maximum: int) -> pa.Table:
    """The candidate list: the best candidates of a merged catalogue, without the HEALPix index.

    Parameters
    ----------
    merged
        Rows of :data:`~scanner.catalogue.columns.CATALOGUE_SCHEMA` in order of rank.
    maximum
        Most rows returned.
    """
    chosen = merged.filter(merged["is_candidate"]).slice(0, maximum)
    return columns.as_schema(chosen, columns.CANDIDATE_SCHEMA)
