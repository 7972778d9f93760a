import os
import re
import string
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.config import StorageConfig
from scanner.errors import InputMissingError, ScannerError, TileListError, UnavailableError
from scanner.records import BANDS, Tile
from scanner.sky import tile_list
from scanner.sky.tile_list import KEYS, TileList
from scanner.storage import open_store

TILE = "TILE102018665-ACBD03_20241018T142710.276838Z_00.00"
MOSAICS = {
    "VIS": f"EUC_MER_BGSUB-MOSAIC-VIS_{TILE}.fits",
    "Y": f"EUC_MER_BGSUB-MOSAIC-NIR-Y_{TILE}.fits.gz",
    "J": f"EUC_MER_BGSUB-MOSAIC-NIR-J_{TILE}.fits",
    "H": f"EUC_MER_BGSUB-MOSAIC-NIR-H_{TILE}.FITS.fz",
}
BESIDE = (
    f"EUC_MER_MOSAIC-VIS-RMS_{TILE}.fits",
    f"EUC_MER_MOSAIC-VIS-FLAG_{TILE}.fits",
    f"EUC_MER_MOSAIC-NIR-J-RMS_{TILE}.fits.gz",
    f"EUC_MER_FINAL-CAT_{TILE}.fits",
)
PASSED_OVER = (
    f"EUC_MER_BGMOD-VIS_{TILE}.fits",
    f"EUC_MER_GRID-PSF-VIS_{TILE}.fits",
    f"EUC_MER_CATALOG-PSF-NIR-Y_{TILE}.fits",
    f"EUC_MER_FINAL-MORPH-CAT_{TILE}.fits",
    f"EUC_MER_FINAL-CUTOUTS-CAT_{TILE}.fits",
    f"EUC_MER_FINAL-SEGMAP_{TILE}.fits",
    f"EUC_MER_BGSUB-MOSAIC-DES-G_{TILE}.fits",
    f"EUC_MER_BGSUB-MOSAIC-VIS_{TILE}.png",
    "README.txt",
    ".EUC_MER_BGSUB-MOSAIC-VIS_hidden.fits",
)


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def read_text(folder: Path, text: str) -> TileList:
    path = folder / "tile-list.txt"
    path.write_text(text, encoding="utf-8")
    return tile_list.read(path)


def test_a_long_list_takes_little_memory(tmp_path: Path) -> None:
    """A million lines of 120 bytes took 3.9 GB, and 0.5 GB when each is read again where its tile is needed."""
    roles = {"VIS": "v", "Y": "y", "J": "j", "H": "h", "catalogue": "c"}
    lines = [f"id=t{n} " + " ".join(f"{key}=/data/{n}/{name}.fits" for key, name in roles.items()) for n in range(4000)]
    path = tmp_path / "list.txt"
    path.write_text("\n".join(lines))
    tracemalloc.start()
    listed = tile_list.read(path)
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(listed) == 4000
    assert kept < 4000 * 450
    assert most < 4000 * 700
    assert {role: file.path for role, file in listed.tile("t3999").files.items()} == {
        "VIS.image": "/data/3999/v.fits", "Y.image": "/data/3999/y.fits", "J.image": "/data/3999/j.fits",
        "H.image": "/data/3999/h.fits", "catalogue": "/data/3999/c.fits",
    }  # fmt: skip


