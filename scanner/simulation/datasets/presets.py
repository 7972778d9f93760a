"""Presets of datasets, and the scene that a preset draws for an object."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.random import Generator
from pydantic import Field, model_validator

from scanner.records import VIS_PIXEL_SCALE_ARCSEC, Record
from scanner.simulation import Parameters, PresetName
from scanner.simulation.light.components import Component, Kind
from scanner.simulation.population import classes
from scanner.simulation.population.galaxies import Options, System, moved
from scanner.simulation.population.lenses import draw_paper_object
from scanner.simulation.population.neighbours import draw_field, draw_star
from scanner.simulation.telescope.exposure import CANVAS_PIXELS, Exposure, draw_exposure, paper_exposure

ClassName = Literal[
    "lens",
    "quasar_lens",
    "compound_arc",
    "double_ring",
    "near_lens",
    "beside_lens",
    "elliptical",
    "companion",
    "tangential",
    "spiral",
    "merger",
    "edge_on",
    "ring",
    "group",
    "cluster",
    "star",
    "artefact",
    "empty",
]
LENS_CLASSES: tuple[ClassName, ...] = ("lens", "quasar_lens", "compound_arc", "double_ring")


class Preset(Record):
    """How the objects of a dataset are drawn."""

    name: PresetName
    purpose: Literal["training", "evaluation"] = Field(description="Evaluation sets are never trained on.")
    summary: str = Field(description="What it is for, in a few words.")
    n_objects: int = Field(ge=1, description="Objects drawn unless another number is asked for.")
    mix: dict[ClassName, float] = Field(description="Share of each class; the shares add up to one.")
    options: Options = Field(default_factory=Options, description="What is asked of the populations.")
    centred_fraction: float = Field(0.85, ge=0, le=1, description="Share of objects within jitter_arcsec of the centre.")
    jitter_arcsec: float = Field(0.2, ge=0, description="Largest offset of centred objects along x and y.")
    offset_arcsec: float = Field(1.0, ge=0, description="Largest offset of the others along x and y.")
    native_fraction: float = Field(0.5, ge=0, le=1, description='Share of cutouts with white, native 0.3" NISP noise.')
    bright_star_fraction: float = Field(0.08, ge=0, le=1, description="Share of cutouts with a bright star beside the object.")
    variety: float = Field(0.0, ge=0, le=1, description="Share of cutouts from other telescopes and reductions than Euclid's.")
    dropout: float = Field(0.0, ge=0, le=1, description="Share of cutouts that lack whole bands.")
    parameters: Parameters = Field(
        "physical", description="Compound lenses as physics has them, or as the paper's Table 1, alone in an empty field."
    )

    @model_validator(mode="after")
    def _mix_is_a_distribution(self) -> Self:
        if any(share <= 0.0 for share in self.mix.values()) or abs(sum(self.mix.values()) - 1.0) > 1e-9:
            raise ValueError(f"{self.name}: the shares of the classes must be positive and add up to one")
        return self

    @property
    def lens_share(self) -> float:
        """Share of objects drawn as lenses; not all of them fulfil the definition of one."""
        return sum(self.mix.get(name, 0.0) for name in LENS_CLASSES)


#: Non-lenses, half of which look like lenses. Shares of one.
_LOOK_ALIKES: dict[ClassName, float] = {
    "elliptical": 0.15,
    "companion": 0.13,
    "tangential": 0.13,
    "near_lens": 0.09,
    "spiral": 0.15,
    "merger": 0.07,
    "edge_on": 0.06,
    "ring": 0.06,
    "group": 0.05,
    "cluster": 0.03,
    "star": 0.03,
    "artefact": 0.03,
    "empty": 0.02,
}
#: Non-lenses to learn from: what fools a network most is drawn most often. Shares of one.
_TO_LEARN_FROM = _LOOK_ALIKES | {
    "elliptical": 0.16,
    "companion": 0.12,
    "tangential": 0.17,
    "spiral": 0.13,
    "merger": 0.06,
    "edge_on": 0.05,
    "ring": 0.08,
    "star": 0.02,
    "artefact": 0.02,
}
#: Non-lenses as a survey shows them, by eye and not by counts. Shares of one.
_SURVEY: dict[ClassName, float] = {
    "elliptical": 0.28,
    "companion": 0.10,
    "tangential": 0.03,
    "near_lens": 0.04,
    "spiral": 0.24,
    "merger": 0.05,
    "edge_on": 0.09,
    "ring": 0.02,
    "group": 0.05,
    "cluster": 0.02,
    "star": 0.04,
    "artefact": 0.02,
    "empty": 0.02,
}


#: Non-lenses of the wide sky to learn from. Satellites are everywhere at their measured density, so that fewer companions are
#: put there on purpose: what matters at the head of a list is their share of the sky.
_WIDE_TO_LEARN_FROM: dict[ClassName, float] = {
    "elliptical": 0.19,
    "companion": 0.09,
    "tangential": 0.08,
    "near_lens": 0.10,
    "beside_lens": 0.08,
    "spiral": 0.14,
    "merger": 0.06,
    "edge_on": 0.06,
    "ring": 0.08,
    "group": 0.04,
    "cluster": 0.03,
    "star": 0.02,
    "artefact": 0.02,
    "empty": 0.01,
}
#: Non-lenses of a survey in which companions are satellites and the field alone, at the measured density; a few are streams
#: and warps that follow a circle. Shares of one.
_MEASURED: dict[ClassName, float] = {
    "elliptical": 0.36,
    "tangential": 0.004,
    "near_lens": 0.03,
    "beside_lens": 0.006,
    "spiral": 0.29,
    "merger": 0.05,
    "edge_on": 0.10,
    "ring": 0.02,
    "group": 0.04,
    "cluster": 0.02,
    "star": 0.04,
    "artefact": 0.02,
    "empty": 0.02,
}


def _mixed(lenses: dict[ClassName, float], others: dict[ClassName, float]) -> dict[ClassName, float]:
    """Lenses with the shares given; what is left goes to the others."""
    rest = 1.0 - sum(lenses.values())
    return lenses | {name: rest * share for name, share in others.items()}


#: With fewer red sources, networks that see colours learn that arcs are blue; with fewer shells, that these are arcs; with
#: fewer bright stars, they are blinded by them.
_TRAIN = Preset(
    name="train",
    purpose="training",
    summary="lenses of all kinds and everything that looks like one, half and half",
    n_objects=45_000,
    mix=_mixed({"lens": 0.44, "compound_arc": 0.02, "double_ring": 0.02, "quasar_lens": 0.02}, _TO_LEARN_FROM),
    options=Options(red_source_fraction=0.35, shell_fraction=0.12),
    bright_star_fraction=0.2,
)

#: Half of the deflectors have θ_E as a survey's lenses do, half of them flat: small ones are most, wide ones count.
_WIDE = Options(wide=True, flat_share=0.5, red_source_fraction=0.35, shell_fraction=0.12, ring_share=0.06)
_FLAT = Options(wide=True, flat_share=1.0)

PRESETS: dict[PresetName, Preset] = {
    preset.name: preset
    for preset in (
        _TRAIN,
        Preset(
            name="train-wide",
            purpose="training",
            summary="as train, on a sky as wide as the real one, with other telescopes and missing bands",
            n_objects=90_000,
            mix=_mixed({"lens": 0.44, "compound_arc": 0.02, "double_ring": 0.02, "quasar_lens": 0.02}, _WIDE_TO_LEARN_FROM),
            options=_WIDE,
            bright_star_fraction=0.25,
            variety=0.4,
            dropout=0.12,
        ),
        _TRAIN.model_copy(update={"name": "quick", "summary": "as train, a few", "n_objects": 2_000}),
        Preset(
            name="eval",
            purpose="evaluation",
            summary="single lenses and non-lenses at the paper's 71:29",
            n_objects=20_000,
            mix=_mixed({"lens": 0.71}, _LOOK_ALIKES),
        ),
        Preset(
            name="survey",
            purpose="evaluation",
            summary="single lenses as faint and small as a survey's, among what a survey shows",
            n_objects=20_000,
            mix=_mixed({"lens": 0.5}, _SURVEY),
            options=Options(survey=True),
        ),
        Preset(
            name="hard-negatives",
            purpose="evaluation",
            summary="no lens: ellipticals, companions, arc-like companions, sources outside the caustics",
            n_objects=20_000,
            mix={"elliptical": 0.25, "companion": 0.25, "tangential": 0.25, "near_lens": 0.25},
        ),
        Preset(
            name="compound-arc",
            purpose="evaluation",
            summary="arcs of two galaxies in one line of sight, lenses only",
            n_objects=2_000,
            mix={"compound_arc": 1.0},
        ),
        Preset(
            name="double-ring",
            purpose="evaluation",
            summary="two sources behind one galaxy, lenses only",
            n_objects=2_000,
            mix={"double_ring": 1.0},
        ),
        Preset(
            name="red-sources",
            purpose="evaluation",
            summary="single lenses with red sources, lenses only",
            n_objects=4_000,
            mix={"lens": 1.0},
            options=Options(red_source_fraction=1.0),
        ),
        Preset(
            name="quasars",
            purpose="evaluation",
            summary="lensed quasars, lenses only",
            n_objects=2_000,
            mix={"quasar_lens": 1.0},
        ),
        Preset(
            name="challenge",
            purpose="evaluation",
            summary="no lens: a survey whose galaxies have as many companions as measured, for a false-positive rate of 1e-4",
            n_objects=100_000,
            mix=_MEASURED,
            options=Options(wide=True, flat_share=0.02),
        ),
        Preset(
            name="wide-lenses",
            purpose="evaluation",
            summary='lenses with θ_E flat from 0.3 to 6" and a tail to 10", deflectors of every kind',
            n_objects=6_000,
            mix={"lens": 1.0},
            options=_FLAT,
        ),
        Preset(
            name="invisible-deflectors",
            purpose="evaluation",
            summary="lenses whose deflector is fainter than VIS 25",
            n_objects=2_000,
            mix={"lens": 1.0},
            options=_FLAT.model_copy(update={"deflectors": "invisible"}),
        ),
        Preset(
            name="bright-deflectors",
            purpose="evaluation",
            summary="lenses whose deflector has VIS 18 to 20, θ_E as a survey's",
            n_objects=2_000,
            mix={"lens": 1.0},
            options=_FLAT.model_copy(update={"deflectors": "bright", "flat_share": 0.0}),
        ),
        Preset(
            name="whole-rings",
            purpose="evaluation",
            summary="lenses whose bright source stands right behind the deflector",
            n_objects=1_000,
            mix={"lens": 1.0},
            options=_FLAT.model_copy(update={"flat_share": 0.5, "ring_share": 1.0}),
        ),
        Preset(
            name="other-telescopes",
            purpose="evaluation",
            summary="lenses and non-lenses as other telescopes and reductions show them, a third without some band",
            n_objects=10_000,
            mix=_mixed({"lens": 0.5}, _MEASURED),
            options=_WIDE,
            variety=1.0,
            dropout=0.33,
        ),
    )
}


class EvaluationSet(Record):
    """One evaluation set: fixed by preset, seed and size, drawn by ``scanner simulate sets``."""

    name: PresetName
    seed: int = Field(ge=0, lt=2**63)
    n_objects: int = Field(ge=1)

    @property
    def preset(self) -> Preset:
        """How its objects are drawn; of the same name."""
        return PRESETS[self.name]


#: The sets that every bundle is measured on. A change of any of them, or of the populations, is a new standard.
EVALUATION_SETS: tuple[EvaluationSet, ...] = tuple(
    EvaluationSet(name=preset.name, seed=1, n_objects=preset.n_objects)
    for preset in PRESETS.values()
    if preset.purpose == "evaluation"
)


#: Distances from the object, arcsec, and VIS magnitudes of the bright star that some cutouts have beside it.
STAR_DISTANCES, STAR_MAGNITUDES = (2.5, 10.0), (14.5, 19.5)


@dataclass(frozen=True)
class CutoutScene:
    """What one cutout shows; positions in arcsec from its centre.

    ``rng`` goes on to give the noise. ``x, y``: the object's place. ``components``: the object's ``n_object`` unlensed
    pieces of light, then the field and, where there is one, a bright star. ``systems``: lensed light, nearest source first.
    ``off_centre``: the systems are those of another galaxy.
    """

    rng: Generator
    class_name: str
    components: list[Component]
    n_object: int
    systems: tuple[System, ...]
    x: float
    y: float
    exposure: Exposure
    off_centre: bool = False

    @property
    def points(self) -> list[Component]:
        """Stars, and the images of lensed quasars."""
        stars = [component for component in self.components if component.kind is Kind.POINT]
        return stars + [image for system in self.systems for image in system.point_images]


def object_generator(preset: str, seed: int, index: int) -> Generator:
    """The random numbers of one object."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([zlib.crc32(preset.encode()), seed, index])))


