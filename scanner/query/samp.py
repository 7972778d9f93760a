"""Hand a table to a program that runs on this machine, such as TOPCAT: the Standard Profile of SAMP 1.3."""

from __future__ import annotations

import os
import xmlrpc.client
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from scanner.errors import UnavailableError, UsageError

#: Type of the message, by format of the table.
MESSAGES = {"votable": "table.load.votable", "fits": "table.load.fits"}
_NO_HUB = "No SAMP hub runs on this machine; start TOPCAT or Aladin, and send again."


def send_table(path: Path, format_: str, name: str, to: str) -> tuple[str, ...]:
    """Ask programs to load a table.

    Parameters
    ----------
    path
        Its file; the programs read it when they come to it, so it must stay.
    format_
        ``votable`` or ``fits``.
    name
        What the programs call the table.
    to
        A program's SAMP name or its beginning, in small or capital letters: ``topcat``; ``all``: every one that takes tables.

    Returns
    -------
    tuple of str
        The names of the programs that were asked.

    Raises
    ------
    UsageError
        Another format.
    UnavailableError
        No hub runs, or no such program takes tables from it.
    """
    if format_ not in MESSAGES:
        raise UsageError(f"{path}: SAMP hands over VOTable and FITS tables, not {format_}; end it in .vot or .fits.")
    secret, url = _hub()
    message = {"samp.mtype": MESSAGES[format_], "samp.params": {"url": path.resolve().as_uri(), "name": name}}
    try:
        with xmlrpc.client.ServerProxy(url) as proxy:
            hub: Any = proxy.samp.hub
            key = cast(dict[str, str], hub.register(secret))["samp.private-key"]
            hub.declareMetadata(key, {"samp.name": "scanner"})
            listeners = {one: _name(hub.getMetadata(key, one)) for one in hub.getSubscribedClients(key, MESSAGES[format_])}
            chosen = {one: known for one, known in listeners.items() if to == "all" or known.lower().startswith(to.lower())}
            for one in chosen:
                hub.notify(key, one, message)
            with suppress(xmlrpc.client.Fault):
                hub.unregister(key)
    except OSError:
        raise UnavailableError(_NO_HUB) from None
    except (xmlrpc.client.Error, KeyError) as error:
        raise UnavailableError(f"{url}: the SAMP hub refused the table ({error}).") from None
    if not chosen:
        found = f"only {', '.join(sorted(listeners.values()))} can" if listeners else "none that can is connected to the hub"
        raise UnavailableError(f"{to}: no program of this name can load tables; {found}.")
    return tuple(sorted(chosen.values()))


def _name(metadata: object) -> str:
    return str(cast(Mapping[str, object], metadata).get("samp.name", "a program without a name"))


def _hub() -> tuple[str, str]:
    """Secret and address of the hub, from its lock-file (section 4.3 of the standard).

    Raises
    ------
    UnavailableError
        There is none.
    """
    named = os.environ.get("SAMP_HUB", "")
    path = Path(unquote(urlsplit(named.removeprefix("std-lockurl:")).path)) if named else Path.home() / ".samp"
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        raise UnavailableError(_NO_HUB) from None
    known = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    if not {"samp.secret", "samp.hub.xmlrpc.url"} <= known.keys():
        raise UnavailableError(f"{path}: is no lock-file of a SAMP hub; start TOPCAT or Aladin anew.")
    return known["samp.secret"], known["samp.hub.xmlrpc.url"]
