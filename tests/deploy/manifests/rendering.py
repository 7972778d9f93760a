"""The chart rendered by the real helm: values in, manifests out; what helm refuses raises ``RefusedError`` with its words."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import programs
import yaml

ROOT = Path(__file__).parents[3]
CHART = ROOT / "helm" / "scanner"
RELEASE = "euclid"
NAMESPACE = "lenses"
#: What the chart supports; both ends are checked.
OLDEST_KUBERNETES, NEWEST_KUBERNETES = "1.29", "1.37"


class RefusedError(Exception):
    """Helm did not render: the values are not allowed, or a template is wrong."""


class _UniqueKeys(yaml.CSafeLoader):
    """YAML in which no key stands twice: helm's own parser would keep the last and say nothing."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.YAMLError(f"{', '.join(map(str, twice))} twice{node.start_mark}")
        return super().construct_mapping(node, deep)


def read(text):
    """All documents of a text of YAML; comments alone are none."""
    return [document for document in yaml.load_all(text, Loader=_UniqueKeys) if document is not None]


@dataclass(frozen=True)
class Helm:
    """The program; every call is one process."""

    program: str

    def call(self, *words, settings=None):
        """Its output; ``settings`` are values that win over those of files."""
        words = list(map(str, words))
        text = None
        if settings is not None:
            words += ["--values", "-"]
            text = json.dumps(settings)
        done = subprocess.run([self.program, *words], input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            said = [line for line in (done.stderr + done.stdout).splitlines() if not line.startswith("level=INFO")]
            raise RefusedError("\n".join(said))
        return done.stdout

    def text(self, *files, settings=None, release=RELEASE, kubernetes=NEWEST_KUBERNETES, chart=CHART, words=()):
        """What ``helm template`` prints."""
        values = [word for file in files for word in ("--values", file)]
        words = ["--namespace", NAMESPACE, "--kube-version", f"v{kubernetes}.0", *words, *values]
        return self.call("template", release, chart, *words, settings=settings)

    def template(self, *files, **how):
        """The manifests that ``helm template`` prints, hooks among them."""
        return read(self.text(*files, **how))


def find_helm():
    """The program, or None."""
    found = programs.find("helm")
    return None if found is None else Helm(found)
