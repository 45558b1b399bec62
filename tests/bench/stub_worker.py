"""A worker that stands for many: it takes every execution, and ends all of them when it is told.

A program of its own. It prints how many it has, once a second, and answers them at SIGUSR1. What it
is asked is not checked; its answers are signed.
"""

import argparse
import asyncio
import json
import signal

from qinling.worker import signing


class Stub:
    def __init__(self, key: bytes) -> None:
        self._key = key
        self.open = 0
        self.told = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Requests of one connection, each with a body, one after the other."""
        while head := await _head(reader):
            asked = json.loads(await reader.readexactly(int(head["content-length"])))
            self.open += 1
            await self.told.wait()
            self.open -= 1
            answer = {
                "execution_id": asked["execution_id"],
                "status": "success",
                "output": "done",
                "duration": 1.0,
                "log": "",
            }
            body = json.dumps(answer).encode()
            nonce = head[signing.NONCE.lower()]
            signature = signing.sign_answer(self._key, 200, nonce, body)
            writer.write(
                f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n"
                f"{signing.SIGNATURE}: {signature}\r\n\r\n".encode()
                + body
            )
            await writer.drain()


async def _head(reader: asyncio.StreamReader) -> dict[str, str]:
    """A request's headers; none at the end of the connection."""
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:]
    except (asyncio.IncompleteReadError, ConnectionError):
        return {}
    headers = (line.partition(":") for line in lines if line)
    return {name.lower(): value.strip() for name, _, value in headers}


async def run(port: int, key: bytes) -> None:
    stub = Stub(key)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, stub.told.set)
    await asyncio.start_server(stub.serve, "127.0.0.1", port, backlog=1000)
    while True:
        print(f"open: {stub.open}", flush=True)
        await asyncio.sleep(1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.stub_worker", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", required=True, help="hexadecimal; of no worth")
    arguments = parser.parse_args()
    asyncio.run(run(arguments.port, bytes.fromhex(arguments.key)))


if __name__ == "__main__":
    main()
