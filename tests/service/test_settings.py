import pytest

from scanner import config as run_settings
from scanner.errors import UsageError
from scanner.service.settings import host_name, is_loopback, load


def test_later_sources_win(tmp_path):
    file = tmp_path / "serve.toml"
    file.write_text('[http]\nport = 1\nhost = "::1"\n[limits]\nrows = 5\n')
    config = load(file, {"http.port": 3}, {"SCANNER_SERVE_HTTP__PORT": "2", "SCANNER_SERVE_LIMITS__SECONDS": "1.5"})
    assert (config.http.port, config.http.host, config.limits.rows, config.limits.seconds) == (3, "::1", 5, 1.5)


def test_variables_of_the_service_are_none_of_a_runs_and_the_other_way_round():
    environment = {"SCANNER_SERVE_HTTP__PORT": "2", "SCANNER_TARGETS__MAGNITUDE_LIMIT": "21", "SCANNER_SERVE_TOKENS": "x"}
    assert load(None, {}, environment).http.port == 2
    assert run_settings.load(None, {}, environment).targets.magnitude_limit == 21


def test_lists_come_from_the_environment_too():
    http = load(None, {}, {"SCANNER_SERVE_HTTP__PROXIES": "10.0.0.1, 10.0.0.2", "SCANNER_SERVE_HTTP__CORS": "*"}).http
    assert (http.proxies, http.cors, http.hosts) == (("10.0.0.1", "10.0.0.2"), ("*",), ())


@pytest.mark.parametrize("wrong", [{"http.prot": 1}, {"http.port": 70_000}, {"http.base_url": "x.org"}, {"limits.seconds": 0}])
def test_what_makes_no_sense_is_refused_by_name(wrong):
    (key,) = wrong
    with pytest.raises(UsageError, match=key.replace(".", r"\.")):
        load(None, wrong, {})


@pytest.mark.parametrize(
    ("flags", "local"),
    [
        ({}, True),
        ({"http.host": "::1"}, True),
        ({"http.host": "localhost", "http.base_url": "http://127.0.0.1:9"}, True),
        ({"http.host": "0.0.0.0"}, False),
        ({"http.host": "lens.example.org"}, False),
        ({"http.base_url": "https://lens.example.org/x"}, False),
        ({"http.proxies": ["127.0.0.1"]}, False),
        ({"http.hosts": ["lens.example.org"]}, False),
    ],
)
def test_only_what_nobody_else_can_reach_is_local(flags, local):
    assert load(None, flags, {}).is_local is local


def test_hosts():
    names = ["X.org:80", "x.org", "[::1]:8420", "[::1]", "::1", ""]
    assert [host_name(name) for name in names] == ["x.org", "x.org", "::1", "::1", "::1", ""]
    assert [is_loopback(name) for name in ("127.8.9.1", "::1", "localhost", "10.0.0.1", "localhost.evil.org")] == [
        True, True, True, False, False,
    ]  # fmt: skip
