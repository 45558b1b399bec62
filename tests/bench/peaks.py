"""What the largest things that come and go cost an API's memory: it has no more than pieces."""

import io
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench import report
from tests.bench.report import Figure
from tests.bench.rows import CALLER, Table
from tests.bench.site import Site, say
from tests.fixtures.deployment import Client, Deployment, Distributed

_AT_ONCE = 8
_SIZE = 50 * 1000**2
_ROWS = 300
_MB = 1_000_000


def uploads(site: Site) -> Iterator[Figure]:
    """Eight packages of 50 MB at once, the first that it gets."""
    installation = site.distributed()
    client = installation.client
    runtime = client.create()
    client.wait_for(runtime["id"], "available")
    package = _package()
    say("measuring memory during uploads")
    note = f"{_AT_ONCE} of {_SIZE // _MB} MB at once"

    def upload() -> None:
        _upload(installation, runtime["id"], package)

    yield _grown("uploads", note, installation, upload, 60)
    client.delete(runtime["id"])
    client.wait_gone(runtime["id"])


def listing(site: Site) -> Iterator[Figure]:
    """A list of executions with results of 1 MB each, read by eight at once.

    On its way from the database to the client each is in memory about ten times.
    """
    installation = site.distributed()
    table = Table(site.mariadb, installation.database, "executions")
    table.fill(_ROWS, project_id=f"'{CALLER}'", size="1000000", result="REPEAT('x', 1000000)")

    def read(_number: int) -> None:
        answer = Client(installation.url).call("GET", "/v1/executions", stream=True)
        size = sum(len(piece) for piece in answer.iter_content(65536))
        assert size > _ROWS * _MB

    def read_all() -> None:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(read, range(_AT_ONCE)))

    say("measuring memory during lists")
    note = f"{_AT_ONCE} lists of {_ROWS} executions of 1 MB at once"
    yield _grown("lists", note, installation, read_all, 100)
    table.clear()


def _grown(
    what: str,
    note: str,
    installation: Distributed,
    work: Callable[[], object],
    allowed: float,
) -> Figure:
    """The peak of the API's memory during some work, over what it has before."""
    before = _status(installation.api.pid, "VmRSS")
    # Of proc(5): the peak is counted anew.
    Path(f"/proc/{installation.api.pid}/clear_refs").write_text("5")
    work()
    grown = _status(installation.api.pid, "VmHWM") - before
    note = f"{note}; {before:.0f} MB before"
    return report.at_most(f"API's memory during {what}", [grown], allowed, "MB", note=note)


def _package() -> bytes:
    """A zip that cannot be packed any smaller."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as made:
        made.writestr("main.py", "def main(): pass")
        made.writestr("data", os.urandom(_SIZE))
    return content.getvalue()


def _upload(installation: Deployment, runtime_id: str, package: bytes) -> None:
    """Create functions with a package of their own each, and delete them."""

    def upload(number: int) -> None:
        client = Client(installation.url)
        form = {"runtime_id": runtime_id, "code": '{"source": "package"}'}
        # The comment at a zip's end makes another package of it.
        comment = b"%02d" % number
        own = package[:-2] + len(comment).to_bytes(2, "little") + comment
        answer = client.call("POST", "/v1/functions", data=form, files={"package": own})
        assert answer.status_code == 201, answer.text
        answer = client.call("DELETE", f"/v1/functions/{answer.json()['id']}")
        assert answer.status_code == 204, answer.text

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(upload, range(_AT_ONCE)))


def _status(pid: int, name: str) -> float:
    """MB (10⁶ bytes), of what /proc knows of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / _MB
