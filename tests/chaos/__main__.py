"""``python -m tests.chaos``: try each installation with each seed, and tell what was found.

Exit code 1 when something is wrong. Needs MariaDB and RabbitMQ, as tools/test.sh installs them.
"""

import argparse
import contextlib
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from tests.chaos import sites, trial
from tests.chaos.sites import Site
from tests.fixtures.mariadb import MariaDB
from tests.fixtures.rabbitmq import RabbitMQ

KINDS = ("standalone", "distributed", "kubernetes")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each trial (%(default)g)")
    parser.add_argument("--seeds", type=int, default=3, help="trials of each kind (%(default)s)")
    parser.add_argument("--seed", type=int, help="the first seed; a random one when not given")
    parser.add_argument("--only", choices=KINDS, action="append", help="this kind alone")
    arguments = parser.parse_args()
    first = secrets.randbits(32) if arguments.seed is None else arguments.seed
    wrong = 0
    place = Path(tempfile.mkdtemp(prefix="qinling-chaos-"))
    with _services(place) as make:
        for seed in range(first, first + arguments.seeds):
            for kind in arguments.only or KINDS:
                wrong += not _try(kind, make[kind], place, seed, arguments.seconds)
    if wrong:
        print(f"\n{wrong} trials found something wrong; their logs are in {place}")
        return 1
    shutil.rmtree(place)
    print("\nNothing is wrong.")
    return 0


Make = Callable[[Path], AbstractContextManager[Site]]


@contextlib.contextmanager
def _services(root: Path) -> Iterator[dict[str, Make]]:
    """What makes each kind of installation, on services that run."""
    # Workers with a user id of their own must be able to pass.
    root.chmod(0o711)
    with MariaDB(root / "mariadb") as mariadb, RabbitMQ(root / "rabbitmq") as rabbitmq:
        yield {
            "standalone": sites.standalone,
            "distributed": lambda path: sites.distributed(path, mariadb, rabbitmq),
            "kubernetes": lambda path: sites.kubernetes(path, mariadb, rabbitmq),
        }


def _try(kind: str, make: Make, place: Path, seed: int, seconds: float) -> bool:
    """Whether all was well."""
    root = place / f"{kind}-{seed}"
    root.mkdir()
    print(f"\n{kind}: --only {kind} --seed {seed} --seeds 1 --seconds {seconds:g}", flush=True)
    with make(root) as site:
        verdict = trial.run(site, trial.runs_file(root), seed, seconds)
    print(f"  {verdict.summary}")
    if verdict.breaches:
        for line in (*verdict.harms, *verdict.breaches):
            print(f"  {line}")
    sys.stdout.flush()
    return not verdict.breaches


if __name__ == "__main__":
    sys.exit(main())
