import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from waiting import LIMIT_S

from scanner.service import security
from scanner.service.errors import TimeLimitError, TooLargeError, TooManyRequestsError
from scanner.service.security import BodyLimit, RateLimit, ServiceInstruments


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def limited(per_minute, burst):
    answered = []

    async def app(scope, receive, send):
        answered.append(scope["client"][0])

    clock = Clock()
    return RateLimit(app, per_minute, burst, ServiceInstruments(CollectorRegistry()), clock), clock, answered


def ask(app, client="10.0.0.1", path="/tap"):
    """None, or how long the client has to wait."""
    try:
        asyncio.run(app({"type": "http", "path": path, "client": (client, 1)}, None, None))
    except TooManyRequestsError as error:
        return int(error.headers["Retry-After"])
    return None


def test_a_burst_and_then_the_rate():
    app, clock, _ = limited(60, 3)
    assert [ask(app) for _ in range(4)] == [None, None, None, 1]
    clock.now = 1.0
    assert [ask(app) for _ in range(2)] == [None, 1]
    clock.now = 1000.0
    assert [ask(app) for _ in range(4)] == [None, None, None, 1]


def test_who_waits_as_long_as_told_is_answered():
    app, clock, _ = limited(2, 1)
    assert ask(app) is None
    wait = ask(app)
    assert wait == 30
    clock.now += wait
    assert ask(app) is None


def test_a_network_of_ipv6_is_one_client():
    """Whoever has one address there has as many as there are requests."""
    app, _, _ = limited(60, 2)
    addresses = ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:3", "2001:db8:0:1::1", "::1", "10.0.0.1", "10.0.0.2", ""]
    assert [ask(app, client) for client in addresses] == [None, None, 1, None, None, None, None, None]


def test_clients_do_not_pay_for_each_other():
    app, _, answered = limited(60, 1)
    assert [ask(app, client) for client in ("a", "a", "b", "b")] == [None, 1, None, 1]
    assert answered == ["a", "b"]


def test_the_pages_own_files_cost_nothing_and_zero_is_no_limit():
    app, _, _ = limited(60, 1)
    assert [ask(app, path="/static/app.js") for _ in range(5)] == [None] * 5
    app, _, _ = limited(0, 1)
    assert [ask(app) for _ in range(5)] == [None] * 5


def test_only_so_many_clients_are_remembered(monkeypatch):
    monkeypatch.setattr(security, "REMEMBERED", 3)
    app, _, _ = limited(60, 1)
    for client in "abcd":
        ask(app, client)
    assert len(app._left) == 3
    assert ask(app, "d") == 1
    assert ask(app, "a") is None


@given(st.lists(st.floats(0, 3), max_size=60))
def test_no_pattern_of_requests_gets_more_than_the_rate(pauses):
    app, clock, answered = limited(60, 5)
    for pause in pauses:
        clock.now += pause
        ask(app)
    assert len(answered) <= 5 + sum(pauses) + 1e-6


@pytest.mark.parametrize("path", ["/static", "/staticx", "/tap/static"])
def test_only_static_is_free(path):
    app, _, _ = limited(60, 1)
    assert [ask(app, path=path) for _ in range(2)] == [None, None if path == "/static" else 1]


def test_bodies_that_do_not_come_are_not_waited_for():
    async def app(scope, receive, send):
        while (await receive())["more_body"]:
            pass

    async def slow():
        await asyncio.sleep(0 if slow.parts else 60)
        return {"type": "http.request", "body": b"x", "more_body": bool(slow.parts and slow.parts.pop())}

    hasty, bodies = (BodyLimit(app, 10, ServiceInstruments(CollectorRegistry()), seconds=limit) for limit in (0.1, LIMIT_S))
    slow.parts = [False, True, True]
    asyncio.run(bodies({"type": "http", "headers": []}, slow, None))
    slow.parts = []
    with pytest.raises(TimeLimitError, match=r"0\.1 s"):
        asyncio.run(hasty({"type": "http", "headers": []}, slow, None))
    slow.parts = [True] * 20
    with pytest.raises(TooLargeError):
        asyncio.run(bodies({"type": "http", "headers": []}, slow, None))
