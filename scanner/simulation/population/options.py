"""What a preset can ask of the populations.

In: numbers of a preset. Out: :class:`Options`, which every class of object is drawn with. Refused: shares outside
0 to 1.
"""

from __future__ import annotations

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


#: Lenses that are worth learning from.
TRAINING = Options(red_source_fraction=0.18, survey=False)
