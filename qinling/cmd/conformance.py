"""``qinling-conformance``: does a server keep the contract of a worker?

For whoever builds an image for a runtime. It starts the server as Qinling does,
asks it what Qinling asks, ends it as Qinling does, and says of each point
whether it was met. The contract is doc/source/admin/runtime-image.rst, which
also says what the function does that is run.
"""

import argparse
import contextlib
import http.client
import json
import shlex
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from qinling.cmd.conformance_server import (
    BROKEN,
    CONCURRENCY,
    END,
    GOOD,
    HOST,
    TIMEOUT,
    Broken,
    Program,
    Server,
    pack,
    read,
)
from qinling.worker import signing


def is_healthy(server: Server) -> None:
    """``GET /healthz`` is 200 when it is ready, with worker_id, boot_id and status."""
    health = server.wait_ready()
    if health.get("worker_id") != server.worker_id:
        raise Broken(
            f"worker_id is {health.get('worker_id')!r} and not QINLING_WORKER_ID, "
            f"{server.worker_id!r}"
        )
    if health.get("status") != "ready":
        raise Broken(f"status is {health.get('status')!r} and not 'ready'")
    if not (isinstance(health.get("boot_id"), str) and health["boot_id"]):
        raise Broken("boot_id is missing: it tells one start of the server from the next")


def keeps_boot_id(server: Server) -> None:
    """boot_id stays the same while it runs."""
    if server.wait_ready()["boot_id"] != server.ask("GET", "/healthz")[1]["boot_id"]:
        raise Broken("boot_id was another one at the second question")


def keeps_connections(server: Server) -> None:
    """Connections are kept open between two requests (HTTP/1.1)."""
    server.wait_ready()
    connection = http.client.HTTPConnection(HOST, server.port, timeout=END)
    with contextlib.closing(connection):
        connection.connect()
        first = connection.sock
        for _ in range(2):
            connection.request("GET", "/healthz")
            read(connection)
            if connection.sock is not first:
                raise Broken("the connection was closed after an answer")


def answers_beside_the_silent(server: Server) -> None:
    """A client that connects and says nothing keeps no other one waiting."""
    server.wait_ready()
    with contextlib.ExitStack() as silent:
        for _ in range(8):
            silent.enter_context(socket.create_connection((HOST, server.port), END))
        if server.ask("GET", "/healthz")[0] != 200:
            raise Broken("it is not healthy while others are connected")


def refuses_the_unknown(server: Server) -> None:
    """What it does not know is 404."""
    server.wait_ready()
    status, _ = server.ask("GET", "/nothing/of/the/kind")
    if status != 404:
        raise Broken(f"it answers {status}")


def drains(server: Server) -> None:
    """``POST /drain`` is 202, and an idle server ends then, with code 0."""
    server.wait_ready()
    status, _ = server.ask("POST", "/drain")
    if status != 202:
        raise Broken(f"it answers {status}")
    server.wait_end()


def ends_on_sigterm(server: Server) -> None:
    """An idle server ends on SIGTERM, with code 0."""
    server.wait_ready()
    server.process.terminate()
    server.wait_end()


def is_another_boot(server: Server) -> None:
    """Each start has a boot_id of its own."""
    with contextlib.closing(Server(server.program, b"")) as other:
        if server.wait_ready()["boot_id"] == other.wait_ready()["boot_id"]:
            raise Broken("two starts had the same boot_id")


def takes_a_function(server: Server) -> None:
    """``POST /specialize`` takes a function, and answers the same one again as before."""
    first = server.specialize()
    expect(first, 200, worker_id=server.worker_id, imported=True, error=None)
    if server.specialize() != first:
        raise Broken("the same function again is answered otherwise")
    expect(server.specialize(revision=2), 409)


def refuses_what_is_no_function(server: Server) -> None:
    """A function for another worker is 421; one without an entry, or no zip, is 400."""
    server.wait_ready()
    expect(server.specialize(boot_id="another"), 421)
    expect(server.specialize(worker_id="another"), 421)
    expect(server.specialize(entry=None), 400)
    expect(server.specialize(b"no zip"), 400)
    expect(server.specialize(), 200)


def tells_of_a_broken_import(server: Server) -> None:
    """A function that cannot be imported is taken, and each of its executions has failed."""
    status, answer = server.specialize(pack(BROKEN))
    expect((status, answer), 200, imported=False)
    told = server.run({"do": "print"}, status="failed")
    if "as asked" not in told["log"]:
        raise Broken("the log has no traceback of the import")


