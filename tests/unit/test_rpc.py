"""Casts: nobody waits for the bus, and nothing secret travels on it."""

import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg
from oslo_context import context as oslo_context

from qinling import context, exceptions, rpc
from tests.fixtures.process import wait_until
from tests.unit.config import options

DEADLINE = 20.0
METHODS = (
    "create_runtime",
    "update_runtime",
    "delete_runtime",
    "update_function",
    "delete_function",
    "claim",
    "execute",
)


def _argument(method: str) -> str:
    """The name of the id that a cast carries."""
    row = {"execute": "execution", "claim": "runtime"}.get(method) or method.partition("_")[2]
    return f"{row}_id"


class Bus:
    """A double of oslo.messaging's client: its casts wait, or fail, as long as a test says.

    What a real broker does that is down, or does not answer, is a functional test.
    """

    def __init__(self) -> None:
        self.sent: list[tuple[Any, str, dict[str, Any]]] = []
        self.errors: list[Exception] = []
        self.at_it = threading.Event()
        self.open = threading.Event()
        self.open.set()

    def cast(self, asked_by: Any, method: str, **arguments: Any) -> None:
        self.at_it.set()
        assert self.open.wait(DEADLINE)
        if self.errors:
            raise self.errors.pop(0)
        self.sent.append((asked_by, method, arguments))

    def ids(self) -> list[str]:
        return [arguments["runtime_id"] for _, _, arguments in self.sent]


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Bus:
    found = Bus()
    monkeypatch.setattr(rpc.messaging, "get_rpc_client", lambda *_args, **_options: found)
    return found


@pytest.fixture
def conf(tmp_path: Path) -> cfg.ConfigOpts:
    """A configuration with the bus that oslo.messaging has within one process."""
    file = tmp_path / "qinling.conf"
    file.write_text("[DEFAULT]\ntransport_url = fake://\n[engine]\nhost = here\n")
    return options(files=[file])


@pytest.fixture
def client(conf: cfg.ConfigOpts) -> Iterator[rpc.EngineClient]:
    found = rpc.EngineClient(conf)
    yield found
    found.stop(DEADLINE)


@pytest.fixture
def slow_client(bus: Bus, client: rpc.EngineClient) -> rpc.EngineClient:
    """A client whose first cast is stuck on a bus that does not answer, and nothing waits."""
    bus.open.clear()
    client.create_runtime(asker(), "stuck")
    assert bus.at_it.wait(DEADLINE)
    return client


def asker(**values: Any) -> context.RequestContext:
    return context.RequestContext(overwrite=False, **values)


def test_what_was_asked_for_is_cast_in_its_order(bus: Bus, client: rpc.EngineClient) -> None:
    for number, method in enumerate(METHODS * 3):
        getattr(client, method)(asker(request_id=f"req-{number}"), f"id {number}")
    client.stop(DEADLINE)
    assert [(method, arguments) for _, method, arguments in bus.sent] == [
        (method, {_argument(method): f"id {number}"}) for number, method in enumerate(METHODS * 3)
    ]
    assert [asked_by.request_id for asked_by, _, _ in bus.sent] == [
        f"req-{n}" for n in range(3 * len(METHODS))
    ]


def test_nobody_waits_for_a_bus_that_does_not_answer_and_what_is_too_much_is_dropped(
    bus: Bus, slow_client: rpc.EngineClient, caplog: pytest.LogCaptureFixture
) -> None:
    size = 1000
    # In this thread: it would stand here until the deadline of the bus.
    for number in range(size + 50):
        slow_client.update_runtime(asker(), f"id {number}")
    assert not bus.sent
    dropped = [record for record in caplog.records if "waits for the resync" in record.getMessage()]
    assert len(dropped) == 50
    assert "id 1049" in dropped[-1].getMessage()
    bus.open.set()
    wait_until(lambda: len(bus.sent) == size + 1, DEADLINE, "what waited")
    assert bus.ids() == ["stuck", *(f"id {number}" for number in range(size))]


def test_a_stop_does_not_wait_for_ever_for_a_bus_that_does_not_answer(
    bus: Bus, slow_client: rpc.EngineClient
) -> None:
    slow_client.stop(0.01)
    assert not bus.sent
    bus.open.set()


