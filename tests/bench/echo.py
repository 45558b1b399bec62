"""The floor of a worker: ``http.server``, and forked processes that echo what a pipe brings.

A program of its own, run as a worker is, without site packages: ``echo.py PORT PROCESSES``.
"""

import os
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_CHUNK = 65536
_ends: list[socket.socket] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        end = _ends.pop()
        end.sendall(self.rfile.read(int(self.headers["Content-Length"])))
        body = end.recv(_CHUNK)
        _ends.append(end)
        self.wfile.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body)
        )

    def log_message(self, *_: object) -> None:
        pass


def _echo(end: socket.socket) -> None:
    while found := end.recv(_CHUNK):
        end.sendall(found)
    os._exit(0)


def main(port: str, processes: str) -> None:
    for _ in range(int(processes)):
        ours, theirs = socket.socketpair()
        if os.fork() == 0:
            ours.close()
            _echo(theirs)
        theirs.close()
        _ends.append(ours)
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
