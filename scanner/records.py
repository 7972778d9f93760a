"""What stages hand to one another, and the constants that they share.

What crosses a process or a file is a pydantic :class:`Record`; arrays travel in frozen dataclasses.

Pixels, everywhere: zero-based, integers at pixel centres (numpy and ``astropy.wcs`` with ``origin=0``). Array axes are
``(y, x)``. Bands are ordered VIS, Y, J, H; NISP arrays Y, J, H.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntFlag
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as validated

from scanner.errors import ContentError, printable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Band = Literal["VIS", "Y", "J", "H"]
BANDS: tuple[Band, ...] = get_args(Band)
NISP_BANDS: tuple[Band, ...] = BANDS[1:]

VIS_CUTOUT_PIXELS = 200
NISP_CUTOUT_PIXELS = 66
#: Shape of one object in each array of cutouts.
IMAGE_SHAPES: dict[str, tuple[int, ...]] = {
    "vis": (VIS_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS),
    "nisp": (len(NISP_BANDS), NISP_CUTOUT_PIXELS, NISP_CUTOUT_PIXELS),
}
VIS_PIXEL_SCALE_ARCSEC = 0.1
NISP_PIXEL_SCALE_ARCSEC = 0.3
#: Typical widths (FWHM) of the point-spread functions; what is simulated has its own (:mod:`scanner.simulation.telescope.psf`).
VIS_PSF_FWHM_ARCSEC = 0.17
NISP_PSF_FWHM_ARCSEC = 0.45
#: AB magnitude of 1 µJy.
MICROJANSKY_ZERO_POINT = 23.9

#: Tile ids name folders and columns: letters, digits and ``._+-``, not starting with a dot.
TILE_ID_PATTERN = r"^[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,127}$"

#: How the fingerprint of a dataset begins that was drawn where it was used: ``drawn:PRESET:SEED:N``.
DRAWN = "drawn:"

MemberName = Literal["OU-J", "OU-Y", "OU-H", "OU-JYH", "OU-VIS", "OU-66", "OU-200"]
MEMBERS: tuple[MemberName, ...] = get_args(MemberName)
#: The seven networks of the paper, which every bundle begins with: input channels in the order of the published code, and side
#: of the input image in pixels (Wilde et al. 2022, section 3.1).
_MEMBER_INPUTS: dict[MemberName, tuple[tuple[Band, ...], int]] = {
    "OU-J": (("J",), NISP_CUTOUT_PIXELS),
    "OU-Y": (("Y",), NISP_CUTOUT_PIXELS),
    "OU-H": (("H",), NISP_CUTOUT_PIXELS),
    "OU-JYH": (("J", "Y", "H"), NISP_CUTOUT_PIXELS),
    "OU-VIS": (("VIS",), VIS_CUTOUT_PIXELS),
    "OU-66": (("J", "Y", "H", "VIS"), NISP_CUTOUT_PIXELS),
    "OU-200": (("J", "Y", "H", "VIS"), VIS_CUTOUT_PIXELS),
}
MEMBER_BANDS: dict[MemberName, tuple[Band, ...]] = {member: bands for member, (bands, _) in _MEMBER_INPUTS.items()}
MEMBER_PIXELS: dict[MemberName, int] = {member: pixels for member, (_, pixels) in _MEMBER_INPUTS.items()}

#: What runs the networks (:mod:`scanner.ensemble.session`): ONNX Runtime's providers, and OpenVINO's with its convolutions in
#: bfloat16.
Provider = Literal["cpu", "openvino", "openvino-bfloat16", "cuda", "tensorrt"]
#: What may be asked for; ``auto``: the best float32 provider that works.
ProviderChoice = Literal["auto", Provider]
#: How the pixels of stored cutouts are encoded (:mod:`scanner.cutouts.store`).
CodecName = Literal["exact", "compact"]
#: Whether a bundle's screen is used; ``auto``: where it loses little (:meth:`scanner.ensemble.bundle.Bundle.screening`).
ScreenChoice = Literal["auto", "bundle", "none"]
#: How an image is resampled. ``spline``: the scan's own, see :func:`scanner.sky.regrid.warp`. The others are reproject's:
#: ``interp`` bilinear, ``adaptive`` by a Gaussian that follows the pixels (DeForest 2004), ``exact`` by the overlap of pixels.
ResamplingMethod = Literal["spline", "interp", "adaptive", "exact"]
RESAMPLING_METHODS: tuple[ResamplingMethod, ...] = get_args(ResamplingMethod)

#: A number in a record that is neither infinite nor NaN.
Finite = Annotated[float, Field(allow_inf_nan=False)]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
UInt32 = NDArray[np.uint32]


class Record(BaseModel):
    """Base of everything that crosses a process or a file: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_bytes(self) -> bytes:
        """The record as its file holds it: JSON, indented, with a line end."""
        return (self.model_dump_json(indent=2) + "\n").encode()

    @classmethod
    def from_bytes(cls, content: bytes, where: str | Path, remedy: str, *, wrong: str = "damaged") -> Self:
        """Read what :meth:`to_bytes` wrote.

        Parameters
        ----------
        content
            Of the file.
        where, wrong, remedy
            For the message: the file, what it is where it is no such record, and what to do.

        Raises
        ------
        ContentError
            It is no such record.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            reason = f"{key}: {first['msg']}" if key else first["msg"]
            raise ContentError(f"{where}: {wrong} ({reason}); {remedy}.") from None


_CHECKSUM = re.compile(rb',\n  "checksum": "([0-9a-f]{64})"\n}\n\Z')
_END = b"\n}\n"


class SealedRecord(Record):
    """A record that others rely on: the last key of its file is a ``checksum`` of the rest, which shows damage and edits."""

    def to_bytes(self) -> bytes:
        """The record as its file holds it: JSON, indented, with its checksum and a line end."""
        return sealed(super().to_bytes())

    @classmethod
    def from_bytes(cls, content: bytes, where: str | Path, remedy: str, *, wrong: str = "damaged") -> Self:
        """Read what :meth:`to_bytes` wrote; see :meth:`Record.from_bytes`.

        Raises
        ------
        ContentError
            It is no such record, or not as it was written.
        """
        try:
            content = unsealed(content)
        except ValueError as error:
            raise ContentError(f"{where}: {wrong} ({error}); {remedy}.") from None
        return super().from_bytes(content, where, remedy, wrong=wrong)


def sealed(content: bytes) -> bytes:
    """A record's JSON with its checksum as the last key: the SHA-256 of the JSON without that line."""
    checksum = hashlib.sha256(content).hexdigest()
    return content.removesuffix(_END) + f',\n  "checksum": "{checksum}"\n}}\n'.encode()


