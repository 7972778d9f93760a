from collections.abc import Callable

import numpy as np
import pyarrow as pa

from scanner.catalogue import columns, rank
from scanner.catalogue.complete import complete, listed
from scanner.sphere import healpix_29


def test_every_column_in_its_place(random_rows: Callable[..., pa.Table]) -> None:
    ranked = rank.rank(random_rows(50))
    merged = complete(ranked)
    assert merged.schema.equals(columns.CATALOGUE_SCHEMA, check_metadata=True)
    for name in ranked.column_names:
        np.testing.assert_array_equal(merged[name].to_numpy(), ranked[name].to_numpy())
    np.testing.assert_array_equal(merged["_healpix_29"], healpix_29(ranked["ra"].to_numpy(), ranked["dec"].to_numpy()))
    assert all(name.startswith("EUCL J") for name in merged["name"].to_pylist())
    assert merged["known_name"].to_pylist() == [""] * 50
    assert np.isnan(merged["known_separation"].to_numpy()).all()


def test_the_candidate_list_holds_the_first_ranks(random_rows: Callable[..., pa.Table]) -> None:
    merged = complete(rank.rank(random_rows(1000)))
    n_candidates = sum(merged["is_candidate"].to_pylist())
    chosen = listed(merged, 10_000)
    assert 50 < n_candidates < 150
    assert chosen["rank"].to_pylist() == list(range(1, n_candidates + 1))
    assert chosen.schema.equals(columns.CANDIDATE_SCHEMA, check_metadata=True)
    assert len(listed(merged, 7)) == 7
    assert len(listed(columns.CATALOGUE_SCHEMA.empty_table(), 7)) == 0
