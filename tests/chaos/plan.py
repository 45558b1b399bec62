"""What befalls an installation: from a seed, always the same."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

#: How often each kind of process is struck, beside the others.
_SHARES = {"worker": 6, "api": 2, "engine": 2, "all": 2, "database": 1, "broker": 1}
#: Seconds between two blows.
_PAUSE = (0.3, 2.0)
#: Seconds for which a process is stopped, and for which a program that was killed is away.
_STOPPED = (0.1, 2.0)
_AWAY = (0.0, 1.5)
#: Longer than a lease holds: others take what the program had, and then it wakes.
_ASLEEP = (17.0, 20.0)
#: Runs of at least so many seconds have such sleepers, too; one blow of so many is one.
_LONG_RUN = 40.0
_SLEEPERS = 12
#: Where there are no others, or nothing to take.
_SLEEPLESS = ("all", "worker")


@dataclass(frozen=True, slots=True)
class Blow:
    """What is done to a process.

    :ivar at: seconds from the start. :ivar kind: of process, as of ``history.Harm``.
    :ivar which: picks one of those there are: a number from 0 to below 1.
    :ivar kill: SIGKILL, and started again after so many ``seconds`` unless it is a worker; else
        SIGSTOP for them.
    """

    at: float
    kind: str
    which: float
    kill: bool
    seconds: float


def blows(seed: int, length: float, kinds: Sequence[str]) -> list[Blow]:
    """:param length: of the run (seconds). :param kinds: of the processes that there are."""
    chance = random.Random(f"{seed}/blows")
    found: list[Blow] = []
    at = chance.uniform(*_PAUSE)
    while at < length:
        [kind] = chance.choices(kinds, [_SHARES[kind] for kind in kinds])
        kill = chance.random() < 0.5
        seconds = chance.uniform(*(_AWAY if kill else _STOPPED))
        sleeps = length >= _LONG_RUN and chance.randrange(_SLEEPERS) == 0
        if sleeps and kind not in _SLEEPLESS:
            kill, seconds = False, chance.uniform(*_ASLEEP)
        found.append(Blow(at, kind, chance.random(), kill, seconds))
        at += chance.uniform(*_PAUSE)
    return found
