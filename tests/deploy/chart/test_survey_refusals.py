"""Values of surveys that would make no scan, and the sentence that each is refused with."""

import pytest
from manifests.rendering import RefusedError
from manifests.surveys import LIST, LOCAL, OUT, survey


@pytest.fixture
def render(helm):
    return lambda settings, **how: helm.template(settings=settings, **how)


REFUSED = {
    "no tile list": (survey(tileList={"url": ""}), "surveys.q1.tileList: give one of inline, path and url; there are 0."),
    "two tile lists": (
        survey(tileList={"url": LIST, "path": "/data/tiles.txt"}) | {"persistence": {"data": {"enabled": True}}},
        "surveys.q1.tileList: give one of inline, path and url; there are 2.",
    ),
    "no run folder": (survey(out=""), 'surveys.q1.out: is ""; name a run folder, /data/… or s3://…'),
    "a run folder somewhere": (survey(out="runs/q1"), 'surveys.q1.out: is "runs/q1"; name a run folder, /data/… or s3://…'),
    "one run folder for two": (
        {"surveys": {name: {"tileList": {"url": LIST}, "out": out} for name, out in {"q1": OUT, "q2": f"{OUT}/"}.items()}},
        "surveys.q1.out: s3://runs/q1 is the run folder of q2 too, and has room for one; name another.",
    ),
    "a run folder in the container": (survey(out="/data/q1") | LOCAL, "surveys.q1.out: /data/q1 lies on no volume; set"),
    "a bundle in the container": (
        survey(bundle="/bundles/new") | LOCAL,
        "surveys.q1.bundle: /bundles/new lies on no volume; set",
    ),
    "KEDA without Prometheus": (
        survey(workers={"scaling": "keda"}),
        "surveys.q1.workers.keda.serverAddress: missing; KEDA asks",
    ),
    "networks on GPUs that nobody has": (
        survey(config={"scoring": {"provider": "cuda"}}),
        "surveys.q1.config.scoring.provider: cuda needs GPUs, and no worker has one; set workers.gpu.",
    ),
    "GPUs for nothing": (
        survey(config={"scoring": {"provider": "cpu"}}, workers={"gpu": True}),
        "surveys.q1.workers.gpu: GPUs would be idle, as config.scoring.provider is cpu; leave one of them out.",
    ),
    "more memory than there is": (
        survey(workers={"memoryGb": 8, "resources": {"limits": {"memory": "7629Mi"}}}),
        "surveys.q1.workers.memoryGb: 8 GB leave no room below the limit of 7629Mi; lower it",
    ),
    "more memory than there are bytes": (
        survey(workers={"memoryGb": 2.5, "resources": {"requests": {"memory": 2e9}, "limits": {"memory": 2e9}}}),
        "surveys.q1.workers.memoryGb: 2.5 GB leave no room below the limit of 2e+09; lower it",
    ),
    "a schedule of four fields": (survey(schedule="0 2 * *"), "'0 2 * *' does not match pattern"),
    "a time zone in the schedule": (survey(schedule="TZ=UTC 0 2 * * *"), "'TZ=UTC 0 2 * * *' does not match pattern"),
    "more workers than there is memory for": (
        survey(workers={"scaling": "local", "replicas": 2, "memoryGb": 1.7}, resources={"limits": {"memory": "3G"}}),
        "surveys.q1.resources.limits.memory: 3G is less than 2 workers of 1.7 GB in the driver's pod take; raise it.",
    ),
    "encryption without certificates": (
        {"dask": {"tls": {"enabled": True}}},
        "dask.tls: enabled without certificates; name existingSecret, or set certManager.enabled.",
    ),
    "a certificate of nobody": (
        {"dask": {"tls": {"enabled": True, "certManager": {"enabled": True}}}},
        "dask.tls.certManager.issuerRef.name: missing; name an Issuer",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_values_that_contradict_one_another_are_refused_in_a_sentence(render, what):
    settings, sentence = REFUSED[what]
    with pytest.raises(RefusedError) as refused:
        render(settings)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"targets": {"magnitude_limi": 22}}, "additional properties 'magnitude_limi' not allowed"),
        ({"cutouts": {"codec": "zip"}}, "value must be one of 'exact', 'compact'"),
        ({"engine": {"scratch": "/tmp"}}, "additional properties 'scratch' not allowed"),
    ],
)
def test_settings_that_a_run_would_refuse_are_refused_before(render, given, sentence):
    with pytest.raises(RefusedError, match=sentence):
        render(survey(config=given))


def test_a_release_that_services_cannot_be_named_after_is_refused(render):
    with pytest.raises(RefusedError, match="2026-scanner: Services cannot be named after this release"):
        render(survey(), release="2026")
