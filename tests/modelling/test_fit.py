"""The fit of one candidate: derivatives, images against lenstronomy, what is found, what is refused."""

import math
from dataclasses import replace

import numpy as np
import pytest
from astropy import units
from astropy.cosmology import LambdaCDM, Planck18
from astropy.wcs import WCS
from drawn_lens import ARMS, COMPANIONS, CROWD, DEFLECTOR, LENS, RING, SECOND_SOURCE, SOURCE, drawn

import scanner
from scanner.modelling import candidate, scene_fit
from scanner.modelling.candidate import (
    lens_probability,
    model_cutout,
    position_angle_deg,
    sources_told_apart,
    verdict,
)
from scanner.modelling.deflector_light import fit_deflector, without_deflector
from scanner.modelling.lens_model import LensModel, table_of
from scanner.modelling.observation import mean_of_euclid, observe
from scanner.modelling.panels import (
    fits_bytes,
    herculens_arguments,
    lens_of_record,
    lenstronomy_arguments,
    pyautolens_arguments,
)
from scanner.modelling.radius_network import RadiusPosterior, in_use
from scanner.modelling.scene_fit import Problem, Scene, draw, fit, of_one_colour, priors
from scanner.simulation.lensing import deflection
from scanner.simulation.light.components import Component, Kind, profiles, surface_brightness, tabulate


@pytest.fixture(scope="module")
def lens_cutout():
    return drawn([DEFLECTOR, SOURCE])


@pytest.fixture(scope="module")
def problem(lens_cutout):
    data = observe(lens_cutout)
    return Problem(data, fit_deflector(data))


@pytest.fixture(scope="module")
def truth():
    flat = -math.log(LENS.q)
    mass = [math.log(LENS.theta_e), flat * math.cos(2 * LENS.angle), flat * math.sin(2 * LENS.angle), LENS.x, LENS.y]
    radius = math.log(SOURCE.radius * math.sqrt(SOURCE.q))
    source = [SOURCE.x, SOURCE.y, radius, -math.log(SOURCE.q), SOURCE.angle, SOURCE.index, 0.0]
    return Scene(np.array([*mass, LENS.gamma1, LENS.gamma2]), np.array([source]), 1)


@pytest.fixture(scope="module")
def modelled(lens_cutout):
    return model_cutout(
        lens_cutout,
        "tile",
        "of-the-files",
        psfs={"VIS": mean_of_euclid("VIS", source="stars")},
        zero_points={"VIS": 26.0, "Y": 26.0},
    )


def test_the_deflector_is_found_and_taken_off(problem):
    deflector = problem.deflector
    assert (deflector.x, deflector.y) == pytest.approx((DEFLECTOR.x, DEFLECTOR.y), abs=0.01)
    near = np.hypot(problem.data.x - deflector.x, problem.data.y - deflector.y) < 0.5
    assert deflector.light[0][near].sum() == pytest.approx(problem.data.images[0][near].sum(), rel=0.03)
    # Half of the flux of the arcs, which are far out, would be a twentieth of the deflector's.
    assert deflector.light[0].sum() == pytest.approx(DEFLECTOR.flux[0], rel=0.05)


def test_a_picture_without_the_deflector_shows_the_arcs_as_if_it_were_not_there(lens_cutout):
    without, alone = without_deflector(lens_cutout), drawn([SOURCE])
    rows, columns = np.indices(lens_cutout.vis[0].shape)
    radius = np.hypot(columns - 99.5, rows - 99.5) * 0.1
    core, arcs, beyond = radius < 0.4, (radius > 0.6) & (radius < 2.0), radius > 6.5

    def flux(cutout, where):
        return float((cutout.vis[0] - cutout.sky[0, 0])[where].sum())

    assert abs(flux(without, core)) < 0.02 * flux(lens_cutout, core)
    assert flux(without, arcs) == pytest.approx(flux(alone, arcs), rel=0.07)
    np.testing.assert_array_equal(without.vis[0][beyond], lens_cutout.vis[0][beyond])
    # Where VIS is masked, nothing is fitted.
    masked = replace(lens_cutout, vis=np.full_like(lens_cutout.vis, np.nan))
    assert without_deflector(masked) is masked


