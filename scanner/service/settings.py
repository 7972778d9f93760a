"""The settings of ``scanner serve``: a TOML file, ``SCANNER_SERVE_…`` variables and flags, of which the last wins."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from scanner.config import SERVICE_PREFIX, StorageConfig, load_tree
from scanner.records import Record


def _split(value: Any) -> Any:
    """The environment has text only: several are separated by commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class HttpConfig(Record):
    """Where the service listens and what it calls itself."""

    host: str = Field("127.0.0.1", description="Address to bind.")
    port: int = Field(8420, ge=0, le=65535, description="Port to bind; 0: any free one.")
    base_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?$",
        description="URL that clients reach it by; none: as each request says.",
    )
    hosts: tuple[str, ...] = Field((), description="Host names that requests may name, beside its own; '*': any.")
    cors: tuple[str, ...] | None = Field(
        None, description="Origins whose pages may read; '*': any; none: any, but no other's where reading needs no token."
    )
    proxies: tuple[str, ...] = Field((), description="Addresses of reverse proxies whose X-Forwarded-… headers count.")

    @field_validator("hosts", "cors", "proxies", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return _split(value)


class AccessConfig(Record):
    """Who may do what."""

    tokens: str | None = Field(None, description="File of names, roles and hashed tokens; none: no token is asked for.")
    public: bool = Field(False, description="Serve to other machines without tokens.")


class GradingConfig(Record):
    """How candidates are graded."""

    enabled: bool = Field(True, description="Whether anybody may grade; false: tokens of graders let them read only.")
    path: str = Field("grades.sqlite", description="File of the grades; made if it is not there.")
    blind: bool = Field(False, description="Withhold the scores from graders until they have graded.")
    salt: tuple[str, ...] = Field((), description="Runs of painted mosaics that campaigns mix in; no list or query shows them.")

    @field_validator("salt", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return _split(value)


class LimitsConfig(Record):
    """What one request, and all of them, may cost."""

    rows: int = Field(100_000, ge=1, description="Most rows of an answer whose format is streamed (MAXREC's upper bound).")
    answer_mb: int = Field(256, ge=1, description="Longest answer, in MB.")
    seconds: float = Field(30.0, gt=0, description="Longest time that a request's query may take.")
    memory_mb: int = Field(1024, ge=64, description="Memory of all queries together, in MB; each worker has an equal part.")
    threads: int = Field(2, ge=1, description="Threads of one query.")
    workers: int = Field(4, ge=1, description="Requests that are worked on at a time; others wait.")
    queue: int = Field(64, ge=0, description="Requests that may wait; more are refused, with a time to try again.")
    requests_per_minute: int = Field(1200, ge=0, description="Requests of one client a minute, on average; 0: no limit.")
    burst: int = Field(400, ge=1, description="Requests that a client may make at once.")
    body_kb: int = Field(256, ge=1, description="Largest body of a request, in kB.")

    @property
    def memory_mb_each(self) -> int:
        """Memory of one query in MB."""
        return max(self.memory_mb // self.workers, 32)


class FilesConfig(Record):
    """The folders that are served, and what is kept of them here."""

    wait: bool = Field(False, description="Wait for folders that cannot be opened yet and try every 30 s, instead of ending.")
    cache: str | None = Field(None, description="Folder for files fetched from object stores; none: a temporary one.")
    recoveries: tuple[str, ...] = Field((), description="Folders of recoveries of the runs, shown with them.")

    @field_validator("recoveries", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return _split(value)


class JobsConfig(Record):
    """TAP's jobs: queries whose answers are fetched later."""

    number: int = Field(100, ge=1, description="Jobs that are kept; the oldest that is over, or was never started, makes room.")
    each: int = Field(20, ge=1, description="Jobs of one client that are kept.")
    at_a_time: int = Field(2, ge=1, description="Jobs that are worked on at a time; others wait.")
    seconds: int = Field(600, ge=1, description="Longest time that a job's query may take.")
    hours: int = Field(24, ge=1, description="How long a job and its result are kept.")


class ServiceConfig(Record):
    """The whole tree."""

    http: HttpConfig = HttpConfig()
    access: AccessConfig = AccessConfig()
    grading: GradingConfig = GradingConfig()
    limits: LimitsConfig = LimitsConfig()
    jobs: JobsConfig = JobsConfig()
    storage: StorageConfig = StorageConfig()
    files: FilesConfig = FilesConfig()

    @property
    def is_local(self) -> bool:
        """Whether only this machine can ask: neither the address nor a reverse proxy lets anybody else in."""
        http = self.http
        named = http.base_url is None or is_loopback(urlsplit(http.base_url).hostname or "")
        return is_loopback(http.host) and named and not http.proxies and not http.hosts


def load(
    file: Path | None = None, flags: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None
) -> ServiceConfig:
    """Read and merge the three sources; later ones win. As :func:`scanner.config.load`."""
    return load_tree(ServiceConfig, SERVICE_PREFIX, file, flags, environment)


def host_name(authority: str) -> str:
    """Host of ``host:port``, in small letters, without the brackets of an IPv6 address."""
    host, _, port = authority.rpartition(":")
    has_port = port.isdigit() and (":" not in host or host.endswith("]"))
    return (host if has_port else authority).strip("[]").lower()


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
