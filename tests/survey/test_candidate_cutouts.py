import pyarrow as pa
import pytest
from made_records import commit_tile, run_record

from scanner.config import RunConfig, StorageConfig
from scanner.errors import InputMissingError
from scanner.records import BANDS, BandFiles, ImageRef, Tile
from scanner.survey.folder.resume import open_run
from scanner.survey.objects import candidate_cutouts


def test_a_tile_that_has_gone_stops_the_drawing_and_is_named(tmp_path):
    """Not as a tile that failed: its rows are in the catalogue."""
    images = {band: BandFiles(image=ImageRef(path=str(tmp_path / f"{band}.fits"))) for band in BANDS}
    columns = {name: [1.0] for name in ("ra", "dec", "x", "y", "magnitude_vis")}
    row = pa.table({"tile_id": ["1"], "target_id": [7], **columns})
    with open_run(str(tmp_path / "out"), StorageConfig(), run_record()) as folder:
        commit_tile(folder)
        with pytest.raises(InputMissingError, match=r"VIS\.fits.*cutouts were not kept"):
            candidate_cutouts(row, folder, {"1": Tile(tile_id="1", bands=images)}, RunConfig())
        assert candidate_cutouts(row.slice(0, 0), folder, {}, RunConfig()) is None