def test_slopes_are_those_of_finite_differences(problem, truth):
    bent = np.array([0.8, -1.1, -1.2, 0.6, 0.4, 1.3, 0.4])
    scene = scene_fit.joined(replace(truth, galaxies=truth.galaxies.copy()), [bent])
    middle, width = priors(scene, problem.deflector)
    slope = scene_fit._evaluate(problem, scene, middle, width).slope
    for number in range(len(middle)):
        if width[number] < 1e-3:
            continue
        step = np.zeros(len(middle))
        step[number] = 2e-3
        up, down = (
            scene_fit._evaluate(problem, scene.with_vector(scene.vector + sign * step), middle, width, slopes=False).objective
            for sign in (1, -1)
        )
        assert slope[number] == pytest.approx(-(up - down) / 8e-3, rel=0.02, abs=15.0), number


@pytest.mark.parametrize(
    ("pattern", "numbers"),
    [("ring", [0.1, -0.1, 0.1, 0.4, 0.3, 0.2, 0.0]), ("spiral", [0.1, -0.1, -0.1, 0.5, 0.4, 2.0, 0.7])],
)
def test_slopes_of_patterns_are_those_of_finite_differences(pattern, numbers):
    data = observe(drawn([DEFLECTOR, RING, ARMS]))
    problem = Problem(data, fit_deflector(data))
    scene = scene_fit.joined(Scene(None, np.array([numbers]), 0, pattern), [np.array([0.8, -1.1, -1.2, 0.6, 0.4, 1.3, 0.4])])
    middle, width = priors(scene, problem.deflector)
    slope = scene_fit._evaluate(problem, scene, middle, width).slope
    for number in np.flatnonzero(width > 1e-3):
        step = np.zeros(len(middle))
        step[number] = 1e-3
        up, down = (
            scene_fit._evaluate(problem, scene.with_vector(scene.vector + sign * step), middle, width, slopes=False).objective
            for sign in (1, -1)
        )
        assert slope[number] == pytest.approx(-(up - down) / 4e-3, rel=0.02, abs=15.0), number


def test_a_pattern_has_the_flux_that_it_is_given():
    """Of a ring exactly; of arms what lies outside of their beginning, from von Mises' and the exponential disc's integrals."""
    data = observe(drawn([DEFLECTOR]))
    ring, arms = (
        float(draw(Scene(None, np.array([numbers]), 0, pattern), data, slopes=False)[0].sum(dtype=np.float64))
        for pattern, numbers in (("ring", [0, 0, 0.1, 0.4, 0.3, 0.2, 0]), ("spiral", [0, 0, -0.6, 0.5, 0.4, 1.0, 0.7]))
    )
    assert ring == pytest.approx(1.0, abs=1e-4)
    r = np.linspace(0.0, 30.0, 300_001)
    outside = 1.678**2 * np.trapezoid(r * np.exp(-1.678 * r) * r**2 / (r**2 + 0.25), r)
    assert arms == pytest.approx(outside, rel=5e-3)


@pytest.mark.parametrize(("pattern", "light"), [("ring", RING), ("spiral", ARMS)])
def test_a_ring_and_spiral_arms_are_no_lens(pattern, light, monkeypatch):
    """Sérsic galaxies alone would leave a lens the better explanation of both."""
    cutout = drawn([DEFLECTOR, light])
    model, _ = model_cutout(cutout, "tile", "of-the-files")
    assert (model.verdict, model.pattern, model.n_companions_without_lens) == ("better without a lens", pattern, 1)
    monkeypatch.setattr(candidate, "with_a_pattern", scene_fit.nothing)
    without, _ = model_cutout(cutout, "tile", "of-the-files")
    assert (without.verdict in ("certified", "consistent"), without.pattern) == (True, None)
    assert without.ln_evidence_ratio > 100.0


