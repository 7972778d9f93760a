"""What helm makes of each file of values that the chart brings, kept in ``tests/deploy/chart/golden/``; a change shows there.

``python -m manifests.golden`` (``make golden``) writes all of them anew, for a person to read the difference.
"""

import sys

from manifests.cases import CASES, EXAMPLES
from manifests.rendering import ROOT, find_helm

FOLDER = ROOT / "tests" / "deploy" / "chart" / "golden"
#: Values files without those that are for tests alone, and the chart as it comes.
KEPT = ["default", *(file.stem for file in EXAMPLES)]
#: Rules and dashboard are files of deploy/, word for word: here they would only fill pages.
WITHOUT = {"monitoring": {"prometheusRule": {"enabled": False}, "dashboard": {"enabled": False}}}


def golden(helm, case):
    """The text that is kept for a case."""
    return helm.text(*CASES[case], settings=WITHOUT)


def main():
    """Write all texts; those of values files that are gone go too."""
    helm = find_helm()
    if helm is None:
        sys.exit("helm is not there; 'make helm' fetches it.")
    for old in FOLDER.glob("*.yaml"):
        old.unlink()
    for case in KEPT:
        (FOLDER / f"{case}.yaml").write_text(golden(helm, case))


if __name__ == "__main__":
    main()
