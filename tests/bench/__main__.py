"""``python -m tests.bench``: measure, print the table, write the JSON.

Exit code 1 when a goal is missed, or something could not be measured.
"""

import argparse
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench import (
    calls,
    carry,
    executions,
    kubernetes,
    load,
    overload,
    owners,
    pages,
    peaks,
    pools,
    report,
    resync,
    start,
    worker,
)
from tests.bench.report import Figure
from tests.bench.site import Site

#: In this order: first what is disturbed most by what others leave behind.
FIGURES: dict[str, Callable[[Site], Iterator[Figure]]] = {
    "get": calls.show,
    "post": calls.create,
    "first": executions.first,
    "warm": executions.warm,
    "pages": pages.pages_of_runtimes,
    "executions": pages.pages_of_executions,
    "available": pools.available,
    "memory": pools.memory,
    "uploads": peaks.uploads,
    "lists": peaks.listing,
    "worker": worker.worker,
    "timeouts": executions.timeouts,
    "overload": overload.overload,
    "carry": carry.carry,
    "owners": owners.owners,
    "restart": resync.restart,
    "settled": resync.settled,
    "start": start.start,
    "claims": kubernetes.claims,
    "kubernetes": kubernetes.kubernetes,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--only",
        action="append",
        choices=FIGURES,
        metavar="NAME",
        help=f"measure this alone; may be given again ({', '.join(FIGURES)})",
    )
    parser.add_argument(
        "--json", type=Path, default=Path("bench.json"), help="file to write to (%(default)s)"
    )
    arguments = parser.parse_args()
    others = load.Others()
    figures: list[Figure] = []
    failed = []
    with tempfile.TemporaryDirectory(prefix="qinling-bench-") as root, Site(Path(root)) as site:
        for name in arguments.only or FIGURES:
            try:
                figures += FIGURES[name](site)
            except Exception:
                traceback.print_exc()
                failed.append(name)
    seconds, share = others.seconds(), others.share()
    report.write_json(arguments.json, figures, seconds, share)
    print(report.table(figures))
    print(f"\nTook {seconds:.0f} s, in which others used {share:.0%} of the processors.")
    print(f"Written to {arguments.json}.")
    if failed:
        print(f"Not measured to the end: {', '.join(failed)}.")
    return 0 if not failed and all(figure.well for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