def draw_offset(rng: Generator, preset: Preset) -> tuple[float, float]:
    """Where the object lies from the cutout's centre, arcsec."""
    largest = preset.jitter_arcsec if rng.random() < preset.centred_fraction else preset.offset_arcsec
    x, y = rng.uniform(-largest, largest, 2)
    return float(x), float(y)


def draw_scene(preset: Preset, rng: Generator) -> CutoutScene:
    """Draw what a cutout shows and how it is observed, but no pixel. Only the class artefact has a say in the exposure."""
    class_name = classes.draw_class(rng, {str(name): share for name, share in preset.mix.items()})
    of_paper = preset.parameters == "paper"
    middle = draw_paper_object(rng, class_name, "paper") if of_paper else classes.draw_object(rng, class_name, preset.options)
    x, y = draw_offset(rng, preset)
    components = moved(middle.components, x, y)
    if not of_paper:
        components += draw_field(rng, 0.5 * CANVAS_PIXELS * VIS_PIXEL_SCALE_ARCSEC)
    if rng.random() < preset.bright_star_fraction:
        distance, turn = rng.uniform(*STAR_DISTANCES), rng.uniform(0.0, 2.0 * math.pi)
        place = x + distance * math.cos(turn), y + distance * math.sin(turn)
        components.append(draw_star(rng, *place, rng.uniform(*STAR_MAGNITUDES)))
    return CutoutScene(
        rng=rng,
        class_name=class_name,
        components=components,
        n_object=len(middle.components),
        systems=tuple(system.moved(x, y) for system in middle.systems),
        x=x,
        y=y,
        exposure=paper_exposure()
        if of_paper
        else draw_exposure(
            rng,
            preset.native_fraction,
            artefact_on_object=class_name == "artefact",
            at=(x, y),
            variety=preset.variety,
            dropout=preset.dropout,
        ),
        off_centre=middle.off_centre,
    )