def is_asked_by_its_own(server: Server) -> None:
    """From then on what is not signed with the key, or was seen before, is 401."""
    expect(server.specialize(), 200)
    body = json.dumps(server.request({"do": "print"})).encode()
    for headers in ({}, signing.sign_request(bytes(signing.KEY_SIZE), "POST", "/execute", body)):
        expect(server.ask("POST", "/execute", body, headers), 401)
    expect(server.ask("POST", "/drain", b"", {}), 401)
    key = bytes.fromhex(server.order["key"])
    headers = signing.sign_request(key, "POST", "/execute", body)
    expect(server.ask("POST", "/execute", body, headers), 200)
    expect(server.ask("POST", "/execute", body, headers), 401)


def executes(server: Server) -> None:
    """``POST /execute`` runs the function, and answers what it returned and printed."""
    expect(server.specialize(), 200)
    told = server.run({"do": "print", "text": "é"}, status="success", output="é")
    if told["log"] != "print\n":
        raise Broken(f"the log is {told['log']!r} and not what was printed")
    if not isinstance(told.get("duration"), int | float):
        raise Broken("duration is missing")


def tells_of_a_failure(server: Server) -> None:
    """What the function raises is its output; ``failed``, with a traceback in the log."""
    expect(server.specialize(), 200)
    told = server.run({"do": "raise", "text": "words"}, status="failed")
    if "words" not in str(told["output"]) or "words" not in told["log"]:
        raise Broken("what was raised is not in output and log")


def ends_what_takes_too_long(server: Server) -> None:
    """What runs past its timeout is ended and told, and the function is served still."""
    expect(server.specialize(), 200)
    told = server.run({"do": "print", "seconds": 600}, status="failed")
    if "Function execution timeout" not in str(told["output"]) or told["duration"] < TIMEOUT:
        raise Broken(f"it is told as {told['output']!r}, after {told['duration']} s")
    server.run({"do": "print", "text": "on"}, status="success", output="on")


def refuses_more_than_it_may_run(server: Server) -> None:
    """More than ``concurrency`` at once is 429; of another revision or boot, 421. None is run."""
    expect(server.specialize(), 200)
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        running = [server.request({"do": "print", "seconds": 1}) for _ in range(CONCURRENCY)]
        asked = [pool.submit(server.execute, request) for request in running]
        for request in running:
            server.wait_for(f"/executions/{request['execution_id']}", 202)
        refused = server.request({"do": "print"})
        expect(server.execute(refused), 429)
        expect(server.execute(server.request({}, revision=2)), 421)
        expect(server.execute(server.request({}, boot_id="another")), 421)
        for each in asked:
            expect(each.result(), 200, status="success")
    expect(server.ask("GET", f"/executions/{refused['execution_id']}"), 404)


def knows_executions(server: Server) -> None:
    """An execution is known by its id until it is acknowledged, and never run twice."""
    expect(server.specialize(), 200)
    request = server.request({"do": "print", "seconds": 0.5})
    path = f"/executions/{request['execution_id']}"
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(server.execute, request) for _ in range(2)]
        expect((202, server.wait_for(path, 202)), 202, status="running")
        answers = [each.result() for each in asked]
    answers += [server.execute(request), server.ask("GET", path)]
    if any(answer != answers[0] for answer in answers):
        raise Broken("the same execution was answered in different ways")
    for _ in range(2):
        expect(server.ask("DELETE", path), 204)
    expect(server.ask("GET", path), 404)


def forgets_what_is_acknowledged(server: Server) -> None:
    """``acknowledged`` in ``/execute`` are executions that are forgotten, if they have ended."""
    expect(server.specialize(), 200)
    ended, running = server.request({"do": "print"}), server.request({"do": "print", "seconds": 1})
    expect(server.execute(ended), 200)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.execute, running)
        server.wait_for(f"/executions/{running['execution_id']}", 202)
        ids = [ended["execution_id"], running["execution_id"], "nobody's"]
        expect(server.execute(server.request({"do": "print"}, acknowledged=ids)), 200)
        expect(server.ask("GET", f"/executions/{ended['execution_id']}"), 404)
        expect(asked.result(), 200, status="success")
    expect(server.ask("GET", f"/executions/{running['execution_id']}"), 200)


def cancels(server: Server) -> None:
    """``DELETE`` of a running execution ends it: ``cancelled``."""
    expect(server.specialize(), 200)
    request = server.request({"do": "print", "seconds": 600})
    path = f"/executions/{request['execution_id']}"
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.execute, request)
        server.wait_for(path, 202)
        expect(server.ask("DELETE", path), 204)
        expect(asked.result(), 200, status="cancelled")