class TestFolder:
    def test_euclid_names_are_found(self, tmp_path: Path) -> None:
        folder = touch(tmp_path / "102018665", *MOSAICS.values(), *BESIDE, *PASSED_OVER)
        (tile,) = read_text(tmp_path, "102018665\n").tiles.values()
        assert tile.tile_id == "102018665"
        assert {band: tile.bands[band].image.path for band in BANDS} == {b: str(folder / n) for b, n in MOSAICS.items()}
        assert tile.bands["VIS"].rms is not None
        assert tile.bands["VIS"].rms.path == str(folder / BESIDE[0])
        assert tile.bands["VIS"].flag is not None
        assert tile.bands["VIS"].flag.path == str(folder / BESIDE[1])
        assert tile.bands["J"].rms is not None
        assert tile.bands["J"].rms.path == str(folder / BESIDE[2])
        assert tile.bands["Y"].rms is None
        assert tile.catalogue is not None
        assert tile.catalogue.path == str(folder / BESIDE[3])

    @pytest.mark.parametrize(
        "names",
        [
            ("vis.fits", "nir_y.fits", "nir_j.fits", "nir_h.fits"),
            ("sky-VIS-1.fits", "sky-NISP-Y-1.fits", "sky-NISP_J-1.fits", "sky-NIR-H-1.fits"),
        ],
    )
    def test_other_spellings_take_the_folders_name(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        touch(tmp_path / "tiles" / "field_7", *names)
        (tile,) = read_text(tmp_path, "tiles/field_7").tiles.values()
        assert tile.tile_id == "field_7"
        assert [Path(tile.bands[band].image.path).name for band in BANDS] == list(names)

    def test_tile_number_in_the_folders_name(self, tmp_path: Path) -> None:
        touch(tmp_path / "deep_TILE42_x", "VIS.fits", "NIR-Y.fits", "NIR-J.fits", "NIR-H.fits")
        assert list(read_text(tmp_path, "deep_TILE42_x").tiles) == ["42"]

    def test_the_lists_own_folder(self, tmp_path: Path) -> None:
        folder = touch(tmp_path / "here", "VIS.fits", "NIR-Y.fits", "NIR-J.fits", "NIR-H.fits")
        assert list(read_text(folder, ".").tiles) == ["here"]

    def test_several_tiles_in_one_folder(self, tmp_path: Path) -> None:
        names = [name.replace("102018665", number) for number in ("102018666", "102018665") for name in MOSAICS.values()]
        touch(tmp_path / "all", *names[1:-1])
        listed = read_text(tmp_path, "all")
        assert [(tile.tile_id, list(tile.bands)) for tile in listed.tiles.values()] == [("102018665", ["VIS", "Y", "J"])]
        assert [tile.tile_id for tile in listed.failed] == ["102018666"]
        assert "no VIS mosaic" in listed.failed[0].reason

    def test_unnumbered_files_join_the_only_tile(self, tmp_path: Path) -> None:
        touch(tmp_path / "f", *MOSAICS.values(), "my-catalogue.ecsv")
        (tile,) = read_text(tmp_path, "f").tiles.values()
        assert tile.catalogue is not None
        assert tile.catalogue.path.endswith("my-catalogue.ecsv")

    def test_two_files_for_one_band_names_both(self, tmp_path: Path) -> None:
        touch(tmp_path / "f", *MOSAICS.values(), f"EUC_MER_BGSUB-MOSAIC-VIS_{TILE}.fits.gz")
        listed = read_text(tmp_path, "f")
        assert not listed.tiles
        (failed,) = listed.failed
        assert f"VIS_{TILE}.fits and " in failed.reason
        assert f"VIS_{TILE}.fits.gz are both the VIS image" in failed.reason

    def test_the_others_go_on(self, tmp_path: Path) -> None:
        touch(tmp_path / "good", *MOSAICS.values())
        touch(tmp_path / "empty")
        touch(tmp_path, "afile.fits")
        listed = read_text(tmp_path, "good\nmissing_TILE9\nempty\nafile.fits\n'a b'")
        assert list(listed.tiles) == ["102018665"]
        assert [failed.tile_id for failed in listed.failed] == ["9", "empty", "afile.fits", "a b"]
        for line, (failed, word) in enumerate(
            zip(
                listed.failed,
                ("No such file", "no VIS mosaic", "is a file", "No such"),
                strict=True,
            ),
            start=2,
        ):
            assert failed.reason.startswith(f"{tmp_path}/tile-list.txt:{line}: ")
            assert word in failed.reason

    def test_the_archives_subfolders_are_looked_into(self, tmp_path: Path) -> None:
        folder = tmp_path / "102018665"
        touch(folder / "VIS", MOSAICS["VIS"], BESIDE[0])
        touch(folder / "nisp", *(MOSAICS[band] for band in "YJH"))
        touch(folder / "DECAM", MOSAICS["VIS"].replace("ACBD03", "FFFFFF"))
        touch(folder / "VIS" / "NISP", MOSAICS["Y"].replace("ACBD03", "FFFFFF"))
        (tile,) = read_text(tmp_path, "102018665").tiles.values()
        assert tile.bands["VIS"].image.path == str(folder / "VIS" / MOSAICS["VIS"])
        assert tile.bands["VIS"].rms is not None
        assert tile.bands["H"].image.path == str(folder / "nisp" / MOSAICS["H"])

    def test_a_catalogue_from_another_folder(self, tmp_path: Path) -> None:
        other = [name.replace("102018665", "102018666") for name in (*MOSAICS.values(), BESIDE[3])]
        touch(tmp_path / "both", *MOSAICS.values(), *other[:-1])
        touch(tmp_path / "cats", BESIDE[3], other[-1], BESIDE[3].replace("102018665", "102018667"), *PASSED_OVER)
        tiles = read_text(tmp_path, "both catalogue=cats/").tiles.values()
        found = {tile.tile_id: tile.catalogue.path for tile in tiles if tile.catalogue is not None}
        assert found == {"102018665": str(tmp_path / "cats" / BESIDE[3]), "102018666": str(tmp_path / "cats" / other[-1])}

    @pytest.mark.parametrize("name", ["mine.csv", BESIDE[3].replace("102018665", "9")])
    def test_a_catalogue_that_is_named_is_that_of_the_only_tile(self, tmp_path: Path, name: str) -> None:
        touch(tmp_path / "f", *MOSAICS.values())
        (tile,) = read_text(tmp_path, f"f Catalogue='{name}'").tiles.values()
        assert tile.catalogue is not None
        assert tile.catalogue.path == str(tmp_path / name)

    def test_a_catalogue_that_is_not_found_fails_the_tile(self, tmp_path: Path) -> None:
        touch(tmp_path / "f", *MOSAICS.values())
        touch(tmp_path / "cats", BESIDE[3].replace("102018665", "9"))
        for where, says in (("cats/", "no catalogue of tile 102018665"), ("none/", "No such file")):
            (failed,) = read_text(tmp_path, f"f catalogue={where}").failed
            assert says in failed.reason
        touch(tmp_path / "f", BESIDE[3])
        (failed,) = read_text(tmp_path, "f catalogue=mine.csv").failed
        assert "are both the catalogue" in failed.reason

    def test_folder_whose_name_cannot_be_an_id(self, tmp_path: Path) -> None:
        touch(tmp_path / "Köln 1", "VIS.fits", "NIR-Y.fits", "NIR-J.fits", "NIR-H.fits")
        (failed,) = read_text(tmp_path, '"Köln 1"').failed
        assert "cannot be a tile id" in failed.reason


class TestLineOfFiles:
    LINE = "id=7 VIS=v.fits[VIS_FLUX] Y=y.fits[3] J=/data/j.fits H=s3://bucket/h.fits"

    def test_all_keys(self, tmp_path: Path) -> None:
        text = f"{self.LINE} catalogue='my cat.csv' VIS_RMS=v.fits[VIS_RMS] h_flag=file:///data/h%20flag.fits # all\n"
        (tile,) = read_text(tmp_path, text).tiles.values()
        assert tile.tile_id == "7"
        vis, y, j, h = (tile.bands[band] for band in BANDS)
        assert (vis.image.path, vis.image.extension) == (str(tmp_path / "v.fits"), "VIS_FLUX")
        assert vis.rms is not None
        assert (vis.rms.path, vis.rms.extension) == (str(tmp_path / "v.fits"), "VIS_RMS")
        assert (y.image.path, y.image.extension) == (str(tmp_path / "y.fits"), 3)
        assert (j.image.path, j.image.extension) == ("/data/j.fits", None)
        assert h.image.path == "s3://bucket/h.fits"
        assert h.flag is not None
        assert h.flag.path == "/data/h flag.fits"
        assert tile.catalogue is not None
        assert tile.catalogue.path == str(tmp_path / "my cat.csv")

    def test_survives_json(self, tmp_path: Path) -> None:
        (tile,) = read_text(tmp_path, self.LINE).tiles.values()
        assert Tile.model_validate_json(tile.model_dump_json()) == tile

    def test_a_tile_without_vis_fails_and_one_without_a_nisp_band_does_not(self, tmp_path: Path) -> None:
        listed = read_text(tmp_path, f"id=5 Y=y.fits J=j.fits\nid=6 VIS=v.fits J=j.fits\n{self.LINE}")
        assert list(listed.tiles) == ["6", "7"]
        assert list(listed.tile("6").bands) == ["VIS", "J"]
        assert listed.failed[0].tile_id == "5"
        assert listed.failed[0].reason.endswith("tile-list.txt:1: no VIS mosaic is given; add VIS=….")

    def test_a_folder_that_looks_like_a_key(self, tmp_path: Path) -> None:
        assert read_text(tmp_path, "./id=9 # a folder").failed[0].tile_id == "id=9"
        assert read_text(tmp_path, "run=9").failed[0].tile_id == "run=9"

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("VIS=v Y=y J=j H=h", "add id="),
            ("id=1 VIS=v Y=y J=j H=h K=k", "cannot understand 'K=k'; the keys are ID, VIS, Y, J, H, CATALOGUE"),
            ("id=1 VIS=v stray", "cannot understand 'stray'"),
            ("id=1 VIS=v vis=w", "vis is given twice"),
            ("id=1 VIS=", "VIS is empty"),
            ("id=a/b VIS=v Y=y J=j H=h", "'a/b' cannot be a tile id"),
            ("id=.. VIS=v Y=y J=j H=h", "cannot be a tile id"),
            ("id=1 VIS=v J=j H=h Y_RMS=r", "Y_RMS is given without Y"),
            ("one two", "cannot understand 'two' after 'one'"),
            ("one VIS=v", "cannot understand 'VIS=v' after 'one'"),
            ("one catalogue=c two", "cannot understand 'catalogue=c' after 'one'"),
            ("one catalogue=", "catalogue is empty"),
            ("one catalogue=ftp://host/cat", "ftp:// cannot be read"),
            ("'open", "left open"),
            ("back\\", "left open"),
            ("a'b'c\"d", "left open"),
            ("a\x00b", "control characters"),
            ("ftp://host/file", "ftp:// cannot be read"),
            ("s3://", "names no object"),
            ("s3://bucket", "names no object"),
            ("s3://a$b/key", "names no object"),
            ("s3://[bucket/x", "is not a URL"),
            ("file://host/data", "is no file of this machine"),
            ("file://", "is no file of this machine"),
        ],
    )
    def test_refusals_name_the_line(self, tmp_path: Path, text: str, says: str) -> None:
        with pytest.raises(TileListError, match=re.escape(f"{tmp_path}/tile-list.txt:3: ")) as caught:
            read_text(tmp_path, f"# first\n\n{text}\n")
        assert says in str(caught.value)
        assert caught.value.exit_code == 65


