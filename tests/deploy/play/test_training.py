"""From drawn sets to the promoted bundle: the Jobs of the laptop's values, one after the other, as processes of this machine.

Each runs with the very words of its container, with the pod's folders in a temporary one; only sets and times are smaller.
"""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field

import pytest
from manifests.pods import at, of_kind
from manifests.rendering import CHART, find_helm
from ports import free_ports
from waiting import wait_for

from scanner.ensemble import bundles

pytestmark = pytest.mark.timeout(1800)
LAPTOP = CHART / "examples" / "values-laptop.yaml"
SMALL = {
    "training": {
        "enabled": True,
        "draw": [["dataset", "--preset=train", "--n=600", "--seed=1", "--out=/data/sets/train-1"]],
        "timeBudget": "40s",
    },
    "export": {"enabled": True, "extraArgs": ["--embed=60", "--rotations=0"]},
    "promote": {"enabled": True, "draw": [["sets", "eval", "--scale=0.01", "--out=/data/sets/held-out"]]},
}
INTERRUPTED, WORSE = 130, 1


@dataclass
class Played:
    """One Job: exit codes of its pods, and what the last of them said."""

    spec: dict
    exit_codes: list[int] = field(default_factory=list)
    output: str = ""

    @property
    def final(self):
        """Exit codes after which the Job has failed for good."""
        return at(self.spec, ("podFailurePolicy", "rules", 1, "onExitCodes", "values"))


class Node:
    """Where the pods run."""

    def __init__(self, folder, helm):
        self.data, self._helm = folder / "data", helm
        # A pod's /scratch goes with it; here the promotions have one.
        self._places = {"/data/": f"{self.data}/", "/scratch/": f"{folder}/scratch/", "port=9464": f"port={free_ports(1)[0]}"}

    def play(self, component, interrupt=None, **settings):
        """Run a Job to its end; with ``interrupt``, its first pod is told to stop once that file is there."""
        manifests = self._helm.template(LAPTOP, settings={name: SMALL[name] | settings.get(name, {}) for name in SMALL})
        (job,) = (job for name, job in of_kind(manifests, "Job").items() if f"-{component}-" in name)
        played = Played(job["spec"])
        pod = at(job, ("spec", "template", "spec"))
        for container in pod.get("initContainers", []):
            subprocess.run(self._command(container), check=True, capture_output=True)
        for stop_at in [interrupt, None] if interrupt else [None]:
            exit_code, played.output = self._run(pod["containers"][0], stop_at)
            played.exit_codes.append(exit_code)
        return played

    def _run(self, container, stop_at):
        words = self._command(container)
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            if stop_at is not None:
                wait_for(str(stop_at), lambda: stop_at.exists() or process.poll() is not None)
                process.send_signal(signal.SIGTERM)
            output = process.communicate()[0]
        return process.returncode, output

    def _command(self, container):
        words = container["args"]
        for place, here in self._places.items():
            words = [word.replace(place, here) for word in words]
        return [sys.executable, "-m", "scanner", *words]


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    if "SCANNER_IMAGE_STORE" not in os.environ:
        pytest.skip("it takes minutes: 'make verify-play' runs it")
    helm = find_helm()
    if helm is None:
        pytest.skip("helm is not there ('make helm' fetches it): the chart is not played")
    return Node(tmp_path_factory.mktemp("node"), helm)


@pytest.fixture(scope="module")
def trained(node):
    return node.play("train", interrupt=node.data / "training" / "runs" / "OU-66" / "plan.json")


@pytest.fixture(scope="module")
def exported(node, trained):
    return node.play("export")


@pytest.fixture(scope="module")
def judged(node, exported):
    """The promotion over the image's own bundle, which minutes of training cannot reach."""
    return node.play("promote")


@pytest.fixture(scope="module")
def promoted(node, judged):
    """The promotion of the image's own bundle, published too, over that of minutes."""
    publish = ["models", "publish", bundles.find(None), "--to", node.data / "bundles"]
    subprocess.run([sys.executable, "-m", "scanner", *publish], check=True, capture_output=True)
    return node.play("promote", promote={"over": "/data/training/trained"})


def test_a_training_that_is_told_to_stop_goes_on_in_the_next_pod(node, trained):
    assert trained.exit_codes == [INTERRUPTED, 0], trained.output
    assert INTERRUPTED not in trained.final
    runs = node.data / "training" / "runs"
    assert {path.parent.name for path in runs.glob("*/fit.json")} == {
        "OU-J",
        "OU-Y",
        "OU-H",
        "OU-JYH",
        "OU-VIS",
        "OU-66",
        "OU-200",
    }


def test_the_bundle_is_published_whole(node, exported):
    assert exported.exit_codes == [0], exported.output
    made = bundles.load(node.data / "training" / "trained")
    assert bundles.load(node.data / "bundles" / made.fingerprint).fingerprint == made.fingerprint
    latest = json.loads((node.data / "bundles" / "latest.json").read_text())
    assert latest["bundle"] == made.fingerprint


def test_a_worse_bundle_is_refused_for_good(node, judged):
    assert judged.exit_codes == [WORSE], judged.output
    assert "not promoted" in judged.output
    assert WORSE in judged.final


def test_a_better_one_is_what_scans_take(node, promoted):
    assert promoted.exit_codes == [0], promoted.output
    better = bundles.load(bundles.find(None)).fingerprint
    assert json.loads((node.data / "bundles" / "current.json").read_text())["bundle"] == better
