"""Settings of a run as one tree: a TOML file, ``SCANNER_…`` environment variables, flags; flags win."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args

from pydantic import Field, ValidationError, model_validator

from scanner.errors import InputMissingError, UsageError
from scanner.imaging_surveys import EUCLID, SurveySetting
from scanner.records import CodecName, ProviderChoice, Record, ScreenChoice

ENVIRONMENT_PREFIX = "SCANNER_"
#: Of the variables that :mod:`scanner.service.settings` reads; none of a run's.
SERVICE_PREFIX = "SCANNER_SERVE_"

#: Default β of the F-beta that chooses a threshold (Wilde et al. 2022, section 4): it weights precision.
PAPER_BETA = 0.03
#: What objects can be ranked by.
RankedBy = Literal["probability", "grid"]
#: Rows of two tiles closer than this are one object, by default; with the same ``target_id``, closer than the second:
#: so close do two catalogues place one object even where their deblending differs.
DUPLICATE_RADIUS_ARCSEC = 0.5
SAME_ID_RADIUS_ARCSEC = 3.0
#: A lens this far away still fills a cutout of 20″ enough to be taken for its centre.
SYSTEM_RADIUS_ARCSEC = 8.0

Config = TypeVar("Config", bound=Record)


class TargetsConfig(Record):
    """Which objects are scored: the choice that decides cost and completeness, so every run records it."""

    survey: SurveySetting = Field(
        EUCLID,
        description="Whose images: euclid, roman, lsst, hst, jwst, or a TOML or JSON file that describes one.",
    )
    source: Literal["auto", "catalogue", "detection", "grid"] = Field(
        "auto", description="'auto': the tile's catalogue where there is one, else detection on VIS."
    )
    magnitude_limit: float | None = Field(23.0, description="Faintest VIS AB magnitude scored; none: no limit.")
    min_area_pixels: int = Field(40, ge=0, description="Smallest detection area in VIS pixels (rejects stars and noise).")
    detection_sigma: float = Field(1.5, gt=0, description="Detection threshold per pixel in units of the sky σ.")
    grid_step_arcsec: float = Field(10.0, gt=0, description="Spacing of the positions of source = 'grid'.")


class CutoutsConfig(Record):
    """How pixels are cut and what is kept of them."""

    batch_size: int | None = Field(
        None, ge=1, description="Objects cut and scored together, which bounds the memory; none: 64, on a GPU 1,024."
    )
    max_bad_fraction: float = Field(
        0.25, ge=0, le=1, description="A band with more bad pixels than this is left out; without VIS nothing is scored."
    )
    require_all_bands: bool = Field(
        False, description="Do not score objects that lack a NISP band; otherwise those members do that need none of it."
    )
    flag_mask: int = Field(1, ge=0, lt=2**63, description="Bits of the FLAG companion that make a pixel bad.")
    keep: str = Field(
        "candidates", pattern=r"^(all|candidates|none|sample:(0?\.\d+|1(\.0*)?))$", description="Cutouts kept in zarr."
    )
    codec: CodecName = Field("compact", description="'exact': float32. 'compact': asinh in 16 bits, in noise units.")


class ScoringConfig(Record):
    """With what, and on what, the ensemble is run."""

    bundle: str | None = Field(None, description="Bundle folder; none: the bundle that ships with scanner.")
    provider: ProviderChoice = Field(
        "auto",
        description="What runs the networks; 'auto': CUDA, OpenVINO or the processor, the first that works. "
        "'openvino-bfloat16': a fraction of the cost on processors with AMX, and log-odds that differ by tenths.",
    )
    threads: int = Field(1, ge=1, description="Threads of one worker's inference session.")
    beta: float | None = Field(
        None, gt=0, description=f"F-beta whose threshold decides; none: the bundle's default ({PAPER_BETA})."
    )
    screen: ScreenChoice = Field(
        "auto",
        description="'bundle': all members score only what passes the bundle's screen; 'none': they score everything; 'auto': "
        "the bundle's screen if it was measured to lose at most 0.5% of the lenses found at a false-positive rate of 1e-3.",
    )
    threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Score from which an object is a candidate, instead of F-beta's; the paper's Table 5: 0.5.",
    )

    @model_validator(mode="after")
    def _decide_one_way(self) -> Self:
        if self.beta is not None and self.threshold is not None:
            raise ValueError("beta and threshold both decide who is a candidate; give one of them")
        return self


class CatalogueConfig(Record):
    """How the tiles' tables become one."""

    duplicate_radius_arcsec: float = Field(
        DUPLICATE_RADIUS_ARCSEC, gt=0, description="Rows of two tiles closer than this are one object."
    )
    system_radius_arcsec: float = Field(
        SYSTEM_RADIUS_ARCSEC, gt=0, le=60, description="Objects closer than this to a better one belong to its system."
    )
    known_lenses: str | None = Field(
        None, description="Table that known lenses are looked up in: 'lenscat', a file or URL; none: none."
    )
    rank: RankedBy = Field(
        "probability", description="What ranks objects: the calibrated probability, or the paper's grid value."
    )
    known_radius_arcsec: float = Field(5.0, gt=0, description="A known lens closer than this to an object is the object.")
    max_candidates: int = Field(10_000, ge=1, description="Most rows of the tables of the best objects.")
    sheet_candidates: int = Field(200, ge=1, le=2000, description="Objects drawn on the contact sheet.")


