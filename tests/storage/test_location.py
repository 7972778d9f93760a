import pytest

from scanner.config import StorageConfig
from scanner.errors import UsageError
from scanner.storage import is_remote, join, open_store, split


@pytest.mark.parametrize(
    ("location", "parts"),
    [
        ("s3://bucket/run/tiles.csv", ("s3://bucket/run", "tiles.csv")),
        ("s3://bucket/tiles.csv", ("s3://bucket", "tiles.csv")),
        ("s3://bucket/run/", ("s3://bucket", "run")),
        ("s3://bucket", ("s3://bucket", "")),
        ("/data/tiles.csv", ("/data", "tiles.csv")),
        ("tiles.csv", (".", "tiles.csv")),
    ],
)
def test_a_location_is_a_folder_and_a_name(location, parts):
    assert split(location) == parts


def test_keys_are_relative_unless_they_stand_for_themselves():
    assert join("s3://bucket/q1/", "./VIS/a.fits") == "s3://bucket/q1/VIS/a.fits"
    assert join("s3://bucket/q1", "../a.fits") == "s3://bucket/q1/../a.fits"
    assert join("/data", "s3://bucket/a.fits") == "s3://bucket/a.fits"
    assert join("/data", "/other/a.fits") == "/other/a.fits"
    assert is_remote("S3://bucket")
    assert not is_remote("s3/bucket")


@pytest.mark.parametrize("location", ["s3://", "s3:///run"])
def test_a_location_without_a_bucket_is_refused(location):
    with pytest.raises(UsageError, match="names no bucket"):
        open_store(location, StorageConfig())
