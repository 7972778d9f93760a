"""Why tests may be skipped where continuous integration runs (``CI=true``): for want of what `make test` cannot install."""

import os
import re

#: The beginning of a reason, and why a machine may lack it.
ALLOWED = {
    r".*/shared/(real|published-weights)\b": "data that are no part of this project",
    r"there is (a|no) GPU": "hardware",
    r"this machine (has no IPv6|does not let the tests|has no second file system)": "rights and hardware of the machine",
    r"counts resident pages in /proc": "Linux only",
    r".*'make verify-(chart|image|operator|play|vo)'": "minutes and root: targets of their own",
    r"OPENVINO_PYTHON names no Python with onnxruntime-openvino": "a wheel that overwrites the one that tests use",
    r"LSDB_PYTHON names no Python with lsdb": "wants packages in versions of its own",
}


def is_failure(reason: str) -> bool:
    """Whether a test that was skipped for a reason counts as failed."""
    is_ci = os.environ.get("CI", "").lower() in ("1", "true")
    return is_ci and not any(re.match(allowed, reason.removeprefix("Skipped: ")) for allowed in ALLOWED)


def judged(report):
    """A report of pytest's, failed where the skip that it tells of is not allowed."""
    if report.skipped and not hasattr(report, "wasxfail") and is_failure(report.longrepr[2]):
        report.outcome = "failed"
        report.longrepr = f"{report.longrepr[2]}\nSkipped, though this machine could have it: see tests/skips.py."
    return report