def test_comments_blanks_and_a_byte_order_mark(tmp_path: Path) -> None:
    text = '\ufeff# don\'t mind the quote\r\n\r\n  \t a#b   # trailing\r\n"with # inside"#stuck\\\n'
    with pytest.raises(TileListError, match=r"tile-list.txt:4: a quote or a backslash is left open"):
        read_text(tmp_path, text)
    listed = read_text(tmp_path, text.replace("#stuck\\", " #no"))
    assert [failed.tile_id for failed in listed.failed] == ["a#b", "with # inside"]


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n   \n"])
def test_empty_list(tmp_path: Path, text: str) -> None:
    with pytest.raises(TileListError, match="holds no tile"):
        read_text(tmp_path, text)


def test_duplicate_ids_name_both_lines(tmp_path: Path) -> None:
    with pytest.raises(TileListError, match=r"tile-list.txt:3: tile 5 stands in line 1 already"):
        read_text(tmp_path, "id=5 VIS=a Y=a J=a H=a\n\nsky_TILE5\n")
    with pytest.raises(TileListError, match=r"txt:2: tile A stands in line 1 already as a, the same folder on some disks"):
        read_text(tmp_path, "id=a VIS=a Y=a J=a H=a\nid=A VIS=a Y=a J=a H=a\n")


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_list_that_is_no_file(tmp_path: Path, kind: str) -> None:
    path = {"pipe": tmp_path / "pipe", "device": Path("/dev/zero"), "folder": tmp_path}[kind]
    if kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(InputMissingError, match=rf"the tile list cannot be read \(is a {kind}, not a file\)"):
        tile_list.read(path)


