"""Imaging surveys as one table: which of their filters stand for VIS, Y, J and H, how their files and columns are called."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, ValidationError

from scanner.errors import InputMissingError, UsageError
from scanner.records import BANDS, Band, Finite, Record

#: Pivot wavelengths of the four inputs in micrometres (Euclid Collaboration: Schirmer et al. 2022; Cropper et al. 2025).
INPUT_WAVELENGTHS_UM: dict[Band, float] = {"VIS": 0.715, "Y": 1.085, "J": 1.375, "H": 1.773}
#: A filter stands for an input if its wavelength is within this factor of the input's: the next input is 1.25 to 1.5 away.
FARTHEST_FACTOR = 1.3
#: Usual names of the columns of a catalogue, in upper case, by what they hold; the first that is there counts.
USUAL_COLUMNS: dict[str, tuple[str, ...]] = {
    "ra": ("RIGHT_ASCENSION", "RA", "ALPHA_J2000", "ALPHAWIN_J2000", "RAJ2000", "RA_J2000", "RA_ICRS", "RA_DEG", "RADEG"),
    "dec": ("DECLINATION", "DEC", "DELTA_J2000", "DELTAWIN_J2000", "DEJ2000", "DEC_J2000", "DE_ICRS", "DEC_DEG", "DECDEG"),
    "id": ("OBJECT_ID", "SOURCE_ID", "TARGET_ID", "ID"),
    "magnitude": ("MAGNITUDE_VIS", "MAG_VIS", "VIS_MAG", "MAG_AUTO", "MAGNITUDE", "MAG"),
    "flux": ("FLUX_DETECTION_TOTAL",),
    "detected": ("VIS_DET",),
    "area": ("SEGMENTATION_AREA", "AREA", "ISOAREA_IMAGE", "NPIX"),
}


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is no regular expression ({error})") from None
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]


class Filter(Record):
    """One filter of a survey.

    ``wavelength_um``: pivot wavelength. ``pixel_scale_arcsec``, ``fwhm_arcsec``: typical side of a pixel and width of the PSF.
    ``depth_mag``: AB magnitude of a point source at 5 sigma. ``zero_point``: AB, of images whose header gives none.
    ``in_names``: regular expression that finds it as a word of a file's name, in capitals; none: the filter's own name.
    """

    wavelength_um: float = Field(gt=0)
    pixel_scale_arcsec: float = Field(gt=0)
    fwhm_arcsec: float = Field(gt=0)
    depth_mag: Finite
    zero_point: Finite | None = None
    in_names: Pattern | None = None


class ImagingSurvey(Record):
    """Everything about a survey's images that is not in their headers.

    ``prefix``: what the names of its candidates begin with. ``filters``: by name; :meth:`filter_of` chooses those that are
    used. ``catalogue_columns``: names of columns by what they hold (``ra``, ``dec``, ``id``, ``magnitude``, ``flux``,
    ``area``), tried before the usual ones. ``flux_unit``: of that flux, where the catalogue names none.
    """

    name: str = Field(min_length=1)
    prefix: str = Field(pattern=r"^[A-Z][A-Za-z0-9-]{0,15}$")
    filters: dict[str, Filter] = Field(min_length=1)
    catalogue_columns: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    flux_unit: str = "uJy"

    def filter_of(self, there: Collection[str] | None = None) -> dict[Band, str]:
        """Which filter stands for each input: the nearest in wavelength, none twice; inputs that none is near to are left out.

        Parameters
        ----------
        there
            Names of the filters that there are images of; None: all.
        """
        pairs = [
            (abs(math.log(one.wavelength_um / INPUT_WAVELENGTHS_UM[band])), BANDS.index(band), name)
            for band in BANDS
            for name, one in self.filters.items()
            if there is None or name in there
        ]
        chosen: dict[Band, str] = {}
        for distance, number, name in sorted(pairs):
            if distance <= math.log(FARTHEST_FACTOR) and BANDS[number] not in chosen and name not in chosen.values():
                chosen[BANDS[number]] = name
        return {band: chosen[band] for band in BANDS if band in chosen}

    def zero_point(self, band: Band) -> float:
        """AB zero point of images without one in the header, of the filter that stands for a band; NaN where unknown."""
        name = self.filter_of().get(band)
        value = self.filters[name].zero_point if name is not None else None
        return math.nan if value is None else value

    def filter_in(self, file_name: str) -> str | None:
        """The filter whose word stands in a file's name, or in the name of an extension; None where there is none."""
        upper = file_name.upper()
        return next((name for name in self.filters if self._word(name).search(upper)), None)

    def without_filter(self, file_name: str) -> str:
        """A file's name without the word of its filter: the same for all images of one place."""
        name = self.filter_in(file_name)
        if name is None:
            return file_name
        match = self._word(name).search(file_name.upper())
        assert match is not None
        return re.sub(r"[-_.]{2,}", "_", f"{file_name[: match.start()]}_{file_name[match.end() :]}").strip("-_.")

    def _word(self, name: str) -> re.Pattern[str]:
        return re.compile(
            rf"(?<![A-Z]){self.filters[name].in_names or rf'(?<![0-9]){re.escape(name.upper())}(?![0-9])'}(?![A-Z])"
        )


