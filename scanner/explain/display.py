"""Explanations as pictures, and the arrays that they were drawn from on disk."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image

from scanner.atomic_file import partial_name, remove, remove_at_once
from scanner.records import MEMBER_BANDS, VIS_CUTOUT_PIXELS, Float32, Float64, MemberName
from scanner.report.colour import UInt8

#: Red, green, blue of the ends of a map; 0 is white.
LOWEST = np.array([28, 78, 216])
HIGHEST = np.array([214, 32, 39])
WHITE = np.array([255, 255, 255])
#: "red is the H band, green is J band, and blue is Y band" (section 5).
NISP_COLOURS = ("H", "J", "Y")


def placed(map_: NDArray[Any], side: int = VIS_CUTOUT_PIXELS) -> NDArray[Any]:
    """A map (m, m) of a network's input on the pixels of the VIS cutout, (side, side): every pixel takes the cell it lies in.

    Inputs of 66 pixels hold the whole 20.0" of VIS, and the 19.8" of NISP: at the edge the two are 0.1" apart.
    """
    cell = ((np.arange(side) + 0.5) * len(map_) / side).astype(np.int64)
    return np.asarray(map_[np.ix_(cell, cell)])


def scaled(map_: NDArray[Any]) -> Float64:
    """A map with its lowest value at -1 and its highest at 1, 0 where it is 0, each sign scaled by itself (Figs. 11 to 13)."""
    values = np.asarray(map_, dtype=np.float64)
    lowest, highest = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    return np.where(values < 0.0, values / (-lowest or 1.0), values / (highest or 1.0))


def signed_colours(map_: NDArray[Any]) -> UInt8:
    """A map (y, x) as (y, x, 3): blue where covering lowers the output, white where it does nothing, red where it raises it."""
    value = scaled(map_)[..., None]
    ends = np.where(value < 0.0, LOWEST, HIGHEST)
    return np.asarray(np.rint(WHITE + (ends - WHITE) * np.abs(value)), dtype=np.uint8)


def overlaid(grey: UInt8, map_: NDArray[Any]) -> UInt8:
    """A map, placed on a grey image (side, side), the stronger the more opaque, as (side, side, 3)."""
    value = placed(scaled(map_), len(grey))[..., None]
    ends = np.where(value < 0.0, LOWEST, HIGHEST)
    return np.asarray(np.rint(grey[..., None] * (1.0 - np.abs(value)) + ends * np.abs(value)), dtype=np.uint8)


def only(picture: UInt8, shown: NDArray[np.bool_]) -> UInt8:
    """A picture (side, side) or (side, side, 3) where ``shown`` (m, m), placed on it, is true; black elsewhere (Fig. 17)."""
    mask = placed(shown, len(picture))
    return np.where(mask[..., None] if picture.ndim == 3 else mask, picture, 0).astype(np.uint8)


def input_pictures(member: MemberName, image: Float32) -> dict[str, UInt8]:
    """What a member sees, as it sees it: 0 is black, 1 is white.

    Parameters
    ----------
    member
        Whose bands they are.
    image
        (channels, side, side), about 0..1.

    Returns
    -------
    dict
        ``NISP`` (side, side, 3) with red H, green J, blue Y, where the member sees all three; else the band alone, in grey.
        ``VIS`` (side, side) in grey, where it sees VIS.
    """
    byte = np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)
    bands = MEMBER_BANDS[member]
    pictures: dict[str, UInt8] = {}
    if all(band in bands for band in NISP_COLOURS):
        pictures["NISP"] = np.stack([byte[bands.index(band)] for band in NISP_COLOURS], axis=-1)
    return pictures | {band: byte[number] for number, band in enumerate(bands) if band == "VIS" or len(bands) == 1}


def enlarged(image: UInt8, side: int) -> UInt8:
    """A square image, grey or in colours, as (side, side, 3), without smoothing."""
    colours = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1)
    cell = ((np.arange(side) + 0.5) * len(colours) / side).astype(np.int64)
    return np.asarray(colours[np.ix_(cell, cell)])


def png(image: UInt8) -> bytes:
    """An image (y, x) grey or (y, x, 3) as PNG, turned over for screens."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image[::-1])).save(stream, "PNG", optimize=True)
    return stream.getvalue()


@contextmanager
def replaced_group(path: Path) -> Iterator[zarr.Group]:
    """Write a zarr group; when the block ends without an error it takes the place of what is there."""
    partial = partial_name(path)
    try:
        yield zarr.create_group(partial, zarr_format=3)
        if path.exists():
            remove_at_once(path)
        partial.rename(path)
    finally:
        if partial.exists():
            remove(partial)


def put(group: zarr.Group, name: str, values: NDArray[Any]) -> None:
    """Add an array to a group."""
    group.create_array(name, data=np.ascontiguousarray(values))
