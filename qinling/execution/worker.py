"""Talking to one worker.

Each call says whether the worker may have run something: an error that means
"not run" allows another worker, any other one does not. Nothing that a worker
answers is taken on trust: the image may be anybody's.
"""

import base64
import collections
import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from qinling import exceptions
from qinling.conf.execution import MAX_KEPT
from qinling.orchestrator import routes
from qinling.worker import channel, signing
from qinling.worker.channel import encode as encode
from qinling.worker.function import DEPTH, Unsigned
from qinling.worker.function import ENTRY as ENTRY
from qinling.worker.function import EXHAUSTED as EXHAUSTED
from qinling.worker.function import TIMEOUT as TIMEOUT

# Bytes of an answer: a result and a log, each as long as they may be, in JSON.
_MAX_ANSWER = 64 * 1024 * 1024
# How much longer an output may become when it is written anew: 1e15 has as many zeros then.
_GROWTH = 5
# Characters of what a worker says about an error, and of a boot id.
_MAX_WORDS = 200
_MAX_BOOT_ID = 64
# Seconds of a run; an integer may be larger than any float.
_MAX_DURATION = 1e9
# Ids that are kept to be acknowledged: of a request, most have one or a few.
_ACKNOWLEDGED = 100
# Seconds for anything but the run of a function.
_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: ``success``, ``failed`` or ``cancelled``."""

    status: str
    output: Any
    duration: float
    log: str


class WorkerClient:
    """One claimed worker. Safe to use from several threads.

    Whoever is on the way to it may refuse, too: that is an ``OrchestratorError``, and nothing was
    run.

    :param boot_id: of the server that was loaded; None before that.
    :param key: what requests and answers are signed with.
    """

    def __init__(
        self,
        worker_id: str,
        route: routes.Route,
        key: bytes,
        revision: int,
        boot_id: str | None = None,
    ) -> None:
        self.id = worker_id
        self._route = route
        self._key = key
        self._revision = revision
        self._boot_id = boot_id
        self._recorded: collections.deque[str] = collections.deque(maxlen=_ACKNOWLEDGED)

    def close(self) -> None:
        self._route.close()

    def meet(self) -> str:
        """The boot id of a worker that is to be loaded: it tells this start of its server from
        the next.

        :raises WorkerGone: it is not the one that was claimed.
        :raises WorkerLost, WorkerBroken: it does not say.
        """
        status, healthy = self._exchange("GET", "/healthz", b"", {}, _PATIENCE)
        if (status, healthy.get("worker_id"), healthy.get("status")) != (200, self.id, "ready"):
            told = ascii({name: healthy.get(name) for name in ("worker_id", "status")})
            raise exceptions.WorkerGone(f"{self._route} answers {status} {told[:_MAX_WORDS]}")
        boot_id = healthy.get("boot_id")
        if not (
            isinstance(boot_id, str) and boot_id.isascii() and 0 < len(boot_id) <= _MAX_BOOT_ID
        ):
            raise exceptions.WorkerBroken(f"worker {self.id} answers with no usable boot_id")
        return boot_id

    def load(
        self,
        boot_id: str,
        function: Mapping[str, Any],
        package: Iterable[bytes],
        size: int,
        patience: float,
    ) -> None:
        """Give the worker its function, and its key with it. Again is no matter.

        :param boot_id: of the server that is to have it.
        :param function: what ``/specialize`` takes, but for the worker's identity and key.
        :param package: sent piece by piece; it may be large. :param size: bytes of all of it.
        :raises WorkerGone: it is not the one that was claimed.
        :raises FunctionRefused: neither it nor another one takes this function.
        :raises WorkerLost, WorkerBroken: it does not take it. What ``package`` raises is raised,
            and the worker has no function then.
        """
        metadata = {
            **function,
            "worker_id": self.id,
            "boot_id": boot_id,
            "revision": self._revision,
            "key": self._key.hex(),
        }
        headers = {
            "Content-Type": "application/zip",
            # Without it the pieces are sent as chunks.
            "Content-Length": str(size),
            "Qinling-Function": base64.b64encode(json.dumps(metadata).encode()).decode(),
        }
        status, answer = self._exchange("POST", "/specialize", package, headers, patience)
        if status in (409, 421):
            raise exceptions.WorkerGone(_words(answer))
        if status == 400:
            raise exceptions.FunctionRefused(f"its runtime does not take it: {_words(answer)}")
        if status != 200:
            raise exceptions.WorkerLost(f"/specialize answered {status}: {_words(answer)}")

    def execute(self, execution_id: str, text: str | None, timeout: float) -> Outcome:
        """Run the function, or join its run, or take its result, by the execution's id.

        :param text: the execution's input. :param timeout: the function's (seconds).
        :raises WorkerGone, WorkerBusy: it was not run. :raises WorkerLost: ask ``result``.
        :raises WorkerBroken: its answer makes no sense.
        """
        body = {
            "worker_id": self.id,
            "boot_id": self._boot_id,
            "revision": self._revision,
            "execution_id": execution_id,
            "input": text,
            "timeout": timeout,
            "acknowledged": self._take_recorded(),
        }
        status, answer = self._signed("POST", "/execute", body, timeout + _PATIENCE)
        if status in (410, 421):
            raise exceptions.WorkerGone(_words(answer))
        if status == 429:
            raise exceptions.WorkerBusy(f"worker {self.id} is busy")
        return self._outcome(execution_id, status, answer)

    def result(self, execution_id: str) -> Outcome | None:
        """How an execution ended; None while it runs.

        :raises WorkerGone: the worker, or its memory of this execution, is gone, or, as
            ``WorkerAway``, may be.
        :raises WorkerLost: it does not answer. :raises WorkerBroken: not with sense.
        """
        status, answer = self._signed("GET", f"/executions/{execution_id}", None, _PATIENCE)
        if status == 202:
            return None
        if status == 404:
            raise exceptions.WorkerGone(f"worker {self.id} knows nothing of it")
        return self._outcome(execution_id, status, answer)

    def acknowledge(self, execution_id: str) -> None:
        """Its end is written down: the worker is told so with the next execution that it gets."""
        self._recorded.append(execution_id)

    def _take_recorded(self) -> list[str]:
        # Lost with a request that is lost: such an answer goes when others need its room.
        found: list[str] = []
        with contextlib.suppress(IndexError):
            while True:
                found.append(self._recorded.popleft())
        return found

    def drain(self) -> None:
        """Have it end, and keep no answer: all that was sent to it has ended and is written down.

        :raises WorkerError: there is nobody to be told.
        """
        self._signed("POST", "/drain", {"acknowledged": True}, _PATIENCE)

    def cancel(self, execution_id: str) -> None:
        """Stop an execution where it runs.

        :raises WorkerError: there is nobody to be told.
        """
        self._signed("DELETE", f"/executions/{execution_id}", None, _PATIENCE)

    def _outcome(self, execution_id: str, status: int, answer: Mapping[str, Any]) -> Outcome:
        if status != 200:
            raise exceptions.WorkerLost(f"worker {self.id} answered {status}: {_words(answer)}")
        match answer:
            case {
                "execution_id": str(found),
                "status": "success" | "failed" | "cancelled" as ended,
                "output": output,
                "duration": int() | float() as duration,
                "log": str(log),
            } if found == execution_id and 0 <= duration < _MAX_DURATION:
                return Outcome(ended, output, float(duration), log)
        raise self._broken("what is no result")

    def _broken(self, what: str) -> exceptions.WorkerBroken:
        return exceptions.WorkerBroken(f"worker {self.id} answered {what}")

    def _signed(
        self, method: str, path: str, body: Mapping[str, Any] | None, patience: float
    ) -> tuple[int, dict[str, Any]]:
        content = b"" if body is None else json.dumps(body).encode()
        return self._exchange(method, path, content, None, patience)

    def _exchange(
        self,
        method: str,
        path: str,
        content: bytes | Iterable[bytes],
        headers: dict[str, str] | None,
        patience: float,
    ) -> tuple[int, dict[str, Any]]:
        """One request, signed unless it has headers of its own, as one that comes in pieces.

        Only what is signed is the worker's for certain.
        """
        signed = headers is None
        if headers is None:
            assert isinstance(content, bytes)
            headers = signing.sign_request(self._key, method, path, content)
        request = routes.Request(method, path, content, headers, patience)
        answer = self._route.send(request, _MAX_ANSWER)
        if len(answer.body) > _MAX_ANSWER:
            raise self._broken(f"more than {_MAX_ANSWER} bytes")
        if signed:
            self._check(answer, headers[signing.NONCE])
        else:
            self._route.judge(answer)
        return answer.status, self._parse(answer.body)

    def _check(self, answer: routes.Answer, nonce: str) -> None:
        """:raises WorkerGone, WorkerLost, OrchestratorError: the answer is not the worker's."""
        try:
            signing.check_answer(self._key, answer.status, nonce, answer.header, answer.body)
        except Unsigned as error:
            self._route.judge(answer)
            if answer.status == 401:
                # It was not loaded with this key: it started anew, or is another one.
                raise exceptions.WorkerGone(f"worker {self.id} does not know its key") from error
            raise exceptions.WorkerLost(f"worker {self.id}: {error}") from error

    def _parse(self, body: bytes) -> dict[str, Any]:
        """The JSON object of an answer, in which all text can be kept."""
        if not body:
            return {}
        if channel.is_deep(body, DEPTH + 1):
            raise self._broken("JSON that is nested too deep")
        try:
            parsed = channel.decode(body)
        except (ValueError, RecursionError):
            raise self._broken("what is no JSON") from None
        if not isinstance(parsed, dict):
            raise self._broken("what is no JSON object")
        if b"\\u" in body and isinstance(parsed.get("log"), str):
            # Half a surrogate pair is no character.
            parsed["log"] = parsed["log"].encode(errors="replace").decode()
        if len(body) * _GROWTH > MAX_KEPT:
            if _size_of_json(parsed.get("output")) > MAX_KEPT:
                raise self._broken("with more output than can be kept")
            if len(str(parsed.get("log")).encode()) > MAX_KEPT:
                raise self._broken("with more log than can be kept")
        return parsed


def _size_of_json(found: Any) -> int:
    """Bytes of it at its shortest."""
    try:
        return len(json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode())
    except UnicodeEncodeError:
        # Half a surrogate pair: all that is not ASCII is escaped then.
        return len(json.dumps(found, separators=(",", ":")))


def _words(answer: Mapping[str, Any]) -> str:
    """What a worker says about an error."""
    return ascii(answer.get("error"))[:_MAX_WORDS]
