"""A scheduled scan: from the CronJob's template to a finished catalogue."""


def test_a_scan_nobody_disturbs_ends_with_a_catalogue(calm, cluster):
    assert (calm.condition, [attempt.exit_code for attempt in calm.tries]) == ("Complete", [0]), calm.tries[-1].pod.logs()