def test_a_drawn_lens_is_recovered_from_nothing(modelled, lens_cutout):
    model, images = modelled
    assert (model.status, model.verdict) == ("converged", "certified")
    assert model.pattern is None
    assert model.mass.theta_e_arcsec == pytest.approx(LENS.theta_e, rel=0.02)
    assert abs(model.mass.theta_e_arcsec - LENS.theta_e) < 4 * model.mass.theta_e_error_arcsec
    assert model.mass.q == pytest.approx(LENS.q, abs=0.1)
    assert model.galaxies[0].lensed
    assert (model.galaxies[0].x_arcsec, model.galaxies[0].y_arcsec) == pytest.approx((SOURCE.x, SOURCE.y), abs=0.05)
    assert sum(one.flux[0] for one in model.galaxies if one.lensed) == pytest.approx(SOURCE.flux[0], rel=0.15)
    assert model.n_images in (2, 4)
    assert (model.n_sources, model.second_source_snr is None) == (1, sum(one.lensed for one in model.galaxies) == 1)
    seen = model.seen_radius
    assert seen.low_arcsec < seen.theta_e_arcsec < seen.high_arcsec
    assert (seen.network, seen.agreement) == (
        in_use().fingerprint,
        in_use().posterior(lens_cutout).near(model.mass.theta_e_arcsec),
    )
    fitted = images.fitted[0] > 0
    assert (images.residual(0) / images.noise[0])[fitted].std() == pytest.approx(0.9, abs=0.1)


def test_of_several_lenses_the_one_is_taken_whose_radius_the_network_sees(problem):
    """A network that is sure of another radius moves where the fit starts, and what is taken, but not what the pixels say."""
    edges = RadiusPosterior.flat().edges
    middle = np.exp(0.5 * (edges[1:] + edges[:-1]))

    def sure_of(theta_e):
        near = np.exp(-0.5 * (np.log(middle / theta_e) / 0.05) ** 2)
        return RadiusPosterior(edges, near / near.sum())

    wrong = candidate.starts(problem, np.zeros((0, 7)), sure_of(2.0))
    radii = [math.exp(one.mass[0]) for one in wrong]
    # The first is the best of all, whatever the network says.
    assert radii[0] == pytest.approx(LENS.theta_e, rel=0.15)
    assert all(one == pytest.approx(2.0, rel=0.25) for one in radii[1:])
    free = [math.exp(one.mass[0]) for one in candidate.starts(problem, np.zeros((0, 7)), RadiusPosterior.flat())]
    assert (free[0], max(free) / min(free) > 1.3) == (radii[0], True)
    small, large = (replace_theta_e(problem, theta_e) for theta_e in (0.6, LENS.theta_e))
    assert candidate._preference(50.0, large, RadiusPosterior.flat()) > candidate._preference(
        40.0, small, RadiusPosterior.flat()
    )
    assert candidate._preference(50.0, large, sure_of(0.6)) < candidate._preference(40.0, small, sure_of(0.6))


