"""Flags of verbs that reach object stores, and what they make of them."""

from __future__ import annotations

import click

from scanner import config as configuration
from scanner.config import StorageConfig

endpoint_option = click.option("--endpoint", help="URL of an S3-compatible server [default: AWS, or AWS_ENDPOINT_URL].")


def storage_of(endpoint: str | None) -> StorageConfig:
    """How object stores are reached: variables (``SCANNER_STORAGE__…``), then the flag."""
    return configuration.load(None, {"storage.endpoint": endpoint}).storage