def _filters(pixel_scale_arcsec: float, **of: tuple[float, float, float]) -> dict[str, Filter]:
    """Filters of one detector: wavelength, width of the PSF and depth of each."""
    return {
        name: Filter(wavelength_um=wavelength, pixel_scale_arcsec=pixel_scale_arcsec, fwhm_arcsec=fwhm, depth_mag=depth)
        for name, (wavelength, fwhm, depth) in of.items()
    }


def _named(filters: Mapping[str, Filter], words: Mapping[str, str]) -> dict[str, Filter]:
    return {name: one.model_copy(update={"in_names": words.get(name)}) for name, one in filters.items()}


#: The surveys that ship. Depths are those of the wide surveys, 5 sigma, point sources.
SURVEYS: dict[str, ImagingSurvey] = {
    survey.name: survey
    for survey in (
        ImagingSurvey(
            name="euclid",
            prefix="EUCL",
            filters={
                "VIS": Filter(wavelength_um=0.715, pixel_scale_arcsec=0.1, fwhm_arcsec=0.17, depth_mag=26.2),
                **_named(
                    _filters(0.1, Y=(1.085, 0.45, 24.5), J=(1.375, 0.48, 24.5), H=(1.773, 0.5, 24.5)),
                    {band: f"NI(?:R|SP)[-_]{band}" for band in "YJH"},
                ),
            },
        ),
        ImagingSurvey(
            name="roman",
            prefix="RST",
            filters=_filters(
                0.11,
                F062=(0.62, 0.09, 26.5),
                F087=(0.87, 0.1, 26.3),
                F106=(1.06, 0.11, 26.5),
                F129=(1.29, 0.12, 26.4),
                F158=(1.58, 0.13, 26.4),
                F184=(1.84, 0.15, 25.9),
            ),
            catalogue_columns={"id": ("label",), "magnitude": ("kron_abmag",), "area": ("segment_area",)},
        ),
        ImagingSurvey(
            name="lsst",
            prefix="LSST",
            filters={
                name: one.model_copy(update={"zero_point": 31.4})
                for name, one in _filters(
                    0.2,
                    u=(0.37, 0.9, 25.4),
                    g=(0.48, 0.85, 26.8),
                    r=(0.62, 0.8, 26.9),
                    i=(0.754, 0.77, 26.3),
                    z=(0.869, 0.75, 25.6),
                    y=(0.971, 0.75, 24.7),
                ).items()
            },
            catalogue_columns={"ra": ("coord_ra",), "dec": ("coord_dec",), "id": ("objectId",), "flux": ("i_cModelFlux",)},
            flux_unit="nJy",
        ),
        ImagingSurvey(
            name="hst",
            prefix="HST",
            filters=_filters(0.05, F606W=(0.59, 0.08, 27.0), F775W=(0.77, 0.09, 26.6), F814W=(0.80, 0.09, 26.6))
            | _filters(
                0.13,
                F105W=(1.05, 0.15, 26.5),
                F110W=(1.15, 0.16, 26.8),
                F125W=(1.25, 0.17, 26.4),
                F140W=(1.39, 0.18, 26.4),
                F160W=(1.54, 0.19, 26.0),
            ),
        ),
        ImagingSurvey(
            name="jwst",
            prefix="JWST",
            filters=_filters(0.031, F070W=(0.70, 0.03, 27.5), F090W=(0.90, 0.03, 27.6), F115W=(1.15, 0.04, 27.5))
            | _filters(0.031, F150W=(1.50, 0.05, 27.7), F200W=(1.99, 0.07, 27.8))
            | _filters(0.063, F277W=(2.78, 0.09, 28.2), F356W=(3.57, 0.12, 28.2), F444W=(4.40, 0.15, 27.9)),
            catalogue_columns={"id": ("label",), "magnitude": ("isophotal_abmag",), "area": ("isophotal_area",)},
        ),
    )
}
EUCLID = SURVEYS["euclid"]


def find_survey(name_or_file: str) -> ImagingSurvey:
    """A survey of the table by its name, or one that a TOML or JSON file describes.

    Raises
    ------
    InputMissingError
        It is none of them, and no file that can be read.
    UsageError
        The file describes no survey; the message says why.
    """
    if name_or_file.lower() in SURVEYS:
        return SURVEYS[name_or_file.lower()]
    path = Path(name_or_file)
    if path.suffix not in (".toml", ".json"):
        raise UsageError(f"There is no survey {name_or_file!r}; name one of {', '.join(SURVEYS)}, or a TOML or JSON file.")
    try:
        text = path.read_text(encoding="utf-8")
        return ImagingSurvey.model_validate(tomllib.loads(text) if path.suffix == ".toml" else json.loads(text))
    except OSError as error:
        raise InputMissingError(f"{path}: the survey cannot be read ({error.strerror}).") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; docs/other-surveys.md shows one."
        ) from None
    except (tomllib.TOMLDecodeError, ValueError) as error:
        raise UsageError(f"{path}: describes no survey ({error}).") from None


def _given(value: Any) -> Any:
    return find_survey(value) if isinstance(value, str) else value


def _name_or_all(survey: ImagingSurvey) -> Any:
    return survey.name if survey == SURVEYS.get(survey.name) else survey.model_dump(mode="json")


#: A survey as a setting: a name of the table or a file is understood; what is kept is the name, or all of it.
SurveySetting = Annotated[
    ImagingSurvey, BeforeValidator(_given, json_schema_input_type=str | ImagingSurvey), PlainSerializer(_name_or_all)
]