def test_what_a_network_sees_moves_a_fit_as_a_second_measurement_would(problem, truth):
    alone = fit(problem, truth, 25)
    theta_e, error = alone.scene.lens.theta_e, candidate.ERROR_SCALE * math.sqrt(alone.covariance[0, 0])
    edges = np.linspace(math.log(0.28), math.log(5.0), 2001)
    middle = 0.5 * (edges[1:] + edges[:-1])
    density = np.exp(-0.5 * ((middle - math.log(theta_e) - 2.0 * error) / error) ** 2)
    informed = candidate.informed(problem, alone, RadiusPosterior(edges, density / density.sum()))
    # As far from the one as from the other, and known better by √2; the rest of the model follows.
    assert math.log(informed.scene.lens.theta_e / theta_e) == pytest.approx(error, rel=0.1)
    assert candidate.ERROR_SCALE * math.sqrt(informed.covariance[0, 0]) == pytest.approx(error / math.sqrt(2.0), rel=0.1)
    # One of its errors, not scaled, costs 1 in χ²: pixels are explained as well as they can be with that radius.
    assert alone.chi2 < informed.chi2 < alone.chi2 + 1.3 * candidate.ERROR_SCALE**2
    assert informed.ln_evidence == alone.ln_evidence
    # A network that says nothing moves nothing, and neither does one that is torn.
    assert candidate.informed(problem, alone, RadiusPosterior.flat()) is alone
    torn = np.exp(-0.5 * ((np.abs(middle - math.log(theta_e)) - 3.0 * error) / (0.5 * error)) ** 2)
    assert candidate.informed(problem, alone, RadiusPosterior(edges, torn / torn.sum())) is alone


def replace_theta_e(problem, theta_e):
    """A fit of no steps to a lens of an Einstein radius."""
    start = candidate.starts(problem, np.zeros((0, 7)), RadiusPosterior.flat())[0]
    mass = start.mass.copy()
    mass[0] = math.log(theta_e)
    return fit(problem, replace(start, mass=mass), 0)


def behind(problem, truth, *components):
    """A fit of no steps with these sources where they are."""
    rows = [
        [one.x, one.y, math.log(one.radius * math.sqrt(one.q)), -math.log(one.q), one.angle, one.index, 0.0]
        for one in components
    ]
    return fit(problem, Scene(truth.mass, np.array(rows), len(rows)), 0)


def test_a_second_source_has_another_colour(truth):
    """Two sources of two colours, and two of one; against a search over all common colours, band by band."""
    rises = []
    for second in (SECOND_SOURCE, replace(SECOND_SOURCE, flux=tuple(0.4 * flux for flux in SOURCE.flux))):
        data = observe(drawn([DEFLECTOR, SOURCE, second]))
        problem = Problem(data, fit_deflector(data))
        found = behind(problem, truth, SOURCE, second)
        rises.append(of_one_colour(problem, found, 0, 1))
        rows = problem.columns(draw(found.scene, data, slopes=False)[0])

        def chi2(ratio, problem=problem, rows=rows):
            total = 0.0
            for band, (one, other) in enumerate(rows):
                both = np.stack([problem.target[band], one + ratio * other])
                (square, crossed), (_, image) = problem.products(band, both)
                total += square - max(crossed, 0.0) ** 2 / image
            return total

        coarse = min(np.linspace(-4.0, 2.0, 61), key=lambda ln: chi2(np.float32(math.exp(ln))))
        best = min(chi2(np.float32(math.exp(ln))) for ln in coarse + np.linspace(-0.1, 0.1, 41))
        assert rises[-1] == pytest.approx(best - found.chi2, rel=0.05, abs=0.5)
    # Of two sources of one colour chance raises it by three, in the mean.
    assert (rises[0] > 100.0, rises[1] < 12.0) == (True, True)
    assert [sources_told_apart(20.0, rise) for rise in rises] == [2, 1]
    assert (sources_told_apart(9.0, 100.0), sources_told_apart(None, None)) == (1, 1)


def test_galaxies_of_two_colours_are_no_lens():
    model, _ = model_cutout(drawn([DEFLECTOR, *COMPANIONS]), "tile", "of-the-files")
    assert model.verdict in ("no evidence", "better without a lens")
    assert model.n_companions_without_lens >= 2


