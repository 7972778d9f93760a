"""Every file of values there is: those the chart brings for its users, and those that turn on the rest of what it can do."""

from manifests.rendering import CHART, ROOT

EXAMPLES = sorted((CHART / "examples").glob("values-*.yaml"))
FEATURES = sorted((ROOT / "tests" / "deploy" / "chart" / "values").glob("*.yaml"))
#: Name → files of values, later ones win.
CASES = {"default": (), **{file.stem: (file,) for file in EXAMPLES + FEATURES}}