class StorageConfig(Record):
    """How object stores (``s3://…``) are reached. Credentials come from the environment or the machine, never from here."""

    endpoint: str | None = Field(None, description="URL of an S3-compatible server; none: AWS, or AWS_ENDPOINT_URL.")
    region: str | None = Field(None, description="Region of the buckets; none: AWS_REGION, or us-east-1.")
    anonymous: bool = Field(False, description="Do not sign requests: public buckets.")
    retries: int = Field(5, ge=0, description="Times that a request is given again to a server that is busy or unreachable.")
    timeout_s: float = Field(60.0, gt=0, description="Longest time that all tries of one request may take, in seconds.")


class EngineConfig(Record):
    """How the work is spread. Never changes a result, so it is not part of the fingerprint."""

    workers: int | None = Field(
        None, ge=1, description="Worker processes; none: one a core. Of workers from elsewhere: the most that are wanted."
    )
    scheduler: str | None = Field(None, description="Address of a standing Dask scheduler; none: this machine.")
    listen: str | None = Field(
        None, description="Address where the run itself waits for workers, e.g. tcp://0.0.0.0:8786; none: nowhere."
    )
    scale_deployment: str | None = Field(
        None, description="Kubernetes Deployment ([namespace/]name) of the workers: scaled up for the run, to 0 at its end."
    )
    placement: Literal["whole", "split"] = Field(
        "whole", description="'whole': a worker cuts and scores a tile. 'split': any cuts, one with GPU=1 scores."
    )
    parallel_scores: int | None = Field(
        None, ge=1, description="Objects that one worker process scores at a time; none: the cores, divided by the workers."
    )
    attempts: int = Field(3, ge=1, description="Times that a tile is tried when its worker dies or a store does not answer.")
    backoff_s: float = Field(5.0, ge=0, description="Pause before a tile's second attempt in seconds; doubled each time.")
    memory_limit_gb: float = Field(3.0, gt=0, description="Memory of one worker process.")
    scratch: str | None = Field(None, description="Folder for fetched, decompressed and resampled mosaics; none: the system's.")
    tls_ca: str | None = Field(None, description="Certificate (PEM) that signed those of scheduler and workers.")
    tls_cert: str | None = Field(None, description="This process's certificate (PEM).")
    tls_key: str | None = Field(None, description="This process's private key (PEM).")
    insecure: bool = Field(
        False,
        description="Let workers come over a network without TLS: anyone who reaches a port can run code there.",
    )
    metrics_port: int | None = Field(None, ge=0, le=65535, description="Port of this process's Prometheus metrics; none: none.")
    metrics_address: str | None = Field(
        None, description="Address that the metrics are served at; none: all where a port is named, the loopback for port 0."
    )

    @property
    def starts_workers(self) -> bool:
        """Whether the run has workers of its own on this machine, none from elsewhere."""
        return self.scheduler is None and self.listen is None

    @model_validator(mode="after")
    def _one_way_to_have_workers(self) -> EngineConfig:
        if self.scheduler is not None and self.listen is not None:
            raise ValueError("scheduler and listen (--scheduler, --listen) exclude each other; name one of them.")
        if self.scale_deployment is not None and (self.starts_workers or self.workers is None):
            raise ValueError(
                "scale_deployment (--scale-deployment) needs listen or scheduler, where its workers come to, "
                "and workers (--workers), the most that there may be."
            )
        return self


class ExplainConfig(Record):
    """What is explained when a run is through; needs the extra ``train`` on driver and workers. Changes no score."""

    which: Literal["none", "candidates"] = Field(
        "none", description="'candidates': those of the contact sheet get maps of what speaks for a lens."
    )