def test_certified_is_what_converged_shows_its_counter_image_and_has_the_radius_that_a_network_sees(modelled):
    assert verdict(11.0, "converged", 3.1, 0.4) == "certified"
    not_quite = (11.0, "poor fit", 3.1, 0.4), (9.0, "converged", 3.1, 0.4), (11.0, "converged", 2.9, 0.4)
    assert {verdict(*case) for case in (*not_quite, (11.0, "converged", 3.1, 0.39))} == {"consistent"}
    # The two images share the light of the arcs.
    assert 5.0 < modelled[0].counter_image_snr < 0.5 * modelled[0].arc_snr
    assert modelled[0].deflector_kept == pytest.approx(1.0, abs=0.2)


def test_a_source_that_takes_over_the_galaxy_or_is_too_large_is_not_believed(problem, truth):
    found = fit(problem, truth, 4)
    statuses = [candidate._status(found, 50.0, 1.1, problem.n_pixels, kept) for kept in (1.0, 0.2)]
    assert statuses == ["converged" if found.converged else "not converged", "poor fit"]
    galaxies = found.scene.galaxies.copy()
    galaxies[0, 2] = math.log(scene_fit.HIGHEST_RADIUS)
    large = replace(found, scene=replace(found.scene, galaxies=galaxies))
    assert candidate._status(large, 50.0, 1.1, problem.n_pixels, 1.0) == "at a limit"


def test_a_model_raises_or_lowers_what_networks_think(modelled):
    nowhere = modelled[0].seen_radius.model_copy(update={"agreement": 0.0})
    model = modelled[0].model_copy(update={"ln_evidence_ratio": 0.0, "counter_image_snr": 0.0, "seen_radius": nowhere})
    # A seventieth of the odds is left to what shows nothing of a lens, at a radius that the network excludes.
    odds = math.exp(0.06) * 0.01**0.93
    assert lens_probability(model, 0.5) == pytest.approx(odds / (1.0 + odds))
    assert lens_probability(modelled[0], 0.5) > 0.7
    assert lens_probability(modelled[0], math.nan) is None
    assert 0.9999 < lens_probability(modelled[0], 1.0) <= 1.0


def test_a_crowd_is_no_lens_though_a_source_could_show_several_of_its_galaxies():
    model, _ = model_cutout(drawn([DEFLECTOR, *CROWD]), "tile", "of-the-files")
    assert model.n_companions_without_lens >= len(CROWD)
    assert model.verdict in ("no evidence", "better without a lens")


def test_two_galaxies_in_one_place_are_fitted(problem, truth):
    """Their products have no inverse; together they have the flux that one of them has alone."""
    bent = np.array([1.35, 0.5, math.log(0.3), 0.4, 0.4, 1.0, 0.0])
    alone, twice = (
        fit(problem, Scene(truth.mass, np.array([truth.galaxies[0] + [1.0, 0, 0, 0, 0, 0, 0], *[bent] * n]), 1), 0)
        for n in (1, 2)
    )
    assert alone.fluxes[1].min() > 0.0
    assert twice.fluxes[1:].sum(axis=0) == pytest.approx(alone.fluxes[1], rel=1e-3, abs=1e-3)
    assert twice.chi2 == pytest.approx(alone.chi2, abs=1e-2)


def test_bad_pixels_are_a_status_and_no_crash(lens_cutout):
    masked = lens_cutout.vis.copy()
    masked[0, 95:105, 95:105] = np.nan
    model, images = model_cutout(replace(lens_cutout, vis=masked), "tile", "of-the-files")
    assert (model.status, model.verdict, images) == ("refused", "refused", None)
    assert "masked" in model.reason
    blank = model_cutout(replace(lens_cutout, vis=np.full_like(masked, np.nan)), "tile", "of-the-files")[0]
    assert blank.status == "refused"
    none = model_cutout(replace(lens_cutout, sigma=np.full_like(lens_cutout.sigma, np.nan)), "tile", "of-the-files")[0]
    assert none.status == "refused"


