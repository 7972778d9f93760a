"""What a preset can ask of the populations: :class:`Options`, which every class of object is drawn with."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from scanner.records import Record
from scanner.simulation.population.early_types import SHELL_FRACTION


class Options(Record):
    """How lenses and their look-alikes are drawn."""

    red_source_fraction: float = Field(0.18, ge=0, le=1, description="Share of background sources that are red.")
    shell_fraction: float = Field(
        SHELL_FRACTION, ge=0, le=1, description="Share of massive galaxies, lenses or not, that have shells."
    )
    survey: bool = Field(
        False, description='Lenses as a survey holds them: θ_E from 0.3" and sources to VIS 27 instead of 0.5" and 26.2.'
    )
    wide: bool = Field(
        False,
        description="Deflectors of every kind (nearby, invisible, discs, groups), sources from VIS 19.5, and satellites at the "
        "measured density, for lenses and non-lenses alike.",
    )
    flat_share: float = Field(
        0.0, ge=0, le=1, description='Wide: share of deflectors whose θ_E is flat from 0.3 to 6" with a tail to 10".'
    )
    deflectors: Literal["any", "invisible", "bright"] = Field(
        "any", description="Wide: all kinds, those fainter than VIS 25, or those of VIS 18 to 20."
    )
    ring_share: float = Field(
        0.0, ge=0, le=1, description="Share of lenses whose source is bright and right behind the deflector."
    )


#: Lenses that are worth learning from.
TRAINING = Options(red_source_fraction=0.18, survey=False)
