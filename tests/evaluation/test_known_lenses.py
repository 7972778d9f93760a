from contextlib import suppress

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from scanner.errors import InputMissingError, TileListError
from scanner.evaluation import images
from scanner.records import ImageRef


def _read(folder, text):
    path = folder / "known.txt"
    path.write_text(text)
    return images.read_known_lenses(path)


def test_bands_positions_and_scales_are_read(tmp_path):
    found = _read(
        tmp_path,
        """# Table 2
        id=SDSSJ0946+1006 VIS=f160w.fits Y='f 336.fits[SCI]' H=/a/f814w.fits[1]  ra=146.7379 dec=+10.1134 # the jackpot
        id=bare vis=x.fits Y=y.fits scale=0.05 Y_scale=0.04
        """,
    )
    first, second = found
    assert (first.name, first.position) == ("SDSSJ0946+1006", (146.7379, 10.1134))
    assert first.images == {
        "VIS": ImageRef(path=str(tmp_path / "f160w.fits")),
        "Y": ImageRef(path=str(tmp_path / "f 336.fits"), extension="SCI"),
        "H": ImageRef(path="/a/f814w.fits", extension=1),
    }
    assert (second.scales_arcsec, second.position) == ({"VIS": 0.05, "Y": 0.04}, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no lens"),
        ("id=a VIS=x scale=1\nid=a VIS=y", "known.txt:2: a is given twice"),
        ("id=a K=x", "cannot understand 'K=x'"),
        ("id=a VIS", "cannot understand 'VIS'"),
        ("id=a VIS=", "cannot understand 'VIS='"),
        ("id=a VIS=x VIS=y", "VIS is given twice"),
        ("VIS=x", "needs id=NAME"),
        ("id=a", "image of at least one band"),
        ("id=a VIS=x ra=1", "ra and dec belong together"),
        ("id=a VIS=x scale=big", "scale=big is no number"),
        ("id=a VIS=x scale=0", "must be more than 0"),
        ("id=a VIS='x", "a quote is left open"),
    ],
)
def test_mistakes_are_told_in_a_line(tmp_path, text, message):
    with pytest.raises(TileListError, match=message) as caught:
        _read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_missing_and_binary_lists_are_told(tmp_path):
    with pytest.raises(InputMissingError, match="cannot be read"):
        images.read_known_lenses(tmp_path / "nowhere.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TileListError, match="not UTF-8"):
        images.read_known_lenses(tmp_path / "binary")


@given(st.text(alphabet="id=VIS x.'#\\\n", max_size=40))
def test_no_text_crashes_the_parser(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("known") / "list.txt"
    path.write_text(text)
    with suppress(TileListError):
        assert images.read_known_lenses(path)


def test_cutouts_of_one_band_fill_all(tmp_path):
    image = np.random.default_rng(0).normal(5, 1, (400, 400)).astype(np.float32)
    fits.writeto(tmp_path / "one.fits", image)
    (tmp_path / "known.txt").write_text("id=one VIS=one.fits scale=0.05")
    batch = images.known_lens_cutouts(images.read_known_lenses(tmp_path / "known.txt"))["one"]
    np.testing.assert_allclose(batch.vis[0], image.reshape(200, 2, 200, 2).sum(axis=(1, 3)), rtol=1e-4)
    assert batch.bad_fraction.max() == 0
    np.testing.assert_array_equal(batch.nisp[0, 0], batch.nisp[0, 1])


def test_the_jackpot_is_cut_whole(real, tmp_path):
    (tmp_path / "known.txt").write_text(f"id=jackpot VIS={real / 'jackpot' / 'slacs0946+1006.fits'} scale=0.05\n")
    batch = images.known_lens_cutouts(images.read_known_lenses(tmp_path / "known.txt"))["jackpot"]
    # 281 pixels of 0.05": 14.05" of 20".
    assert batch.bad_fraction[0, 0] == pytest.approx(1 - (14.05 / 20) ** 2, abs=0.02)
    middle = batch.vis[0, 95:105, 95:105]
    assert middle.mean() > batch.sky[0, 0] + 20 * batch.sigma[0, 0]