def test_a_missing_band_is_left_out(lens_cutout, problem, truth):
    nisp = lens_cutout.nisp.copy()
    nisp[0, 1] = np.nan
    data = observe(replace(lens_cutout, nisp=nisp))
    assert data.bands == (0, 1, 3)
    found = fit(Problem(data, fit_deflector(data)), truth, 4)
    assert np.isnan(found.fluxes[0, 2])
    assert found.fluxes[0, 3] == pytest.approx(SOURCE.flux[3], rel=0.2)


def test_the_table_has_a_row_for_every_record(modelled):
    model, _ = modelled
    refused = LensModel(tile_id="t", target_id=3, input_fingerprint="", status="refused", verdict="refused", reason="why")
    ringed = model.model_copy(update={"tile_id": "u", "pattern": "ring"})
    table = table_of([ringed, model, refused], "run-1")
    # By tile and target, whatever the order that they came in.
    assert table["model_verdict"].to_pylist() == ["refused", model.verdict, model.verdict]
    assert table["run"].to_pylist() == ["run-1"] * 3
    assert table["model_pattern"].to_pylist() == ["", "", "ring"]
    assert table["theta_e"][1].as_py() == pytest.approx(model.mass.theta_e_arcsec)
    assert table["mass_within_theta_e"][1].as_py() == pytest.approx(math.pi * model.mass.theta_e_arcsec**2)
    assert [table[f"source_magnitude_{band}"][1].as_py() for band in ("vis", "y")] == pytest.approx(
        [26.0 - 2.5 * math.log10(sum(one.flux[band] for one in model.galaxies if one.lensed)) for band in (0, 1)]
    )
    assert table["source_magnitude_vis"][1].as_py() == pytest.approx(26.0 - 2.5 * math.log10(SOURCE.flux[0]), abs=0.2)
    assert np.isnan(table["source_magnitude_h"].to_numpy()).all()
    assert table["source_radius"][1].as_py() == pytest.approx(SOURCE.radius * math.sqrt(SOURCE.q), rel=0.3)
    assert table["shear"][1].as_py() == pytest.approx(math.hypot(model.mass.gamma1, model.mass.gamma2))
    assert model.psf == {"VIS": "stars", "Y": "mean", "J": "mean", "H": "mean"}
    assert (table["model_psf"].to_pylist(), math.isnan(table["theta_e"][0].as_py())) == (["", "stars", "stars"], True)
    assert table.schema.field("theta_e").metadata[b"unit"] == b"arcsec"


