"""Asking one worker how it is."""

import asyncio
import contextlib
import json

_MAX_ANSWER = 64 * 1024
# Characters of what a worker said that go into a reason.
_MAX_QUOTE = 80


async def ask(port: int, worker_id: str) -> str | None:
    """None if the worker says that it is ready and who we think it is, else what is wrong.

    Takes as long as the worker does: a socket that listens already keeps us
    waiting until somebody serves it.
    """
    try:
        answer = await _get_health(port)
    except ConnectionRefusedError:
        return "it has closed its socket"
    except OSError as error:
        return f"the connection to it broke: {error.strerror or error}"
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if not answer:
        return "it closed the connection without an answer"
    if len(words) < 2 or not words[0].startswith(b"HTTP/"):
        return "it does not speak HTTP"
    if words[1] != b"200":
        return f"it answered {_quote(words[1].decode(errors='replace'))}"
    return _judge(body, worker_id)


def _judge(body: bytes, worker_id: str) -> str | None:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        return "it answered with something other than a JSON object"
    if told.get("worker_id") != worker_id:
        return f"it answered as worker {_quote(str(told.get('worker_id')))}"
    if told.get("status") != "ready":
        return f"it says that it is {_quote(str(told.get('status')))}"
    return None


async def _get_health(port: int) -> bytes:
    """The whole answer, or as much of it as anybody may send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /healthz HTTP/1.0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        answer = b""
        while len(answer) < _MAX_ANSWER and (more := await reader.read(_MAX_ANSWER)):
            answer += more
        return answer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _quote(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:_MAX_QUOTE])
