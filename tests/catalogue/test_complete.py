import numpy as np
from plain_catalogue import ranked

from scanner.catalogue import columns
from scanner.catalogue.known_lenses import KnownLenses, KnownLensMatcher
from scanner.catalogue.merge import complete
from scanner.catalogue.rank import Systems
from scanner.sphere import healpix_29


def test_every_column_in_its_place(random_rows) -> None:
    rows = ranked(random_rows(50))
    lens = KnownLenses(rows["ra"].to_numpy()[7:8], rows["dec"].to_numpy()[7:8] + 0.5 / 3600, ("the seventh",), ("a paper",))
    ra, dec, ranks = (rows[name].to_numpy() for name in ("ra", "dec", "rank"))
    systems = Systems(ra[:20], dec[:20], ranks[:20], 8.0)
    found = complete(rows, KnownLensMatcher(lens, 1.0), systems)
    np.testing.assert_array_equal(found["system_id"], systems.of(ra, dec, ranks))
    assert found.schema.equals(columns.CATALOGUE_SCHEMA, check_metadata=True)
    for name in rows.column_names:
        np.testing.assert_array_equal(found[name].to_numpy(), rows[name].to_numpy())
    np.testing.assert_array_equal(found["_healpix_29"], healpix_29(rows["ra"].to_numpy(), rows["dec"].to_numpy()))
    assert all(name.startswith("EUCL J") for name in found["name"].to_pylist())
    assert [row for row in found["known_name"].to_pylist() if row] == ["the seventh"]
    assert found["known_reference"][7].as_py() == "a paper"
    assert abs(found["known_separation"][7].as_py() - 0.5) < 1e-4
    assert np.isnan(found["known_separation"].to_numpy()).sum() == 49


def test_names_begin_with_the_acronym_of_the_survey(random_rows) -> None:
    rows = ranked(random_rows(4))
    run = rows["run"][0].as_py()
    systems = Systems(*(rows[name].to_numpy() for name in ("ra", "dec", "rank")), 8.0)
    found = complete(rows, KnownLensMatcher(None, 1.0), systems, {run: "LSST"})
    expected = ["LSST" if row == run else "EUCL" for row in rows["run"].to_pylist()]
    assert [name.partition(" J")[0] for name in found["name"].to_pylist()] == expected