@pytest.mark.parametrize("flipped", [False, True])
def test_position_angles_are_east_of_north(flipped):
    """A line drawn on the sky at a position angle has it again, on a turned image of either handedness."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [359.9999, 62.0], [50.0, 60.0]
    turn, scale = math.radians(35.0), 0.1 / 3600
    handedness = 1.0 if flipped else -1.0
    wcs.wcs.cd = scale * np.array(
        [[handedness * math.cos(turn), -handedness * math.sin(turn)], [math.sin(turn), math.cos(turn)]]
    )
    wcs.wcs.set()
    here = wcs.pixel_to_world(70.0, 30.0)
    for wanted in (0.5, 40.0, 90.0, 155.0):
        there = here.directional_offset_by(wanted * units.deg, 2.0 * units.arcsec)
        x, y = wcs.world_to_pixel(there)
        assert position_angle_deg(wcs, 70.0, 30.0, math.atan2(y - 30.0, x - 70.0)) == pytest.approx(wanted, abs=0.01)


def turned(x, y, e1, e2):
    """Along and across the major axis of an ellipticity; its axis ratio and its angle."""
    size, angle = math.hypot(e1, e2), 0.5 * math.atan2(e2, e1)
    along, across = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
    return along, across, (1.0 - size) / (1.0 + size), angle


def isothermal(x, y, e1, e2, minor):
    """Deflection by an isothermal ellipsoid about the origin; ``minor``: the semi-minor axis of its critical curve."""
    along, across, q, angle = turned(x, y, e1, e2)
    flat, psi = math.sqrt(1.0 - q * q), np.sqrt(q * q * along**2 + across**2)
    a, b = minor / flat * np.arctan(flat * along / psi), minor / flat * np.arctanh(flat * across / psi)
    return math.cos(angle) * a - math.sin(angle) * b, math.sin(angle) * a + math.cos(angle) * b


def test_pyautolens_sees_the_same_rays_from_what_is_handed_over(modelled):
    """PyAutoLens' formulas: Einstein radius over 1 + q, points (y, x), shear about the origin."""
    model, images = modelled
    about = images.window_x + 0.4, images.window_y - 0.3
    given = pyautolens_arguments(model, *about)
    y, x = np.random.default_rng(0).uniform(-2.0, 2.0, (2, 50))
    centre, (e_y, e_x) = given["mass"]["centre"], given["mass"]["ell_comps"]
    q = (1.0 - math.hypot(e_y, e_x)) / (1.0 + math.hypot(e_y, e_x))
    minor = 2.0 * given["mass"]["einstein_radius"] / (1.0 + q) * q
    alpha_x, alpha_y = isothermal(x - centre[1], y - centre[0], e_x, e_y, minor)
    gamma1, gamma2 = given["shear"]["gamma_1"], given["shear"]["gamma_2"]
    source = given["sources"][0]["centre"]
    behind_x = x - alpha_x - gamma1 * x - gamma2 * y - source[1]
    behind_y = y - alpha_y - gamma2 * x + gamma1 * y - source[0]
    alpha = deflection(x + about[0], y + about[1], lens_of_record(model))
    assert behind_x == pytest.approx(x + about[0] - alpha[0] - model.galaxies[0].x_arcsec, abs=1e-9)
    assert behind_y == pytest.approx(y + about[1] - alpha[1] - model.galaxies[0].y_arcsec, abs=1e-9)


def test_herculens_sees_the_same_rays_and_light_from_what_is_handed_over(problem, modelled):
    """herculens' formulas, on its grid: Einstein radius √(ab), half-light radius along the major axis, b(n) a straight line."""
    model, images = modelled
    given, data = herculens_arguments(model, fits_bytes(model, images)), problem.data
    lens, ours = lens_of_record(model), model.galaxies[0]
    radius = ours.radius_arcsec / math.sqrt(ours.q)
    galaxy = Component(Kind.SERSIC, 0.0, 0.0, ours.flux, radius, ours.index, ours.q, ours.angle_rad)
    for number, (band, pixels) in enumerate({"VIS": slice(None), "Y": slice(1, None, 3)}.items()):
        grid, scale = given["pixel_grid"][band], given["pixel_scale"][band]
        columns, rows = grid["ra_at_xy_0"] + scale * np.arange(grid["nx"]), grid["dec_at_xy_0"] + scale * np.arange(grid["ny"])
        assert columns == pytest.approx(data.x[0, pixels], abs=1e-5)
        assert rows == pytest.approx(data.y[pixels, 0], abs=1e-5)
        x, y = np.meshgrid(columns, rows)
        (mass, shear), (source,) = given["model"][band]["kwargs_lens"], given["model"][band]["kwargs_source"]
        dx, dy, q = x - mass["center_x"], y - mass["center_y"], turned(0.0, 0.0, mass["e1"], mass["e2"])[2]
        alpha_x, alpha_y = isothermal(dx, dy, mass["e1"], mass["e2"], mass["theta_E"] * math.sqrt(q))
        dx, dy = x - shear["ra_0"], y - shear["dec_0"]
        alpha_x += shear["gamma1"] * dx + shear["gamma2"] * dy
        alpha_y += shear["gamma2"] * dx - shear["gamma1"] * dy
        bent = deflection(x, y, lens)
        assert alpha_x == pytest.approx(bent[0], abs=1e-9)
        assert alpha_y == pytest.approx(bent[1], abs=1e-9)
        along, across, q, _ = turned(
            x - alpha_x - source["center_x"], y - alpha_y - source["center_y"], source["e1"], source["e2"]
        )
        n, share = source["n_sersic"], np.hypot(along, across / q) / source["R_sersic"]
        theirs = source["amp"] * np.exp(-(1.9992 * n - 0.3271) * (share ** (1.0 / n) - 1.0))
        offsets = (x - bent[0] - ours.x_arcsec)[None], (y - bent[1] - ours.y_arcsec)[None]
        light = ours.flux[number] * surface_brightness(*offsets, profiles(tabulate([galaxy]), np.asarray), 0.0)[0]
        assert theirs == pytest.approx(light, rel=1e-6)