def cancels_what_comes_later(server: Server) -> None:
    """``DELETE`` of an execution that has not come yet: it is not run, and ``cancelled``."""
    expect(server.specialize(), 200)
    request = server.request({"do": "print"})
    expect(server.ask("DELETE", f"/executions/{request['execution_id']}"), 204)
    expect(server.execute(request), 200, status="cancelled", log="")


def drains_when_it_is_done(server: Server) -> None:
    """Draining, it ends what is in flight, takes no more (410), is healthy, and exits with 0."""
    expect(server.specialize(), 200)
    request = server.request({"do": "print", "seconds": 1})
    path = f"/executions/{request['execution_id']}"
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.execute, request)
        server.wait_for(path, 202)
        expect(server.ask("POST", "/drain"), 202)
        expect(server.execute(server.request({})), 410)
        expect(server.ask("GET", "/healthz", headers={}), 200, status="draining")
        expect(asked.result(), 200, status="success")
    expect(server.ask("GET", path), 200, status="success")
    expect(server.ask("DELETE", path), 204)
    server.wait_end()


def drains_at_once(server: Server) -> None:
    """Told with ``/drain`` that all is acknowledged, it keeps no result."""
    expect(server.specialize(), 200)
    request = server.request({"do": "print"})
    expect(server.execute(request), 200)
    expect(server.ask("POST", "/drain", json.dumps({"acknowledged": True}).encode()), 202)
    # It may have ended by now.
    with contextlib.suppress(OSError, http.client.HTTPException):
        expect(server.ask("GET", f"/executions/{request['execution_id']}"), 404)
    server.wait_end()


def expect(answer: tuple[int, Any], status: int, /, **fields: Any) -> None:
    """:raises Broken: the answer has another status, or something else in a field."""
    found, content = answer
    if found != status:
        raise Broken(f"it answers {found} and not {status}: {content}")
    for name, value in fields.items():
        if not isinstance(content, dict) or content.get(name) != value:
            raise Broken(f"{name} is not {value!r}: {content}")


POINTS: tuple[Callable[[Server], None], ...] = (
    is_healthy,
    keeps_boot_id,
    is_another_boot,
    keeps_connections,
    answers_beside_the_silent,
    refuses_the_unknown,
    drains,
    ends_on_sigterm,
    takes_a_function,
    refuses_what_is_no_function,
    tells_of_a_broken_import,
    is_asked_by_its_own,
    executes,
    tells_of_a_failure,
    ends_what_takes_too_long,
    refuses_more_than_it_may_run,
    knows_executions,
    forgets_what_is_acknowledged,
    cancels,
    cancels_what_comes_later,
    drains_when_it_is_done,
    drains_at_once,
)


def verdicts(
    points: Iterable[Callable[[Server], None]], program: Program, package: bytes
) -> Iterator[tuple[str, str | None]]:
    """Each point of the contract, and what is wrong with it or None."""
    for point in points:
        words = (point.__doc__ or point.__name__).strip()
        try:
            with contextlib.closing(Server(program, package)) as server:
                point(server)
        except Broken as error:
            yield words, str(error)
        except (OSError, http.client.HTTPException, KeyError, TypeError) as error:
            yield words, f"{type(error).__name__}: {error}"
        else:
            yield words, None


def main() -> int:
    parser = argparse.ArgumentParser(prog="qinling-conformance", description=__doc__)
    parser.add_argument(
        "command",
        help="what starts the server, split as a shell splits words; with --image what runs "
        "containers: docker or podman",
    )
    parser.add_argument("--image", help="an image that starts the server, to be run as in a pod")
    parser.add_argument(
        "--startup", type=float, default=30.0, help="seconds until it must be ready (%(default)s)"
    )
    parser.add_argument(
        "--package",
        type=Path,
        help="a zip with the function in the server's language; needed for none of Python "
        "and JavaScript",
    )
    names = {point.__name__: point for point in POINTS}
    parser.add_argument(
        "--only",
        action="append",
        choices=names,
        metavar="POINT",
        help=f"check this alone; may be given again ({', '.join(names)})",
    )
    arguments = parser.parse_args()
    points = [names[name] for name in arguments.only or names]
    package = arguments.package.read_bytes() if arguments.package else pack(GOOD)
    program = Program(shlex.split(arguments.command), arguments.startup, arguments.image)
    broken = 0
    for words, fault in verdicts(points, program, package):
        print(f"{'ok    ' if fault is None else 'BROKEN'}  {words}")
        if fault is not None:
            broken += 1
            print(f"        {fault}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
