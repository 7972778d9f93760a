"""What is asked for when a dataset is drawn, and the record that is left beside it.

In: fields of a command. Out: :class:`DatasetRequest`, :class:`DatasetRecord`. Refused: numbers out of range (ValidationError).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from scanner.cutouts.layout import CodecName
from scanner.records import Record
from scanner.simulation.datasets.presets import PRESETS, Preset, PresetName

DeviceName = Literal["cpu", "torch-cpu", "cuda"]


class DatasetRequest(Record):
    """What to draw."""

    preset: PresetName
    n_objects: int = Field(ge=1, le=100_000_000)
    seed: int = Field(ge=0, lt=2**63)
    codec: CodecName = Field("compact", description="Codec of the cutout store.")
    device: DeviceName = Field("cpu", description="What computes the pixels: numpy processes, or torch.")
    red_source_fraction: float | None = Field(None, ge=0, le=1, description="Instead of the preset's.")

    def described(self) -> str:
        """In a few words, to tell one from another."""
        changes = {name: value for name, value in self.model_dump(exclude_defaults=True).items() if name not in _IN_WORDS}
        words = [f"preset {self.preset}", f"{self.n_objects} objects", f"seed {self.seed}"]
        return ", ".join([*words, *(f"{name.replace('_', ' ')} {value}" for name, value in changes.items())])

    @property
    def drawn_as(self) -> Preset:
        """The preset with what was asked for instead."""
        preset = PRESETS[self.preset]
        if self.red_source_fraction is None:
            return preset
        options = preset.options.model_copy(update={"red_source_fraction": self.red_source_fraction})
        return preset.model_copy(update={"options": options})


_IN_WORDS = ("preset", "n_objects", "seed")


class DatasetRecord(Record):
    """``dataset.json``: what was drawn; ``complete`` once everything is in place."""

    format_version: Literal[1] = 1
    scanner_version: str
    request: DatasetRequest
    preset: Preset
    complete: bool = False
    n_lenses: int | None = None
    n_visible: int | None = None
