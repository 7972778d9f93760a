"""``scanner scheduler`` and ``scanner worker``: the processes of a standing cluster."""

from __future__ import annotations

import click

from scanner.cli import output
from scanner.cli.output import tls_options
from scanner.errors import UsageError


@click.command()
@click.option("--host", default="0.0.0.0", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8786, show_default=True, help="Port to listen on; 0: any.")
@click.option(
    "--http-port", type=click.IntRange(1, 65535), help="Port where an autoscaler is answered, unencrypted [default: none]."
)
@tls_options
@output.log_format_option
def scheduler(
    host: str,
    port: int,
    http_port: int | None,
    insecure: bool,
    tls_ca: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    log_format: str,
) -> None:
    """Bring runs (`scanner run --scheduler`) and workers (`scanner worker`) together, one run at a time, until told to stop.

    Without certificates anyone who reaches the port can make the workers run anything: beyond this machine it listens so only
    with --insecure, on a network of its own.
    """
    from scanner.survey.workers.standing import serve_scheduler
    from scanner.survey.workers.transport import certificates, refuse_open_door

    files = certificates(tls_ca, tls_cert, tls_key)
    refuse_open_door(host, files, insecure)
    with output.log_lines(log_format):
        serve_scheduler(host, port, files, http_port)


@click.command()
@click.argument("scheduler")
@click.option("--gpu", is_flag=True, help="Offer this machine's GPU; ends at once where ONNX Runtime cannot use one.")
@click.option(
    "--memory-gb",
    type=click.FloatRange(0, min_open=True),
    default=3.0,
    show_default=True,
    help="Memory above which it ends itself.",
)
@click.option("--scratch", help="Folder for fetched, decompressed and resampled mosaics [default: the run's, or the system's].")
@click.option("--name", help="Name in logs and messages [default: its address].")
@click.option("--worker-port", type=click.IntRange(0, 65535), default=0, help="Port for scheduler and workers [default: any].")
@click.option("--metrics-port", type=click.IntRange(0, 65535), help="Port of its Prometheus metrics [default: none].")
@click.option("--metrics-address", help="Address that they are served at [default: all; for port 0, the loopback].")
@click.option("--lifetime", help="Leave after so long, e.g. 6h, between two tiles.")
@click.option("--lifetime-stagger", default="0s", help="Leave up to so much earlier or later, e.g. 30m.")
@click.option("--death-timeout", default="60s", show_default=True, help="How long a scheduler is looked for, e.g. 5m; never.")
@click.option("--grace", default="110s", show_default=True, help="Time to finish the tile in hand when told to stop (SIGTERM).")
@tls_options
@output.log_format_option
def worker(
    scheduler: str,
    gpu: bool,
    memory_gb: float,
    scratch: str | None,
    name: str | None,
    worker_port: int,
    metrics_port: int | None,
    metrics_address: str | None,
    lifetime: str | None,
    lifetime_stagger: str,
    death_timeout: str,
    grace: str,
    insecure: bool,
    tls_ca: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    log_format: str,
) -> None:
    """Scan tiles for the runs of SCHEDULER (tcp://host:8786 or tls://host:8786), until told to stop.

    SCHEDULER is a standing one, or a run's own (`scanner run --listen`). One that goes away is looked for again, for
    --death-timeout; with never, a worker waits for the next run.

    On SIGTERM it takes no new tile, finishes the one in hand if the grace allows, else leaves it to another worker, and exits
    with 0. It runs the driver's versions of scanner, bundle, Python and libraries, or gets no tile and exits with 78.
    """
    from scanner.survey.workers.standing import WorkerRequest, serve_worker
    from scanner.survey.workers.transport import certificates, parse, refuse_open_door

    files = certificates(tls_ca, tls_cert, tls_key)
    refuse_open_door(parse(scheduler, files)[1], files, insecure)
    request = WorkerRequest(
        scheduler=scheduler,
        gpu=gpu,
        memory_gb=memory_gb,
        scratch=scratch,
        name=name,
        port=worker_port,
        metrics_port=metrics_port,
        metrics_address=metrics_address,
        lifetime_s=None if lifetime is None else _seconds("--lifetime", lifetime),
        lifetime_stagger_s=_seconds("--lifetime-stagger", lifetime_stagger),
        death_timeout_s=None if death_timeout == "never" else _seconds("--death-timeout", death_timeout),
        grace_s=_seconds("--grace", grace),
    )
    with output.log_lines(log_format):
        serve_worker(request, files)


def _seconds(flag: str, duration: str) -> float:
    from dask.utils import parse_timedelta

    try:
        seconds = float(parse_timedelta(duration, default="s"))
    except (IndexError, KeyError, ValueError):
        seconds = -1.0
    if seconds < 0:
        raise UsageError(f"{flag}: {duration!r} is not a duration; write 90s, 30m or 6h.")
    return seconds