def is_sealed(content: bytes) -> bool:
    """Whether a record's JSON has its own checksum."""
    try:
        unsealed(content)
    except ValueError:
        return False
    return True


def unsealed(content: bytes) -> bytes:
    """What :func:`sealed` was given.

    Raises
    ------
    ValueError
        There is no checksum, or it is another one.
    """
    found = _CHECKSUM.search(content)
    if found is None:
        raise ValueError("it has no checksum: damaged, edited, or of another version of scanner")
    rest = content[: found.start()] + _END
    if hashlib.sha256(rest).hexdigest() != found[1].decode():
        raise ValueError("its checksum differs")
    return rest


# Not a Record: long tile lists hold a million of these, and without slots they take twice the memory.
@validated(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class ImageRef:
    """One image of a FITS file: ``path`` is a local path or a URL, ``extension`` an EXTNAME or number.

    ``extension=None`` means the first HDU that holds a two-dimensional image. ``origin``: the URL that a local copy was fetched
    from, by which messages name it.
    """

    path: str
    extension: str | int | None = None
    origin: str | None = None

    @property
    def name(self) -> str:
        """The file as the user knows it."""
        return self.origin or self.path

    def __str__(self) -> str:
        return self.name if self.extension is None else f"{self.name}[{self.extension}]"


class BandFiles(Record):
    """The mosaic of one band and its companions, where they exist; ``psf``: of use where something is painted into it."""

    image: ImageRef
    rms: ImageRef | None = None
    flag: ImageRef | None = None
    psf: ImageRef | None = None


class Tile(Record):
    """One line of the tile list: mosaics that overlap on the sky, VIS among them, and a catalogue where there is one."""

    tile_id: str = Field(pattern=TILE_ID_PATTERN)
    bands: dict[Band, BandFiles]
    catalogue: ImageRef | None = None

    @property
    def files(self) -> dict[str, ImageRef]:
        """The files that a scan reads, by role: ``VIS.image``, ``VIS.rms`` … ``catalogue``."""
        files = {
            f"{band}.{role}": reference
            for band, images in self.bands.items()
            for role, reference in (("image", images.image), ("rms", images.rms), ("flag", images.flag))
            if reference is not None
        }
        return files if self.catalogue is None else files | {"catalogue": self.catalogue}


@dataclass(frozen=True)
class Targets:
    """Objects of one tile that are to be scored, in any order.

    ``target_id`` (N,) int64: the catalogue's OBJECT_ID, else the HEALPix order-29 index of the position; unique in a tile.
    ``ra, dec`` (N,) float64, degrees ICRS. ``x, y`` (N,) float64: pixel position in the VIS mosaic.
    ``magnitude`` (N,) float32: VIS AB magnitude, NaN where unknown.
    """

    target_id: Int64
    ra: Float64
    dec: Float64
    x: Float64
    y: Float64
    magnitude: Float32

    def __len__(self) -> int:
        return len(self.target_id)

    def take(self, index: NDArray[Any]) -> Targets:
        """Select by an integer or boolean index array."""
        return Targets(**{name: values[index] for name, values in vars(self).items()})


class Flag(IntFlag):
    """What a reader of a row should know; the ``flags`` column is the sum of these bits."""

    OUTSIDE_MOSAIC = 1  #: part of the cutout lies outside a mosaic
    MASKED_PIXELS = 2  #: more than 1% of a band is masked or not finite
    TOO_MANY_BAD_PIXELS = 4  #: bad fraction above the run's limit: not scored
    SATURATED = 8  #: a bright source dominates the scaling of the cutout
    EMPTY_CELL = 16  #: the grid cell held no training object: mean of its eight neighbours, or of the nearest defined cell
    UNDEFINED_NEIGHBOURS = 32  #: the eight neighbours were undefined too: value of the nearest defined cell
    OUTSIDE_EMBEDDING = 64  #: beyond the box of the training embedding: clipped to it
    FAR_FROM_TRAINING = (
        128  #: logits, within the training range, further from any training object than 99.9% of held-out objects
    )
    BANDS_MISSING = 256  #: a NISP band is missing or mostly bad: scored by the members that do without it, not by the grid
    SCREENED = 512  #: far from a lens by the members of the screen: the others and the grid were not asked
    PADDED = 1024  #: the mosaic is smaller than a cutout: noise around it, sky and sigma from its darkest edge
    NOT_RESCORED = 2048  #: its cutout was not kept: scores of the bundle that scanned it, beside those of another


@dataclass(frozen=True)
class CutoutBatch:
    """Cutouts of ``N`` targets of one tile.

    ``targets``: the N targets, in row order. ``vis`` (N, 200, 200) and ``nisp`` (N, 3, 66, 66) float32 in the mosaic's own
    units per pixel of 0.1" and 0.3"; outside and masked pixels are NaN.
    ``x0, y0`` (N,) int64: VIS pixel of the cutout's first column and row; the cutout's centre is ``x0 + 99.5``, and both
    VIS and NISP cutouts share that centre on the sky. ``offset`` (N, 2) float32: target minus centre, (x, y), VIS pixels.
    ``bad_fraction`` (N, 4) float32 per band VIS, Y, J, H. ``sky`` and ``sigma`` (N, 4) float32: median and 1.4826 x MAD of
    the good pixels of each band (never zero). ``flags`` (N,) uint32 of :class:`Flag`. Where these say PADDED, ``bad_fraction``
    is of the pixels that lie in the mosaic, and ``sky`` and ``sigma`` are those of its darkest edge.
    """

    targets: Targets
    vis: Float32
    nisp: Float32
    x0: Int64
    y0: Int64
    offset: Float32
    bad_fraction: Float32
    sky: Float32
    sigma: Float32
    flags: UInt32

    def __len__(self) -> int:
        return len(self.x0)

    def take(self, index: NDArray[Any]) -> CutoutBatch:
        """Select by an integer or boolean index array."""
        arrays = {name: values[index] for name, values in vars(self).items() if name != "targets"}
        return CutoutBatch(targets=self.targets.take(index), **arrays)

    @classmethod
    def joined(cls, batches: Sequence[CutoutBatch]) -> CutoutBatch:
        """One batch after the other as one."""
        targets = Targets(
            **{
                field.name: np.concatenate([getattr(batch.targets, field.name) for batch in batches])
                for field in fields(Targets)
            }
        )
        names = [field.name for field in fields(cls) if field.name != "targets"]
        return cls(targets=targets, **{name: np.concatenate([getattr(batch, name) for batch in batches]) for name in names})


@dataclass(frozen=True)
class Scores:
    """Scores of ``N`` cutouts; NaN (and ``decision`` False) where an object was not scored.

    ``logits`` (N, M) float32: lens log-odds of the bundle's M members, the paper's seven (:data:`MEMBERS`) first; the
    probability is its sigmoid.
    ``tsne`` (N, 2) float32: position in the embedding. ``grid_value`` (N,) float32: lens fraction of the grid cell.
    ``cell_count`` (N,) int64: training objects in the cell. ``calibrated`` (N,) float32: calibrated lens probability.
    ``decision`` (N,) bool: grid value at or above the F-beta threshold. ``flags`` (N,) uint32 of :class:`Flag`.
    """

    logits: Float32
    tsne: Float32
    grid_value: Float32
    cell_count: Int64
    calibrated: Float32
    decision: NDArray[np.bool_]
    flags: UInt32

    @property
    def probabilities(self) -> Float32:
        """Lens probability of each member, (N, M) float32."""
        # Beyond ±700 the exponential overflows and the probability is 0 or 1 all the same.
        return np.asarray(1.0 / (1.0 + np.exp(np.minimum(-self.logits.astype(np.float64), 700.0))), dtype=np.float32)


class Rescored(Record):
    """Where the scores of another bundle than the scan's lie: ``place`` of their folder in the run folder, and their checksum.

    ``n_kept``: rows that keep the scan's scores, as their cutouts were not stored (:attr:`Flag.NOT_RESCORED`).
    """

    place: str
    sha256: str
    n_kept: int


class CommitRecord(SealedRecord):
    """``commit.json``: written last; a tile folder without it does not exist as far as the run is concerned.

    ``input_fingerprint``: of all input files, ``input_files``: of each, by role (``VIS.image``). ``target_source``:
    catalogue, detection or grid; of ``n_seen`` objects ``n_outside`` lay outside the mosaic, ``n_rejected`` were cut by
    magnitude or area; ``notes`` tell which of these cuts could not be made. ``n_scored`` of the ``n_targets`` rows have
    scores, ``n_screened`` of them by the members of the screen alone, ``n_flagged`` carry a flag other than that, ``n_decided``
    reach the threshold. ``s_region``: outline of the VIS mosaic on the sky,
    in the VO's words (``POLYGON ICRS ra dec …``); empty where an older scanner wrote none. ``place``: where the tile's other
    files lie, below the record's own folder. ``machine``: fingerprint of what computed; machines of one fingerprint give the
    same bits. ``seconds``, ``core_seconds``: on the clock and of processors, by stage; ``gpu_seconds``: during which a GPU
    was held. ``rescored``: the scores that count, where stored cutouts were scored again; ``sha256`` lists the scan's.
    """

    format_version: Literal[1] = 1
    tile_id: str
    input_fingerprint: str
    input_files: dict[str, str]
    config_fingerprint: str
    bundle_fingerprint: str
    target_source: str
    n_seen: int
    n_outside: int
    n_rejected: int
    notes: tuple[str, ...]
    n_targets: int
    n_scored: int
    n_screened: int = 0
    n_flagged: int
    n_decided: int
    sky_area_deg2: float
    s_region: str = ""
    sha256: dict[str, str]
    place: str = ""
    machine: str = ""
    bytes_read: int = 0
    seconds: dict[str, float]
    core_seconds: dict[str, float] = Field(default_factory=dict)
    gpu_seconds: float = 0.0
    rescored: Rescored | None = None


class FailedTile(Record):
    """One row of ``failed-tiles.ecsv``."""

    tile_id: str
    reason: Annotated[str, AfterValidator(printable)]


def save_arrays(path: Path, record: DataclassInstance) -> None:
    """Write all arrays of a dataclass."""
    with path.open("wb") as file:
        np.savez(file, **{name: getattr(record, name) for name in _arrays_of(type(record))})


def load_arrays(path: Path, kind: type[DataclassInstance], what: str) -> dict[str, NDArray[Any]]:
    """Read the arrays of the dataclass ``kind``, called ``what`` in the message.

    Raises
    ------
    ContentError
        The file is missing, is no ``npz``, or lacks a field, or one is of another type or not as long as its header says.
    """
    try:
        # numpy leaves a file that it opened itself open when it cannot read it.
        with path.open("rb") as file, ZipFile(file) as archive:
            return {name: _array(archive, name, annotation) for name, annotation in _arrays_of(kind).items()}
    except (OSError, EOFError, KeyError, ValueError, RuntimeError, NotImplementedError, BadZipFile) as error:
        raise ContentError(f"{path}: not {what} ({error}); export the bundle again.") from None


#: The annotations of fields of arrays, and the types that they promise.
_DTYPES = {"Float32": np.float32, "Float64": np.float64, "Int64": np.int64}


def _arrays_of(kind: type[DataclassInstance]) -> dict[str, str]:
    """Annotation of each field that is an array, by name."""
    return {field.name: str(field.type) for field in fields(kind) if str(field.type) in _DTYPES}


def _array(archive: ZipFile, name: str, annotation: str) -> NDArray[Any]:
    """One array of an ``npz``, whose header is compared with its size before any memory is asked for."""
    entry = archive.getinfo(f"{name}.npy")
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"array {name!r} is of another version of numpy's format")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype != np.dtype(_DTYPES[annotation]):
            raise ValueError(f"array {name!r} holds {dtype}, not {np.dtype(_DTYPES[annotation])}")
        if entry.compress_type != ZIP_STORED or file.tell() + math.prod(shape) * dtype.itemsize != entry.file_size:
            raise ValueError(f"array {name!r} is not as long as it says")
    with archive.open(entry) as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