def test_list_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="is not there"):
        tile_list.read(tmp_path / "none.txt")
    with pytest.raises(InputMissingError, match="is a folder"):
        tile_list.read(tmp_path)
    (tmp_path / "image.fits").write_bytes(b"SIMPLE\xff\xfe\x00")
    with pytest.raises(TileListError, match="not UTF-8 text"):
        tile_list.read(tmp_path / "image.fits")


PATHS = st.text(
    st.characters(codec="utf-8", exclude_categories=["C"], exclude_characters="[]"), min_size=1, max_size=20
).filter(lambda path: "://" not in path)
IDS = st.text(string.ascii_letters + string.digits + "_+-", min_size=1, max_size=12)
EXTENSIONS = st.one_of(st.none(), st.integers(0, 99), st.from_regex(r"[A-Z_]{1,8}", fullmatch=True))
STYLES = st.sampled_from(["double", "single", "bare"])


def quoted(text: str, style: str) -> str:
    if style == "double":
        return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
    if style == "single":
        return "'" + text.replace("'", "'\\''") + "'"
    return re.sub(r"([\s\"'\\])", r"\\\1", text)


@given(data=st.data())
def test_what_is_written_is_read(tmp_path: Path, data: st.DataObject) -> None:
    ids = data.draw(st.lists(IDS, min_size=1, max_size=4, unique=True))
    lines, expected = [], []
    for tile_id in ids:
        companions = data.draw(st.lists(st.sampled_from(KEYS[5:]), unique=True))
        words, files = [f"id={tile_id}"], {}
        for key in data.draw(st.permutations([*BANDS, *companions])):
            path, extension = data.draw(PATHS), data.draw(EXTENSIONS)
            suffix = "" if extension is None else f"[{extension}]"
            words.append(f"{key}={quoted(path + suffix, data.draw(STYLES))}")
            files[key] = (str(tmp_path / path), extension)
        lines.append("  ".join(words) + data.draw(st.sampled_from(["", " ", " # 'comment"])))
        expected.append((tile_id, files))
    listed = read_text(tmp_path, "\n".join(lines))
    assert listed.failed == ()
    for tile, (tile_id, files) in zip(listed.tiles.values(), expected, strict=True):
        found = {"CATALOGUE": tile.catalogue}
        for band, images in tile.bands.items():
            found |= {band: images.image, f"{band}_RMS": images.rms, f"{band}_FLAG": images.flag, f"{band}_PSF": images.psf}
        assert tile.tile_id == tile_id
        assert {key: (ref.path, ref.extension) for key, ref in found.items() if ref is not None} == files


