"""The one importer of the ``kubernetes`` library: connections, credentials, errors.

The library finds the cluster and proves who Qinling is there. Objects are the
plain dictionaries that the API speaks: its classes would cost a second of a
processor for each thousand pods. TLS is always verified.
"""

import contextlib
import json
import re
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import urllib3
import yaml
from kubernetes import client as library
from kubernetes import config as library_config
from oslo_config import cfg

from qinling import exceptions
from qinling.orchestrator.kubernetes import credentials, names
from qinling.orchestrator.kubernetes.credentials import Files, Keys
from qinling.orchestrator.kubernetes.standing import Standing
from qinling.orchestrator.routes import Answer
from qinling.orchestrator.routes import Request as Forwarded

Object = dict[str, Any]

_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_STRATEGIC = "application/strategic-merge-patch+json"
_JSON = "application/json"
# "Bearer" and a token, or none (RFC 6750, as far as a header may have it).
_TOKEN = re.compile(r"(?:[Bb]earer [\x21-\x7e]+)?")
# Bytes of an answer that is no JSON which go into a message.
_LONGEST_TEXT = 300
_BUSY = frozenset({429, 500, 502, 503, 504})
# What a watch that nobody answers any more costs at most, beyond its own time (seconds).
_SILENCE = 15.0
# Who has gone without a word is noticed a minute later: tcp(7).
_KEEP_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    query: Mapping[str, str] | None = None
    body: Object | None = None
    kind: str = _JSON


@dataclass(frozen=True, slots=True)
class _Access:
    """A way to the cluster, and what it was found by."""

    api: library.ApiClient
    files: Files
    keys: Keys

    @property
    def outdated(self) -> bool:
        return self.keys.ended or self.files.changed()