def test_a_stop_does_not_wait_for_ever_when_the_queue_is_full(
    bus: Bus, slow_client: rpc.EngineClient
) -> None:
    for _ in range(1000):
        slow_client.update_runtime(asker(), "id")
    slow_client.stop(0.01)
    assert not bus.sent
    bus.open.set()


def test_a_client_that_cast_nothing_has_no_thread_and_stops_at_once(
    bus: Bus, conf: cfg.ConfigOpts
) -> None:
    # A server may fork between making it and the first cast.
    before = threading.active_count()
    client = rpc.EngineClient(conf)
    assert threading.active_count() == before
    client.stop(DEADLINE)


def test_a_cast_that_the_bus_refuses_is_told_and_the_next_one_is_sent(
    bus: Bus, client: rpc.EngineClient, caplog: pytest.LogCaptureFixture
) -> None:
    bus.errors = [rpc.messaging.MessageDeliveryFailure("away"), OSError("reset"), KeyError("odd")]
    for number in range(4):
        client.create_runtime(asker(), f"id {number}")
    client.stop(DEADLINE)
    assert bus.ids() == ["id 3"]
    for number in range(3):
        assert f"id {number}" in caplog.text


def test_the_context_of_a_request_travels_without_its_token() -> None:
    sent = asker(
        request_id="req-1",
        global_request_id="req-2",
        user_id="user",
        project_id="project",
        auth_token="secret",
        service_token="secret",
        roles=["admin"],
        is_admin=True,
    )
    message = sent.to_message()
    assert "secret" not in repr(message)
    assert set(message) == {
        "request_id",
        "global_request_id",
        "user_id",
        "project_id",
        "is_admin",
    }
    received = context.RequestContext.from_message(message)
    assert received.to_message() == message
    assert received.auth_token is None


def test_a_context_of_a_newer_or_an_older_sender_is_understood() -> None:
    received = context.RequestContext.from_message({"request_id": "req-1", "colour": "blue"})
    assert received.request_id == "req-1"
    assert received.project_id is None
    context.RequestContext.from_message({})


def test_a_cast_arrives_with_the_request_that_asked_for_it(
    conf: cfg.ConfigOpts, client: rpc.EngineClient
) -> None:
    arrived: list[tuple[str, str, str, str | None]] = []

    class Engine:
        """Notes each call with who asked."""

        def __getattr__(self, method: str) -> Callable[[context.RequestContext, str], None]:
            def look(asked_by: context.RequestContext, id_: str) -> None:
                current = oslo_context.get_current()
                assert current is not None
                assert current.request_id == asked_by.request_id
                arrived.append((method, id_, asked_by.request_id, asked_by.auth_token))

            return look

    server = rpc.EngineServer(conf, Engine())
    server.start()
    try:
        ids = [str(uuid.uuid4()) for _ in METHODS]
        for number, method in enumerate(METHODS):
            asked_by = asker(request_id=f"req-{number}", auth_token="secret")
            getattr(client, method)(asked_by, ids[number])
        wait_until(lambda: len(arrived) == len(METHODS), DEADLINE, "the casts' arrival")
    finally:
        server.stop(DEADLINE)
    assert sorted(arrived, key=lambda each: each[2]) == [
        (method, ids[number], f"req-{number}", None) for number, method in enumerate(METHODS)
    ]


def test_an_engine_starts_while_the_bus_is_away_and_stops_before_it_is_back(
    conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = rpc.EngineServer(conf, object())  # type: ignore[arg-type]
    tried = threading.Event()

    def away() -> None:
        tried.set()
        raise rpc.messaging.MessageDeliveryFailure("away")

    monkeypatch.setattr(server._server, "start", away)
    server.start()
    assert tried.wait(DEADLINE)
    server.stop(DEADLINE)
    assert not server._thread.is_alive()


@pytest.mark.parametrize("url", ["nothing://host", "nonsense", "rabbit://host:port/", "rabbit://["])
def test_a_bus_that_no_driver_serves_is_told_with_its_option(tmp_path: Path, url: str) -> None:
    file = tmp_path / "qinling.conf"
    file.write_text(f"[DEFAULT]\ntransport_url = {url}\n")
    with pytest.raises(exceptions.StartupError, match="transport_url"):
        rpc.EngineClient(options(files=[file]))
