"""The bus: messages that say "look at this id now", and nothing else.

A cast carries an id and who asked. Losing one costs the time until the next
resync, so the sender never makes anybody wait: casts go through a bounded
queue to one thread, and are dropped when it is full.

Where API and engine share a process, the API calls the engine itself
(``engine.service.Engine`` has the same methods).

History of the RPC version:

    1.0  create_runtime, update_runtime, delete_runtime (runtime_id)
    1.1  update_function, delete_function (function_id), execute (execution_id)
    1.2  delete_execution (execution_id)
    1.3  claim (runtime_id)
"""

import queue
import threading
import time
import warnings
from typing import Any, Protocol

# oslo.messaging brings eventlet with it; nothing here uses it.
warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")

from oslo_service import backend  # noqa: E402

backend.init_backend(backend.BackendType.THREADING)

import oslo_messaging as messaging  # noqa: E402  # needs the backend chosen above
from oslo_config import cfg  # noqa: E402
from oslo_log import log  # noqa: E402
from oslo_messaging._metrics import client as metrics  # noqa: E402
from oslo_messaging._tracing import client as tracing  # noqa: E402

from qinling import conf as configuration  # noqa: E402
from qinling import context, exceptions  # noqa: E402

LOG = log.getLogger(__name__)

TOPIC = "qinling-engine"
VERSION = "1.3"

# Casts that wait for a bus that is slow or away; more of them are dropped.
_QUEUE_SIZE = 1000
# Seconds that a request gets for its answer before its cast is sent: the two would
# take the interpreter from each other at each of their system calls. Who wants a
# worker for a function waits for what comes of the cast.
_HEAD_START = 0.005
_AT_ONCE = ("claim", "update_function")
# Seconds between attempts to start consuming while the bus is away at start.
_CONNECT_PAUSE = 1.0


# What an engine does with an id that a message named.


class EngineNotifier(Protocol):
    """How the API tells an engine that a row has changed. Never waits."""

    def create_runtime(self, asked_by: context.RequestContext, runtime_id: str) -> None: ...

    def update_runtime(self, asked_by: context.RequestContext, runtime_id: str) -> None: ...

    def delete_runtime(self, asked_by: context.RequestContext, runtime_id: str) -> None: ...

    def update_function(self, asked_by: context.RequestContext, function_id: str) -> None: ...

    def delete_function(self, asked_by: context.RequestContext, function_id: str) -> None: ...

    def claim(self, asked_by: context.RequestContext, runtime_id: str) -> None: ...

    def execute(self, asked_by: context.RequestContext, execution_id: str) -> None: ...

    def delete_execution(self, asked_by: context.RequestContext, execution_id: str) -> None: ...


class _ContextSerializer(messaging.NoOpSerializer):  # type: ignore[misc]
    def serialize_context(self, ctxt: context.RequestContext) -> dict[str, Any]:
        return ctxt.to_message()

    def deserialize_context(self, ctxt: dict[str, Any]) -> context.RequestContext:
        return context.RequestContext.from_message(ctxt)


def transport(conf: cfg.ConfigOpts) -> Any:
    """:raises StartupError: ``transport_url`` is not one that a driver serves."""
    # These it registers with oslo.config's global object alone, and reads from ours.
    conf.register_opts(metrics.oslo_messaging_metrics, group="oslo_messaging_metrics")
    conf.register_opts(tracing.oslo_messaging_tracing, group="oslo_messaging_tracing")
    try:
        return messaging.get_rpc_transport(conf)
    except (messaging.InvalidTransportURL, messaging.DriverLoadFailure) as error:
        raise exceptions.StartupError(f"transport_url: {error}") from error
    except cfg.Error:
        raise
    except ValueError as error:
        # Not its text: it may quote a piece of the password.
        raise exceptions.StartupError("transport_url: it is not a URL") from error


