"""What is asked for when a dataset is drawn, and the record that is left beside it.

In: fields of a command. Out: :class:`DatasetRequest`, :class:`DatasetRecord`. Refused (ValidationError): numbers out of range,
and options that make no sense with a preset.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from scanner.records import CodecName, Record
from scanner.simulation.datasets.labelled_cutouts import GeneratorName
from scanner.simulation.datasets.presets import LENS_CLASSES, PRESETS, Preset, PresetName
from scanner.simulation.population.paper_compound import Parameters

DeviceName = Literal["cpu", "cuda"]
#: Table 1 moves the whole object; nothing else is in its images.
_AS_IN_THE_PAPER = {"parameters": "paper", "centred_fraction": 0.0, "offset_arcsec": 5.0, "bright_star_fraction": 0.0}
_IN_WORDS = ("preset", "n_objects", "seed")
#: Classes of which the paper states parameters (its Table 1).
PAPER_CLASSES = frozenset({"compound_arc", "double_ring"})


class DatasetRequest(Record):
    """What to draw."""

    preset: PresetName
    n_objects: int = Field(ge=1, le=100_000_000)
    seed: int = Field(ge=0, lt=2**63)
    codec: CodecName = Field("compact", description="Codec of the cutout store.")
    red_source_fraction: float | None = Field(None, ge=0, le=1, description="Instead of the preset's.")
    generator: GeneratorName = Field("fast", description="What traces the rays; lenstronomy is the referee, and slow.")
    parameters: Parameters = Field("physical", description="Compound lenses as physics has them, or as the paper's Table 1.")
    device: DeviceName = Field("cpu", description="What computes the pixels: numpy in processes, or torch on a GPU.")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        preset = PRESETS[self.preset]
        if self.red_source_fraction is not None and self.preset == "red-sources":
            raise ValueError("preset red-sources draws red sources only: leave out --red-fraction, or take preset eval")
        if self.parameters == "paper" and not PAPER_CLASSES.issuperset(preset.mix):
            raise ValueError("--parameters paper is for the presets compound-arc and double-ring")
        if self.generator == "lenstronomy" and not set(LENS_CLASSES).issuperset(preset.mix):
            names = ", ".join(name for name, other in PRESETS.items() if set(LENS_CLASSES).issuperset(other.mix))
            raise ValueError(f"--generator lenstronomy cannot draw the non-lenses of preset {self.preset}; it draws {names}")
        if self.generator == "lenstronomy" and self.device != "cpu":
            raise ValueError("--generator lenstronomy runs on --device cpu only")
        return self

    def described(self) -> str:
        """In a few words, to tell one from another."""
        changes = {name: value for name, value in self.model_dump(exclude_defaults=True).items() if name not in _IN_WORDS}
        words = [f"preset {self.preset}", f"{self.n_objects} objects", f"seed {self.seed}"]
        return ", ".join([*words, *(f"{name.replace('_', ' ')} {value}" for name, value in changes.items())])

    @property
    def drawn_as(self) -> Preset:
        """The preset with what was asked for instead."""
        preset = PRESETS[self.preset]
        if self.red_source_fraction is not None:
            options = preset.options.model_copy(update={"red_source_fraction": self.red_source_fraction})
            preset = preset.model_copy(update={"options": options})
        return preset if self.parameters == "physical" else preset.model_copy(update=_AS_IN_THE_PAPER)


class DatasetRecord(Record):
    """``dataset.json``: what was drawn; ``complete`` once everything is in place."""

    format_version: Literal[1] = 1
    scanner_version: str
    request: DatasetRequest
    preset: Preset
    complete: bool = False
    n_lenses: int | None = None
    n_visible: int | None = None
