"""Real lenses: the Einstein radius that is published, and a ring that a person sees."""

from dataclasses import replace

import numpy as np
import pytest

from scanner.evaluation.images import read_plate, stamp
from scanner.modelling.candidate import model_cutout
from scanner.records import BANDS, ImageRef


def test_the_inner_ring_of_the_jackpot(real):
    image = ImageRef(path=str(real / "jackpot" / "slacs0946+1006.fits"))
    cutout = stamp({"VIS": read_plate(image, 0.05, None)})
    # Alone: a network is shown one band thrice, a model is not.
    cutout = replace(cutout, nisp=np.full_like(cutout.nisp, np.nan))
    model, _ = model_cutout(cutout, "hst", "of-the-file")
    assert model.bands == ("VIS",)
    # Not certified: at the S/N of this image (1.2 of chi squared a pixel) the fit of nine galaxies does not settle.
    assert (model.status, model.verdict) == ("not converged", "consistent")
    assert model.ln_evidence_ratio > 100.0
    # Gavazzi et al. (2008): 1.43" ± 0.01".
    assert model.mass.theta_e_arcsec == pytest.approx(1.43, rel=0.05)
    # The outer ring is of another source.
    assert sum(one.lensed for one in model.galaxies) >= 2


def four_bands(path, suffix):
    """The object in the middle of a stamp of four bands."""
    names = {band: f"{'VIS' if band == 'VIS' else f'NIR_{band}'}_{suffix}" for band in BANDS}
    return stamp({band: read_plate(ImageRef(path=str(path), extension=name), None, None) for band, name in names.items()})


def test_a_lens_of_euclids_first_data(real):
    path = next((real / "euclid-q1-102018665").glob("*.fits"))
    model, _ = model_cutout(four_bands(path, "BGSUB"), "q1", "of-the-file")
    assert (model.status, model.verdict, len(model.bands)) == ("converged", "certified", 4)
    # The ring has a radius of 0.8" in the image.
    assert model.mass.theta_e_arcsec == pytest.approx(0.8, abs=0.1)


def test_a_group_whose_arcs_lie_on_one_side(real):
    model, _ = model_cutout(four_bands(real / "euclid-group" / "group.fits", "FLUX"), "group", "of-the-file")
    # One arc without a counter-image says little, and the verdict says so.
    assert (model.status, model.verdict) == ("converged", "consistent")
    assert model.mass.theta_e_arcsec == pytest.approx(1.04, abs=0.13)
