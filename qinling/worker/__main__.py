"""Runs one worker until it is told to end.

The environment: ``QINLING_WORKER_ID``, the name that the orchestrator gave it;
``QINLING_WORKER_LISTEN_FD``, an inherited listening socket, or else it listens
on ``QINLING_WORKER_PORT`` (9090) of ``QINLING_WORKER_HOST``, or of all addresses;
``QINLING_WORKER_KEY_DIGEST``, the SHA-256 of the only key that it takes; any without it;
``QINLING_WORKER_LIFELINE_FD``,
a pipe whose end of file means that the worker's owner is gone, unless a byte
came before it.

Run as ``python -I -S …/qinling/worker``: without the site packages, which belong
to the control plane on its own host and are none of a function's business.
"""

import os
import signal
import socket
import sys

if not __package__:
    # Run as a folder: found from where the package is, for this import alone.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from qinling.worker import zygote

    del sys.path[0]
else:
    from qinling.worker import zygote

DEFAULT_PORT = 9090


def listener() -> socket.socket:
    descriptor = os.environ.get("QINLING_WORKER_LISTEN_FD")
    if descriptor is not None:
        return socket.socket(fileno=int(descriptor))
    port = int(os.environ.get("QINLING_WORKER_PORT", DEFAULT_PORT))
    host = os.environ.get("QINLING_WORKER_HOST", "")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def follow_lifeline(descriptor: int) -> None:
    """Exit at once when the owner dies without having let go of this worker."""
    if not os.read(descriptor, 1):
        os._exit(0)
    os.close(descriptor)


def _folder() -> str:
    """Where the function will be; nobody can be there before, as nobody knows the name."""
    place = os.environ.get("TMPDIR", "/tmp")  # noqa: S108  # nosec B108
    return f"{place}/qinling-{os.urandom(16).hex()}"


def main() -> int:
    worker_id = os.environ.get("QINLING_WORKER_ID", "")
    if not worker_id:
        print("QINLING_WORKER_ID is not set: it names this worker.", file=sys.stderr)
        return 2
    # Before anything else: it has as little of this process as there can be, and no thread.
    clean = zygote.CleanZygote(_folder())
    from qinling.worker import server

    lifeline = os.environ.get("QINLING_WORKER_LIFELINE_FD")
    if lifeline is not None:
        import threading

        threading.Thread(target=follow_lifeline, args=(int(lifeline),), daemon=True).start()
    key_digest = os.environ.get("QINLING_WORKER_KEY_DIGEST")
    worker = server.WorkerServer(listener(), worker_id, clean, key_digest)
    signal.signal(signal.SIGTERM, lambda *_: worker.drain())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return worker.run()


if __name__ == "__main__":
    sys.exit(main())