class Client:
    """The API of one namespace. Safe to use from any thread.

    The cluster is looked up at the first call, and again after its files have
    changed or it has refused the credentials: a kubeconfig that is not there
    yet, or has expired, is no reason to end.
    """

    def __init__(self, conf: cfg.ConfigOpts, connections: int) -> None:
        self._options = conf.kubernetes
        self._connections = connections
        self._lock = threading.Lock()
        self._access: _Access | None = None
        self._standing = Standing()

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Object:
        """:raises ClusterRefusal: with status 404 when it is not there."""
        return self._json(_Request("GET", path, query))

    def create(self, path: str, body: Object) -> Object:
        return self._json(_Request("POST", path, None, body))

    def apply(self, path: str, body: Object, *, dry: bool = False) -> Object:
        """Apply server-side; what others hold of the fields in ``body`` becomes Qinling's.

        :param dry: only see whether the cluster would.
        """
        query = {"fieldManager": names.MANAGER, "force": "true"}
        if dry:
            query["dryRun"] = "All"
        return self._json(_Request("PATCH", path, query, body, _APPLY))

    def merge(self, path: str, body: Object) -> Object:
        """Patch by RFC 7396: a list takes the place of what was there, None takes it away."""
        return self._json(_Request("PATCH", path, {"fieldManager": names.MANAGER}, body, _MERGE))

    def resize(self, path: str, container: str, resources: Object) -> Object:
        """Change what a container of a pod may have, while it runs."""
        changed = {"spec": {"containers": [{"name": container, "resources": resources}]}}
        query = {"fieldManager": names.MANAGER}
        return self._json(_Request("PATCH", f"{path}/resize", query, changed, _STRATEGIC))

    def delete(self, path: str, options: Object, query: Mapping[str, str] | None = None) -> None:
        """Delete an object, or of a list those that ``query`` selects."""
        self._json(_Request("DELETE", path, query, options))

    def text(self, path: str, query: Mapping[str, str]) -> str:
        """An answer that is no JSON, as a log."""
        return self.content(path, query).decode(errors="replace")

    def content(self, path: str, query: Mapping[str, str]) -> bytes:
        """The same as it came."""
        return self._call(_Request("GET", path, query))

    @contextlib.contextmanager
    def watch(self, path: str, query: Mapping[str, str], seconds: int) -> Iterator["Watch"]:
        """Events from now on, for at most ``seconds``."""
        query = {**query, "watch": "true", "timeoutSeconds": str(seconds)}
        request = _Request("GET", path, query)
        with self._translated():
            answer = self._send(request, seconds + _SILENCE)
        try:
            self._check(request, answer)
            yield Watch(self, path, answer)
        finally:
            answer.close()

    def forward(self, request: Forwarded, path: str, most: int) -> Answer:
        """Send a request to what is behind the API server; the answer as it came, whose ever.

        How the cluster stands is neither asked nor told, as of that the answer may say anything.

        :param path: as the API server is to get it. :param most: as of ``routes.Route``.
        :raises ClusterAway: it was not sent. :raises WorkerLost: nobody knows.
        """
        api = self._connected()
        try:
            answer = self._request(
                api,
                request.method,
                path,
                request.content or None,
                request.headers,
                request.patience,
            )
            # Kept for the next request when it was read to its end.
            with contextlib.closing(answer):
                body = answer.read(most + 1, decode_content=False)
        except urllib3.exceptions.HTTPError as error:
            if _is_unsent(error):
                raise self._silent(error) from error
            raise exceptions.WorkerLost(
                f"nobody answered {request.method} {path}: {_cause(error)}"
            ) from error
        return Answer(answer.status, answer.headers.get, body)

    def _json(self, request: _Request) -> Object:
        content = self._call(request)
        with contextlib.suppress(ValueError):
            parsed = json.loads(content)
            if isinstance(parsed, dict):
                return parsed
        raise self.away(
            f"What answers is no API server: {request.method} {request.path} at {self.server()}"
        )

    def _call(self, request: _Request) -> bytes:
        with self._translated():
            answer = self._send(request, self._options.request_timeout)
            content: bytes = answer.data
        self._check(request, answer)
        return content

    def _send(self, request: _Request, timeout: float) -> urllib3.BaseHTTPResponse:
        self._standing.check()
        api = self._connected()
        path, body, headers = quote(request.path), None, {}
        if request.query:
            path = f"{path}?{urlencode(request.query)}"
        if request.body is not None:
            body, headers = json.dumps(request.body).encode(), {"Content-Type": request.kind}
        return self._request(api, request.method, path, body, headers, timeout)

    def _request(
        self,
        api: library.ApiClient,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None,
        headers: Mapping[str, str],
        timeout: float,
    ) -> urllib3.BaseHTTPResponse:
        more = {"Accept": _JSON, "User-Agent": "qinling"}
        # The library renews what it knows how to.
        if token := api.configuration.get_api_key_with_prefix("BearerToken"):
            more["Authorization"] = token
        answer: urllib3.BaseHTTPResponse = api.rest_client.pool_manager.request(
            method,
            f"{api.configuration.host.rstrip('/')}{path}",
            body=body,
            headers={**headers, **more},
            timeout=urllib3.Timeout(connect=self._options.request_timeout, read=timeout),
            # Whoever asked is asked again; a queue that knows back-off stands behind it.
            retries=False,
            redirect=False,
            preload_content=False,
        )
        return answer

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except urllib3.exceptions.HTTPError as error:
            raise self._silent(error) from error

    def _silent(self, error: urllib3.exceptions.HTTPError) -> exceptions.ClusterAway:
        return self.away(f"The cluster does not answer: {self.server()}: {_cause(error)}")

    def _check(self, request: _Request, answer: urllib3.BaseHTTPResponse) -> None:
        """:raises OrchestratorError: the answer is an error."""
        if answer.status < 400:
            return
        with self._translated():
            said = _message(answer.data)
        if answer.status == 401:
            server = self.server()
            self._forget()
            raise self.away(
                f"The cluster does not know Qinling's credentials (401): those for {server} are "
                "wrong or have expired"
            )
        if answer.status in _BUSY:
            after = answer.headers.get("Retry-After", "")
            raise self.away(
                f"The cluster cannot answer now ({answer.status}): "
                f"{request.method} {request.path}: {said}",
                answer.status,
                int(after) if after.isdigit() and len(after) < 5 else None,
            )
        raise exceptions.ClusterRefusal(said, answer.status)

    def away(
        self, message: str, status: int | None = None, retry_after: int | None = None
    ) -> exceptions.ClusterAway:
        """An error to be raised; the log tells of it."""
        return self._standing.away(exceptions.ClusterAway(message, status, retry_after))

    def well(self) -> None:
        """To be told when all that is on the cluster is followed again."""
        self._standing.well()

    def server(self) -> str:
        """Where the cluster is, for messages."""
        return "?" if self._access is None else str(self._access.api.configuration.host)

    def _connected(self) -> library.ApiClient:
        with self._lock:
            if self._access is None or self._access.outdated:
                self._access = self._connect()
            return self._access.api

    def _forget(self) -> None:
        with self._lock:
            self._access = None

    def _connect(self) -> _Access:
        """:raises ClusterAway: what says where the cluster is cannot be used, for now."""
        made, files = library.Configuration(), Files()
        try:
            keys = self._find(made, files)
            context = _context(keys)
        except (
            library_config.ConfigException,
            OSError,
            ValueError,
            TypeError,
            AttributeError,
            KeyError,
            yaml.YAMLError,
        ) as error:
            raise self._unreachable(_line(error)) from error
        if not made.host.startswith("https://"):
            raise self._unreachable(f"{made.host} is not an https address")
        if not made.verify_ssl:
            raise self._unreachable(
                "insecure-skip-tls-verify is set, and Qinling talks to no cluster without "
                "checking its certificate; give certificate-authority instead"
            )
        if not _TOKEN.fullmatch(made.api_key.get("BearerToken") or ""):
            # Not the error that sending it would raise: that one quotes it.
            raise self._unreachable("the token has characters that no token has, as line breaks")
        made.connection_pool_maxsize = self._connections
        usual = urllib3.connection.HTTPConnection.default_socket_options
        made.socket_options = [*usual, *_KEEP_ALIVE]
        try:
            api = library.ApiClient(made)
        except (OSError, ValueError) as error:
            raise self._unreachable(_line(error)) from error
        kept = api.rest_client.pool_manager.connection_pool_kw
        kept.update(ssl_context=context, ca_certs=None)
        return _Access(api, files, keys)

    def _find(self, made: library.Configuration, files: Files) -> Keys:
        """Fill in the address and what proves who Qinling is, but for certificates."""
        options = self._options
        if options.kubeconfig:
            config, keys = credentials.kubeconfig(
                files, options.kubeconfig, options.context, options.request_timeout
            )
            library_config.load_kube_config_from_dict(
                config, options.context, made, persist_config=False
            )
            return keys
        if options.url:
            made.host = options.url
            if options.token_file:
                token = files.read(options.token_file).decode().strip()
                made.api_key["BearerToken"] = f"Bearer {token}"
            authority, certificate, key = (
                files.read(path) if path else None
                for path in (options.ca_file, options.client_cert_file, options.client_key_file)
            )
            return Keys(authority, certificate, key)
        library_config.load_incluster_config(made)
        mounted = Path(made.ssl_ca_cert)
        home = mounted.with_name("namespace")
        if home.exists() and home.read_text().strip() == options.namespace:
            raise ValueError(
                f"namespace {options.namespace} is for workers, and its NetworkPolicy would cut "
                "Qinling itself off; run it in another one (etc/kubernetes/engine-in-cluster.yaml)"
            )
        return Keys(files.read(mounted))

    def _unreachable(self, why: str) -> exceptions.ClusterAway:
        """What says where the cluster is, and who Qinling is there, is of no use."""
        options = self._options
        source = "url" if options.url else "service account of this pod"
        if options.kubeconfig:
            source = f"kubeconfig {options.kubeconfig}"
        return self.away(f"The way to the cluster is not known: [kubernetes] {source}: {why}")