def test_masses_are_those_of_the_critical_density_within_the_circle():
    """Against lenstronomy's cosmology, by another way: the critical density times the circle."""
    cosmo = pytest.importorskip("lenstronomy.Cosmo.lens_cosmo", reason="the referee lenstronomy is not installed")
    theta_e, z_lens, z_source = np.array([0.6, 1.43, 2.5]), np.array([0.22, 0.5, 0.9]), np.array([0.609, 1.5, 3.0])
    for universe in (Planck18, LambdaCDM(70.0, 0.3, 0.6)):
        expected = [
            cosmo.LensCosmo(near, far, cosmo=universe).mass_in_theta_E(radius)
            for radius, near, far in zip(theta_e, z_lens, z_source, strict=True)
        ]
        found = scanner.einstein_mass(theta_e, z_lens, z_source, universe)
        assert found.to_value(units.solMass) == pytest.approx(expected, rel=1e-3)
    found = scanner.einstein_mass(theta_e, z_lens, z_source)
    assert scanner.einstein_mass(1.43 * units.arcsec, 0.5, 1.5) == found[1]
    # Nothing is known of a source in front of the lens.
    assert np.isnan(scanner.einstein_mass([1.0, 1.0], 0.5, [0.4, np.nan])).all()


def test_lenstronomy_draws_the_same_arcs_from_what_is_handed_over(problem, modelled):
    model_module = pytest.importorskip("lenstronomy.LensModel.lens_model", reason="the referee lenstronomy is not installed")
    from lenstronomy.LightModel.light_model import LightModel

    model, _ = modelled
    given = lenstronomy_arguments(model)
    lens, light = model_module.LensModel(given["lens_model_list"]), LightModel(given["source_light_model_list"])
    data = problem.data
    mean = np.zeros(data.x.shape)
    steps = (np.arange(4) + 0.5) / 4 * 0.1 - 0.05
    for dx in steps:
        for dy in steps:
            rays = lens.ray_shooting(
                (data.x + dx).ravel().astype(float), (data.y + dy).ravel().astype(float), given["kwargs_lens"]
            )
            mean += light.surface_brightness(*rays, given["kwargs_source"]["VIS"]).reshape(mean.shape) * 0.01 / 16
    mass = model.mass
    flat = -math.log(mass.q)
    scene = Scene(
        np.array(
            [
                math.log(mass.theta_e_arcsec), flat * math.cos(2 * mass.angle_rad), flat * math.sin(2 * mass.angle_rad),
                mass.x_arcsec, mass.y_arcsec, mass.gamma1, mass.gamma2,
            ]
        ),
        np.array(
            [
                [one.x_arcsec, one.y_arcsec, math.log(one.radius_arcsec), -math.log(one.q), one.angle_rad, one.index, 0.0]
                for one in model.galaxies if one.lensed
            ]
        ),
        sum(one.lensed for one in model.galaxies),
    )  # fmt: skip
    flux = np.array([one.flux[0] for one in model.galaxies if one.lensed], dtype=np.float32)
    ours = data.seen(np.tensordot(flux, draw(scene, data, slopes=False)[0], 1)[None])[0][0]
    theirs = data.seen(mean[None].astype(np.float32))[0][0]
    assert np.abs(ours - theirs).max() < 1e-2 * theirs.max()
