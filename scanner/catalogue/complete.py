"""What a merged catalogue says beyond the scores: where on the sky an object is, its name, and whether it was known.

In: ranked rows. Out: the same rows with all columns of :data:`~scanner.catalogue.columns.CATALOGUE_SCHEMA`. Refused: rows that
lack others than those (KeyError).
"""

from __future__ import annotations

import pyarrow as pa

from scanner.catalogue import columns
from scanner.catalogue.designation import designations
from scanner.catalogue.known_lenses import KnownLensMatcher
from scanner.sphere import healpix_29


def complete(ranked: pa.Table, known: KnownLensMatcher) -> pa.Table:
    """Add HEALPix index, designation and known lens.

    Parameters
    ----------
    ranked
        N rows of :data:`~scanner.catalogue.columns.SOURCE_SCHEMA` with their rank.
    known
        Finds known lenses.

    Returns
    -------
    pyarrow.Table
        N rows of :data:`~scanner.catalogue.columns.CATALOGUE_SCHEMA`, in their order.
    """
    ra, dec = ranked["ra"].to_numpy(), ranked["dec"].to_numpy()
    ranked = columns.with_column(ranked, columns.HEALPIX_COLUMN, healpix_29(ra, dec))
    ranked = known.describe(columns.with_column(ranked, columns.NAME_COLUMN, designations(ra, dec)))
    return columns.as_schema(ranked, columns.CATALOGUE_SCHEMA)