class EngineClient:
    """Casts to whichever engine takes them. Implements ``EngineNotifier``."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        target = messaging.Target(topic=TOPIC, version=VERSION)
        with configuration.checked(conf):
            self._transport = transport(conf)
            self._client = messaging.get_rpc_client(
                self._transport,
                target,
                serializer=_ContextSerializer(),
                version_cap=VERSION,
                retry=0,
            )
        self._casts: queue.Queue[tuple[context.RequestContext, str, dict[str, Any]] | None]
        self._casts = queue.Queue(_QUEUE_SIZE)
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def create_runtime(self, asked_by: context.RequestContext, runtime_id: str) -> None:
        self._cast(asked_by, "create_runtime", runtime_id=runtime_id)

    def update_runtime(self, asked_by: context.RequestContext, runtime_id: str) -> None:
        self._cast(asked_by, "update_runtime", runtime_id=runtime_id)

    def delete_runtime(self, asked_by: context.RequestContext, runtime_id: str) -> None:
        self._cast(asked_by, "delete_runtime", runtime_id=runtime_id)

    def update_function(self, asked_by: context.RequestContext, function_id: str) -> None:
        self._cast(asked_by, "update_function", function_id=function_id)

    def delete_function(self, asked_by: context.RequestContext, function_id: str) -> None:
        self._cast(asked_by, "delete_function", function_id=function_id)

    def claim(self, asked_by: context.RequestContext, runtime_id: str) -> None:
        self._cast(asked_by, "claim", runtime_id=runtime_id)

    def execute(self, asked_by: context.RequestContext, execution_id: str) -> None:
        self._cast(asked_by, "execute", execution_id=execution_id)

    def delete_execution(self, asked_by: context.RequestContext, execution_id: str) -> None:
        self._cast(asked_by, "delete_execution", execution_id=execution_id)

    def stop(self, timeout: float = 5.0) -> None:
        """Send what waits, for at most ``timeout`` seconds."""
        with self._starting:
            if self._thread is None:
                return
        try:
            self._casts.put(None, timeout=timeout)
        except queue.Full:
            return
        self._thread.join(timeout)

    def _cast(self, asked_by: context.RequestContext, method: str, **arguments: Any) -> None:
        try:
            self._casts.put_nowait((asked_by, method, arguments))
        except queue.Full:
            LOG.warning("The bus is away: %s %s waits for the resync.", method, arguments)
        # Not before: a server may have forked since this object was made.
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._send, name="casts", daemon=True)
                self._thread.start()

    def _send(self) -> None:
        while True:
            idle = self._casts.empty()
            cast = self._casts.get()
            if cast is None:
                return
            asked_by, method, arguments = cast
            if idle and method not in _AT_ONCE:
                time.sleep(_HEAD_START)
            asked_by.update_store()
            try:
                self._client.cast(asked_by, method, **arguments)
            except Exception as error:
                # Not only what oslo.messaging declares: its drivers let others out.
                LOG.warning("Cast %s %s is lost, the resync makes up: %s", method, arguments, error)


class _Endpoint:
    """What a message calls in the engine."""

    target = messaging.Target(version=VERSION)

    def __init__(self, engine: EngineNotifier) -> None:
        self._engine = engine

    def create_runtime(self, ctxt: context.RequestContext, runtime_id: str) -> None:
        self._engine.create_runtime(ctxt, runtime_id)

    def update_runtime(self, ctxt: context.RequestContext, runtime_id: str) -> None:
        self._engine.update_runtime(ctxt, runtime_id)

    def delete_runtime(self, ctxt: context.RequestContext, runtime_id: str) -> None:
        self._engine.delete_runtime(ctxt, runtime_id)

    def update_function(self, ctxt: context.RequestContext, function_id: str) -> None:
        self._engine.update_function(ctxt, function_id)

    def delete_function(self, ctxt: context.RequestContext, function_id: str) -> None:
        self._engine.delete_function(ctxt, function_id)

    def claim(self, ctxt: context.RequestContext, runtime_id: str) -> None:
        self._engine.claim(ctxt, runtime_id)

    def execute(self, ctxt: context.RequestContext, execution_id: str) -> None:
        self._engine.execute(ctxt, execution_id)

    def delete_execution(self, ctxt: context.RequestContext, execution_id: str) -> None:
        self._engine.delete_execution(ctxt, execution_id)


class EngineServer:
    """Receives casts. Starts in the background: an engine needs no bus to work."""

    def __init__(self, conf: cfg.ConfigOpts, engine: EngineNotifier) -> None:
        with configuration.checked(conf):
            self._transport = transport(conf)
            self._server = messaging.get_rpc_server(
                self._transport,
                messaging.Target(topic=TOPIC, server=conf.engine.host),
                [_Endpoint(engine)],
                serializer=_ContextSerializer(),
                access_policy=messaging.DefaultRPCAccessPolicy,
            )
        self._stopping = threading.Event()
        self._started = False
        self._thread = threading.Thread(target=self._start, name="bus", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        self._stopping.set()
        self._thread.join(timeout)
        if self._started:
            self._server.stop()
            stopper = threading.Thread(target=self._server.wait, daemon=True)
            stopper.start()
            stopper.join(timeout)

    def _start(self) -> None:
        while not self._stopping.is_set():
            try:
                self._server.start()
                self._started = True
                return
            except Exception as error:
                LOG.warning("The bus is away, trying again: %s", error)
                self._stopping.wait(_CONNECT_PAUSE)
