"""Runs that were never scanned, but are committed, merged and written as runs are."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from made_records import commit_record, run_record

from scanner.catalogue import columns
from scanner.catalogue.export import Provenance, covered_sky, tile_table
from scanner.catalogue.known_lenses import KnownLensMatcher
from scanner.catalogue.merge import Merging, Rule
from scanner.config import StorageConfig
from scanner.records import BandFiles, FailedTile, ImageRef, Tile
from scanner.survey.finish import done_tile, failed_tile, write_tables
from scanner.survey.folder.ledger import COMMIT, SCORES
from scanner.survey.folder.resume import open_run

PROVENANCE = Provenance(software="made", config_fingerprint="c", bundle="made", bundle_fingerprint="b")


def score_rows(ra, dec, tile_id, seed=0, first_id=1):
    """Rows of a tile's table at some positions in degrees."""
    random, n = np.random.default_rng(seed), len(ra)
    values = {column.name: random.random(n).round(3) for column in columns.SCORE_COLUMNS}
    values |= {"target_id": np.arange(first_id, first_id + n), "tile_id": [tile_id] * n, "ra": ra, "dec": dec}
    values |= {"is_candidate": values["p_calibrated"] >= 0.8, "flags": np.zeros(n), "cell_count": np.arange(n)}
    arrays = [pa.array(np.asarray(values[field.name]).astype(field.type.to_pandas_dtype()), field.type)
              for field in columns.SCORE_SCHEMA]  # fmt: skip
    return pa.Table.from_arrays(arrays, schema=columns.SCORE_SCHEMA)


def made_run(location, tables, failed=(), storage=StorageConfig(), **changes):
    """Make a finished run of tables by tile id; ``changes`` are of its record. Returns the record."""
    record = run_record(tile_ids=tuple(sorted({*tables, *failed})), **changes)
    with open_run(str(location), storage, record) as folder:
        rows = [failed_tile(FailedTile(tile_id=tile_id, reason="/sky/vis.fits: gone."), record, None) for tile_id in failed]
        # So few rows stay in memory.
        with Merging(Path("/nonexistent"), Rule(0.5), KnownLensMatcher(None, 1.0)) as merging:
            for tile_id, table in tables.items():
                table = record.decided(table)
                n_candidates = sum(table["is_candidate"].to_pylist())
                merging.add(columns.with_source(table, record.run_id, record.bundle))
                rows.append(done_tile(_commit(folder, record, tile_id, table), record, _tile(tile_id), n_candidates))
            merging.merge()
            tiles = tile_table(rows)
            sky = covered_sky(tiles)
            with folder.staged_results(record.model_copy(update={"sky_area_deg2": sky.area_deg2})) as staging:
                write_tables(
                    staging, merging, tiles, sky, name="scanner", max_candidates=100,
                    provenance=PROVENANCE,
                )  # fmt: skip
    return record


def _commit(folder, record, tile_id, table):
    content = io.BytesIO()
    pq.write_table(table, content)
    ra, dec = table["ra"].to_numpy(), table["dec"].to_numpy()
    corners = [(ra.min(), dec.min()), (ra.max(), dec.min()), (ra.max(), dec.max()), (ra.min(), dec.max())]
    with folder.staged_tile(tile_id) as staging:
        (staging.path / SCORES).write_bytes(content.getvalue())
        commit = commit_record(
            tile_id=tile_id,
            place=staging.place,
            sha256={SCORES: hashlib.sha256(content.getvalue()).hexdigest()},
            n_targets=len(table),
            n_scored=len(table),
            n_decided=sum(table["is_candidate"].to_pylist()),
            config_fingerprint=record.config_fingerprint,
            bundle_fingerprint=record.bundle_fingerprint,
            s_region="POLYGON ICRS " + " ".join(f"{x:.8f} {y:.8f}" for x, y in corners),
        )
        (staging.path / COMMIT).write_bytes(commit.to_bytes())
    return commit


def _tile(tile_id):
    return Tile(tile_id=tile_id, bands={"VIS": BandFiles(image=ImageRef(path=f"/sky/{tile_id}/vis.fits"))})