FRAGMENTS = st.sampled_from(
    [
        "id=1 ",
        "VIS=a ",
        "Y=",
        "[",
        "]",
        "file:///",
        "#",
        '"',
        "'",
        "\\",
        "\n",
        " ",
        "..",
        "/",
        "TILE1 ",
        "\x00",
        "é",
        "catalogue=",
    ]
)
#: Every folder of an object store that a list names is listed.
REMOTE_FRAGMENTS = st.sampled_from(
    ["s3://", "S3://scanner-tests/", "s3://scanner-public/a b/", "s3://scanner-nowhere/", "?", "%2e"]
)


def outcome(location: str | Path, storage: StorageConfig) -> TileList | ScannerError:
    try:
        return tile_list.read(location, storage)
    except ScannerError as error:
        return error


CONTENTS = st.one_of(
    st.lists(FRAGMENTS, max_size=12).map(lambda words: "".join(words).encode()),
    st.lists(FRAGMENTS | REMOTE_FRAGMENTS, max_size=8).map(lambda words: "".join(words).encode()),
    st.text(max_size=60).map(str.encode),
    st.binary(max_size=80),
)


def is_list_or_refusal(listed: TileList | ScannerError, location: str) -> None:
    if isinstance(listed, TileListError):
        assert str(listed).startswith(location)
    if isinstance(listed, ScannerError):
        # A bucket that is not there is no matter of one tile.
        assert isinstance(listed, TileListError | InputMissingError)
        assert "\n" not in str(listed)
    else:
        assert len(listed) >= 1
        assert all(set(tile.bands) == set(BANDS) for tile in listed.tiles.values())


