import re
import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scanner.errors import InputMissingError, ScannerError, TileListError
from scanner.records import BANDS, Tile
from scanner.sky import tile_list
from scanner.sky.tile_line import KEYS
from scanner.sky.tile_list import TileList

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


class TestFolder:
    def test_euclid_names_are_found(self, tmp_path: Path) -> None:
        folder = touch(tmp_path / "102018665", *MOSAICS.values(), *BESIDE, *PASSED_OVER)
        (tile,) = read_text(tmp_path, "102018665\n").tiles
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
        (tile,) = read_text(tmp_path, "tiles/field_7").tiles
        assert tile.tile_id == "field_7"
        assert [Path(tile.bands[band].image.path).name for band in BANDS] == list(names)

    def test_tile_number_in_the_folders_name(self, tmp_path: Path) -> None:
        touch(tmp_path / "deep_TILE42_x", "VIS.fits", "NIR-Y.fits", "NIR-J.fits", "NIR-H.fits")
        assert read_text(tmp_path, "deep_TILE42_x").tiles[0].tile_id == "42"

    def test_the_lists_own_folder(self, tmp_path: Path) -> None:
        folder = touch(tmp_path / "here", "VIS.fits", "NIR-Y.fits", "NIR-J.fits", "NIR-H.fits")
        assert read_text(folder, ".").tiles[0].tile_id == "here"

    def test_several_tiles_in_one_folder(self, tmp_path: Path) -> None:
        names = [name.replace("102018665", number) for number in ("102018666", "102018665") for name in MOSAICS.values()]
        touch(tmp_path / "all", *names[:-1])
        listed = read_text(tmp_path, "all")
        assert [tile.tile_id for tile in listed.tiles] == ["102018666"]
        assert [tile.tile_id for tile in listed.failed] == ["102018665"]
        assert "no mosaic of H" in listed.failed[0].reason

    def test_unnumbered_files_join_the_only_tile(self, tmp_path: Path) -> None:
        touch(tmp_path / "f", *MOSAICS.values(), "my-catalogue.ecsv")
        (tile,) = read_text(tmp_path, "f").tiles
        assert tile.catalogue is not None
        assert tile.catalogue.path.endswith("my-catalogue.ecsv")

    def test_two_files_for_one_band_names_both(self, tmp_path: Path) -> None:
        touch(tmp_path / "f", *MOSAICS.values(), f"EUC_MER_BGSUB-MOSAIC-VIS_{TILE}.fits.gz")
        listed = read_text(tmp_path, "f")
        assert listed.tiles == ()
        (failed,) = listed.failed
        assert f"VIS_{TILE}.fits and " in failed.reason
        assert f"VIS_{TILE}.fits.gz are both the VIS image" in failed.reason

    def test_the_others_go_on(self, tmp_path: Path) -> None:
        touch(tmp_path / "good", *MOSAICS.values())
        touch(tmp_path / "empty")
        touch(tmp_path, "afile.fits")
        listed = read_text(tmp_path, "good\nmissing_TILE9\nempty\nafile.fits\ns3://bucket/far\n'a b'")
        assert [tile.tile_id for tile in listed.tiles] == ["102018665"]
        assert [failed.tile_id for failed in listed.failed] == ["9", "empty", "afile.fits", "far", "a b"]
        for line, (failed, word) in enumerate(
            zip(
                listed.failed,
                ("No such file", "no mosaic of VIS, Y, J, H", "is a file", "cannot be listed", "No such"),
                strict=True,
            ),
            start=2,
        ):
            assert failed.reason.startswith(f"{tmp_path}/tile-list.txt:{line}: ")
            assert word in failed.reason

    def test_folder_whose_name_cannot_be_an_id(self, tmp_path: Path) -> None:
        touch(tmp_path / "Köln 1", "VIS.fits", "NIR-Y.fits", "NIR-J.fits", "NIR-H.fits")
        (failed,) = read_text(tmp_path, '"Köln 1"').failed
        assert "cannot be a tile id" in failed.reason


class TestLineOfFiles:
    LINE = "id=7 VIS=v.fits[VIS_FLUX] Y=y.fits[3] J=/data/j.fits H=s3://bucket/h.fits"

    def test_all_keys(self, tmp_path: Path) -> None:
        text = f"{self.LINE} catalogue='my cat.csv' VIS_RMS=v.fits[VIS_RMS] h_flag=file:///data/h%20flag.fits # all\n"
        (tile,) = read_text(tmp_path, text).tiles
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
        (tile,) = read_text(tmp_path, self.LINE).tiles
        assert Tile.model_validate_json(tile.model_dump_json()) == tile

    def test_missing_band_fails_that_tile_only(self, tmp_path: Path) -> None:
        listed = read_text(tmp_path, f"id=6 VIS=v.fits J=j.fits\n{self.LINE}")
        assert [tile.tile_id for tile in listed.tiles] == ["7"]
        assert listed.failed[0].tile_id == "6"
        assert listed.failed[0].reason.endswith("tile-list.txt:1: no mosaic is given for Y, H; add Y=… H=….")

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
            ("'open", "left open"),
            ("back\\", "left open"),
            ("a'b'c\"d", "left open"),
            ("a\x00b", "control characters"),
            ("ftp://host/file", "ftp:// cannot be read"),
            ("s3://", "names no object"),
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


def test_list_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="No such file"):
        tile_list.read(tmp_path / "none.txt")
    with pytest.raises(InputMissingError, match="directory"):
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


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
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
    for tile, (tile_id, files) in zip(listed.tiles, expected, strict=True):
        found = {"CATALOGUE": tile.catalogue}
        for band, images in tile.bands.items():
            found |= {band: images.image, f"{band}_RMS": images.rms, f"{band}_FLAG": images.flag, f"{band}_PSF": images.psf}
        assert tile.tile_id == tile_id
        assert {key: (ref.path, ref.extension) for key, ref in found.items() if ref is not None} == files


FRAGMENTS = st.sampled_from(
    ["id=1 ", "VIS=a ", "Y=", "[", "]", "s3://", "file:///", "#", '"', "'", "\\", "\n", " ", "..", "/", "TILE1 ", "\x00", "é"]
)


def outcome(path: Path) -> TileList | ScannerError:
    try:
        return tile_list.read(path)
    except ScannerError as error:
        return error


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(
    content=st.one_of(
        st.lists(FRAGMENTS, max_size=12).map(lambda words: "".join(words).encode()),
        st.text(max_size=60).map(str.encode),
        st.binary(max_size=80),
    )
)
def test_nothing_but_a_scanner_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    listed = outcome(path)
    if isinstance(listed, ScannerError):
        assert str(listed).startswith(str(path))
        assert "\n" not in str(listed)
    else:
        assert len(listed) >= 1
        assert all(set(tile.bands) == set(BANDS) for tile in listed.tiles)
