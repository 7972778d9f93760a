"""The catalogue service over a scan of the cluster, and the pods of ``helm test``."""

import io
import urllib.parse

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io.votable import parse_single_table

pytestmark = pytest.mark.timeout(1200)
RADIUS_DEG = 0.005


def test_it_answers_a_cone_search(service, release):
    """The same objects as the catalogue's file has around its best candidate."""
    objects = pq.read_table(release.data / "calm" / "catalogue" / "dataset", columns=["name", "ra", "dec", "rank"])
    best = objects.filter(pc.equal(objects["rank"], 1)).to_pylist()[0]
    query = urllib.parse.urlencode({"RA": best["ra"], "DEC": best["dec"], "SR": RADIUS_DEG})
    found = parse_single_table(io.BytesIO(service.get(f"/scs?{query}", "http").encode())).to_table()
    places = SkyCoord(objects["ra"].to_numpy() * u.deg, objects["dec"].to_numpy() * u.deg)
    near = places.separation(SkyCoord(best["ra"] * u.deg, best["dec"] * u.deg)) < RADIUS_DEG * u.deg
    assert 1 < near.sum() < objects.num_rows
    assert set(map(str, found["name"])) == set(objects["name"].to_numpy(zero_copy_only=False)[near])


def test_it_cannot_write_what_it_shows(service):
    code, said = service.run("python3", "-c", "open('/data/calm/run.json', 'a')")
    assert code != 0
    assert "Read-only file system" in said


@pytest.mark.parametrize(
    ("which", "said"),
    [("scan", ["finished: 1 of 1 tiles done", "Equal, bit for bit."]), ("service", ["ready"])],
)
def test_helm_test(service, release, rendered_tests, which, said):
    """The pods that ``helm test`` runs end well; the second asks the service by its name, past the NetworkPolicies."""
    manifest = rendered_tests[f"euclid-scanner-test-{which}"]
    pod = release.cluster.start(manifest["metadata"]["name"], manifest)
    code = int(release.cluster.podman.call("wait", pod.containers[-1], timeout=300))
    log = pod.logs()
    assert code == 0, log
    assert [text for text in said if text not in log] == []
    release.cluster.delete(pod)
