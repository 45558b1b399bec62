"""What uploads of large packages cost an API's memory: they go to the store as they come."""

import io
import os
import re
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench import report
from tests.bench.report import Figure
from tests.bench.site import Site, say
from tests.fixtures.deployment import Client, Deployment

_AT_ONCE = 8
_SIZE = 50 * 1000**2
_MB = 1_000_000


def uploads(site: Site) -> Iterator[Figure]:
    """Eight packages of 50 MB at once, the first that it gets."""
    installation = site.distributed()
    client = installation.client
    runtime = client.create()
    client.wait_for(runtime["id"], "available")
    package = _package()
    say("measuring memory during uploads")
    before = _status(installation.api.pid, "VmRSS")
    # Of proc(5): the peak is counted anew.
    Path(f"/proc/{installation.api.pid}/clear_refs").write_text("5")
    _upload(installation, runtime["id"], package)
    grown = _status(installation.api.pid, "VmHWM") - before
    note = f"{_AT_ONCE} of {_SIZE // _MB} MB at once; {before:.0f} MB before"
    yield report.at_most("API's memory during uploads", [grown], 60, "MB", note=note)
    client.delete(runtime["id"])
    client.wait_gone(runtime["id"])


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
