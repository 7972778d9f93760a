"""``scanner scheduler``: where workers and the driver of a run meet."""

from __future__ import annotations

import click

from scanner.cli import logs
from scanner.cli.cluster_options import tls_options


@click.command()
@click.option("--host", default="0.0.0.0", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8786, show_default=True, help="Port to listen on; 0: any.")
@click.option(
    "--http-port", type=click.IntRange(1, 65535), help="Port where an autoscaler is answered, unencrypted [default: none]."
)
@tls_options
@logs.log_format_option
def scheduler(
    host: str,
    port: int,
    http_port: int | None,
    tls_ca: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    log_format: str,
) -> None:
    """Bring runs (`scanner run --scheduler`) and workers (`scanner worker`) together, one run at a time, until told to stop.

    Without certificates whoever reaches the port can make the workers run anything: keep it to a network of its own.
    """
    from scanner.survey.workers.scheduler import serve
    from scanner.survey.workers.transport import certificates

    with logs.written(log_format):
        serve(host, port, certificates(tls_ca, tls_cert, tls_key), http_port)