class Watch:
    """The events of one watch; ``close`` from any thread ends it."""

    def __init__(self, client: Client, path: str, answer: urllib3.BaseHTTPResponse) -> None:
        self._client = client
        self._path = path
        self._answer = answer

    def __iter__(self) -> Iterator[Object]:
        """Each event, until the server ends the watch.

        :raises ClusterAway: it was cut, or what came is no event.
        """
        left = b""
        with self._client._translated():
            for piece in self._answer.stream(65536):
                *lines, left = (left + piece).split(b"\n")
                for line in lines:
                    event = _event(line)
                    if event is None:
                        raise self._client.away(f"A watch brought what is no event: {self._path}")
                    yield event
        if left:
            raise self._client.away(f"A watch was cut within an event: {self._path}")

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._answer.shutdown()


def _context(keys: Keys) -> ssl.SSLContext:
    """:raises ValueError: they cannot be used."""
    context = urllib3.util.ssl_.create_urllib3_context()
    try:
        if keys.authority is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(cadata=keys.authority.decode("ascii", "ignore"))
    except ssl.SSLError as error:
        raise ValueError(f"the certificate authority cannot be used: {error}") from error
    if keys.certificate is not None:
        # It takes them from files alone; with no password it would ask the terminal for one.
        with tempfile.TemporaryDirectory(prefix="qinling-") as folder:
            pair = Path(folder, "pair.pem")
            pair.touch(mode=0o600)
            pair.write_bytes(b"\n".join((keys.certificate, keys.key or b"", b"")))
            try:
                context.load_cert_chain(pair, password="")  # nosec B106
            except ssl.SSLError as error:
                raise ValueError(
                    f"the client certificate and its key cannot be used: {error}"
                ) from error
    return context


def _event(line: bytes) -> Object | None:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        event = json.loads(line)
        if isinstance(event["object"], dict) and isinstance(event["type"], str):
            return dict(event)
    return None


def _message(content: bytes) -> str:
    """What a ``Status`` says, or the beginning of whatever it is."""
    try:
        status = json.loads(content)
        return str(status["message"])
    except (ValueError, KeyError, TypeError):
        return _line(content[:_LONGEST_TEXT].decode(errors="replace")) or "it does not say why"


def _is_unsent(error: urllib3.exceptions.HTTPError) -> bool:
    """Whether there was no connection yet that the request could have been sent on."""
    if isinstance(error, urllib3.exceptions.SSLError):
        return any(isinstance(one, ssl.SSLCertVerificationError) for one in error.args)
    return isinstance(
        error,
        urllib3.exceptions.NewConnectionError
        | urllib3.exceptions.ConnectTimeoutError
        | urllib3.exceptions.ProxyError,
    )


def _cause(error: BaseException) -> str:
    """The innermost words of an error: urllib3 wraps them in its own."""
    inner = getattr(error, "reason", None)
    if isinstance(inner, BaseException):
        return _cause(inner)
    if isinstance(error, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ProtocolError):
        cause = error.__cause__ or error.__context__
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    return _line(error)


def _line(error: object) -> str:
    return " ".join(str(error).split())