class ModelConfig(Record):
    """What gets a lens model when a run is through. Changes no score."""

    which: Literal["none", "candidates"] = Field(
        "none", description="'candidates': those of the contact sheet, and their columns in the tables."
    )


class RunConfig(Record):
    """The whole tree."""

    targets: TargetsConfig = TargetsConfig()
    cutouts: CutoutsConfig = CutoutsConfig()
    scoring: ScoringConfig = ScoringConfig()
    catalogue: CatalogueConfig = CatalogueConfig()
    storage: StorageConfig = StorageConfig()
    engine: EngineConfig = EngineConfig()
    explain: ExplainConfig = ExplainConfig()
    model: ModelConfig = ModelConfig()


def load(
    file: Path | None = None, flags: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None
) -> RunConfig:
    """Read and merge the three sources; later ones win.

    Parameters
    ----------
    file
        TOML file with the sections of :class:`RunConfig`.
    flags
        Dotted keys, e.g. ``{"targets.magnitude_limit": 22.5}``; ``None`` values are ignored.
    environment
        Variables such as ``SCANNER_TARGETS__SOURCE``; the process's own by default.

    Raises
    ------
    InputMissingError
        The file does not exist.
    UsageError
        Bad TOML, unknown key or bad value; the message names it.
    """
    return load_tree(RunConfig, ENVIRONMENT_PREFIX, file, flags, environment)


def load_storage(file: str | Path | None = None, endpoint: str | None = None, anonymous: bool | None = None) -> StorageConfig:
    """How object stores are reached: a TOML file, the environment, then the two settings themselves; errors as :func:`load`."""
    flags = {"storage.endpoint": endpoint, "storage.anonymous": anonymous}
    return load(None if file is None else Path(file), flags).storage


def load_tree(
    model: type[Config],
    prefix: str,
    file: Path | None,
    flags: Mapping[str, Any] | None,
    environment: Mapping[str, str] | None,
) -> Config:
    """Read any tree of settings as :func:`load` does; ``prefix``: of the environment's variables."""
    tree: dict[str, Any] = {}
    if file is not None:
        try:
            tree = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputMissingError(f"{file}: cannot read the configuration ({error.strerror}).") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{file}: not valid TOML ({error}).") from None
    for name, value in (os.environ if environment is None else environment).items():
        section, separator, key = name.removeprefix(prefix).lower().partition("__")
        if name.startswith(prefix) and separator and (prefix == SERVICE_PREFIX or not name.startswith(SERVICE_PREFIX)):
            _put(tree, section, key, value)
    for dotted, value in (flags or {}).items():
        if value is not None:
            section, _, key = dotted.partition(".")
            _put(tree, section, key, value)
    try:
        return model.model_validate(_without_none(model, tree))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise UsageError(f"{file or 'configuration'}: there is no setting {key}; {_meant(model, key)}") from None
        if first["type"] == "value_error":
            raise UsageError(f"{file or 'configuration'}: {key}: {first['ctx']['error']}") from None
        raise UsageError(f"{file or 'configuration'}: {key}: {first['msg']} (given: {first['input']!r}).") from None


def _meant(model: type[Record], key: str) -> str:
    """Which setting is meant by one that there is not: one of another section, or one that is spelt nearly so."""
    known = []
    for section, field in model.model_fields.items():
        part = field.annotation
        known += [] if "." in key else [section]
        if isinstance(part, type) and issubclass(part, Record):
            known += [f"{section}.{name}" for name in part.model_fields]
    last = key.rpartition(".")[2]
    near = [name for name in known if name.endswith(f".{last}")] or difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    return f"did you mean {near[0]}?" if near else "docs/reference/cli.md lists them."


def _put(tree: dict[str, Any], section: str, key: str, value: Any) -> None:
    node = tree.setdefault(section, {})
    if not isinstance(node, dict):
        raise UsageError(f"configuration: [{section}] must be a section, not a value.")
    node[key] = value


def _without_none(model: type[Record], tree: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with nothing where they say ``none`` and may: TOML and the environment have no other word for it."""
    found = dict(tree)
    for section, values in tree.items():
        part = model.model_fields[section].annotation if section in model.model_fields else None
        if not (isinstance(values, dict) and isinstance(part, type) and issubclass(part, Record)):
            continue
        optional = {key for key, field in part.model_fields.items() if type(None) in get_args(field.annotation)}
        found[section] = {
            key: None if key in optional and isinstance(value, str) and value.lower() == "none" else value
            for key, value in values.items()
        }
    return found