@settings(max_examples=300)
@given(content=CONTENTS)
def test_nothing_but_a_scanner_error(tmp_path: Path, s3: Any, content: bytes) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    is_list_or_refusal(outcome(path, s3.config), str(path))


class TestObjectStore:
    """Lists and tiles on a real S3 server."""

    def put(self, s3: Any, location: str, *names: str, content: bytes = b"") -> str:
        store = open_store(location, s3.config)
        for name in names:
            store.write(name, content)
        return location

    def read(self, s3: Any, text: str, location: str | None = None) -> TileList:
        location = location or s3.fresh()
        self.put(s3, location, "tile-list.txt", content=text.encode())
        return tile_list.read(f"{location}/tile-list.txt", s3.config)

    def test_a_list_and_its_tiles_below_one_prefix(self, s3: Any) -> None:
        place = s3.fresh()
        names = [*(f"VIS/{name}" for name in (MOSAICS["VIS"], BESIDE[0])), *(f"NISP/{MOSAICS[band]}" for band in "YJH")]
        self.put(s3, f"{place}/tiles/102018665", *names, f"DECAM/{MOSAICS['VIS']}", *PASSED_OVER)
        self.put(s3, f"{place}/catalogues/102018665", BESIDE[3], PASSED_OVER[3], PASSED_OVER[4])
        listed = self.read(s3, "../tiles/102018665 catalogue=../catalogues/102018665/\n", f"{place}/lists")
        assert listed.failed == ()
        (tile,) = listed.tiles.values()
        assert tile.tile_id == "102018665"
        assert tile.bands["VIS"].image.path == f"{place}/tiles/102018665/VIS/{MOSAICS['VIS']}"
        assert tile.bands["VIS"].rms is not None
        assert tile.bands["Y"].image.path == f"{place}/tiles/102018665/NISP/{MOSAICS['Y']}"
        assert tile.catalogue is not None
        assert tile.catalogue.path == f"{place}/catalogues/102018665/{BESIDE[3]}"

    def test_a_remote_list_of_mixed_places(self, s3: Any, tmp_path: Path) -> None:
        touch(tmp_path / "field_7", "VIS.fits", "NIR-Y.fits", "NIR-J.fits", "NIR-H.fits")
        place = s3.fresh()
        self.put(s3, f"{place}/lists/here", *MOSAICS.values())
        text = f"id=1 VIS=v.fits Y=./y/y.fits[2] J=/data/j.fits H=s3://other/h.fits\n{tmp_path / 'field_7'}\nhere/\n"
        first, second, third = self.read(s3, text, f"{place}/lists").tiles.values()
        assert [first.bands[band].image.path for band in BANDS] == [
            f"{place}/lists/v.fits", f"{place}/lists/y/y.fits", "/data/j.fits", "s3://other/h.fits"
        ]  # fmt: skip
        assert second.bands["VIS"].image.path == str(tmp_path / "field_7" / "VIS.fits")
        assert third.bands["VIS"].image.path == f"{place}/lists/here/{MOSAICS['VIS']}"

    def test_a_local_list_of_remote_tiles_keeps_the_order_of_its_lines(self, s3: Any, tmp_path: Path) -> None:
        place = s3.fresh()
        for number in range(20):
            self.put(s3, f"{place}/T{number}", *(name.replace("102018665", f"1{number:02d}") for name in MOSAICS.values()))
        touch(tmp_path / "102018665", *MOSAICS.values())
        lines = [f"{place}/T{number}" for number in range(20)]
        (tmp_path / "list.txt").write_text("\n".join([*lines[:10], "102018665", *lines[10:]]))
        listed = tile_list.read(tmp_path / "list.txt", s3.config)
        expected = [f"1{number:02d}" for number in range(20)]
        assert list(listed.tiles) == [*expected[:10], "102018665", *expected[10:]]

    def test_a_folder_with_nothing_below_fails_its_tile(self, s3: Any) -> None:
        listed = self.read(s3, f"gone_TILE9\n{s3.fresh()}/x\nid=1 VIS=a Y=a J=a H=a")
        assert [failed.tile_id for failed in listed.failed] == ["9", "x"]
        assert ":1: s3://" in listed.failed[0].reason
        assert "no object lies below it" in listed.failed[0].reason

    def test_a_folder_that_may_not_be_listed_fails_its_tile(self, s3: Any) -> None:
        place = self.put(s3, s3.fresh(public=True), "list.txt", content=f"{s3.fresh()}/t\nid=1 VIS=a Y=a J=a H=a".encode())
        listed = tile_list.read(f"{place}/list.txt", s3.config.model_copy(update={"anonymous": True}))
        assert list(listed.tiles) == ["1"]
        assert "reading is not allowed" in listed.failed[0].reason

    def test_no_line_leads_out_of_the_bucket(self, s3: Any) -> None:
        with pytest.raises(TileListError, match=r"tile-list.txt:1: ../../../x: leads out of the bucket scanner-tests"):
            self.read(s3, "../../../x")

    def test_a_list_that_is_not_there(self, s3: Any) -> None:
        with pytest.raises(InputMissingError, match="no such object"):
            tile_list.read(f"{s3.fresh()}/list.txt", s3.config)
        with pytest.raises(InputMissingError, match="no such bucket"):
            tile_list.read("s3://scanner-nowhere/list.txt", s3.config)
        with pytest.raises(InputMissingError, match="no such bucket"):
            self.read(s3, "id=1 VIS=a Y=a J=a H=a\ns3://scanner-nowhere/tile")

    def test_bad_credentials(self, s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        (tmp_path / "list.txt").write_text("\n".join(f"{s3.fresh()}/{number}" for number in range(40)))
        for location in (f"{s3.fresh()}/list.txt", tmp_path / "list.txt"):
            with pytest.raises(InputMissingError, match="does not accept the credentials"):
                tile_list.read(location, s3.config)

    def test_a_server_that_is_gone(self, tmp_path: Path) -> None:
        nobody = StorageConfig(endpoint="http://127.0.0.1:9", retries=0, timeout_s=2)
        (tmp_path / "list.txt").write_text("s3://bucket/1")
        for location in ("s3://bucket/list.txt", tmp_path / "list.txt"):
            with pytest.raises(UnavailableError, match="does not answer"):
                tile_list.read(location, nobody)

    @settings(max_examples=50)
    @given(content=CONTENTS)
    def test_nothing_but_a_scanner_error(self, s3: Any, content: bytes) -> None:
        place = self.put(s3, f"s3://{s3.bucket}/fuzz", "list.txt", content=content)
        is_list_or_refusal(outcome(f"{place}/list.txt", s3.config), f"{place}/list.txt")
