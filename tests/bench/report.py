"""What was measured, against what was asked for: verdicts, the table and the JSON."""

import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    ``judged`` is the number that counts, of ``samples`` and in their ``unit``; the figure is well
    when it is at most ``allowed``, or at least, where it is the ``more`` the better. One with
    nothing ``allowed`` has no ``goal``: it stands beside others, to compare. ``floor`` has samples
    of the bare parts, where there is one.
    """

    name: str
    goal: str
    unit: str
    samples: Sequence[float]
    judged: float
    allowed: float | None
    floor: Sequence[float] = ()
    note: str = ""
    more: bool = False

    @property
    def well(self) -> bool:
        if self.allowed is None:
            return True
        return self.judged >= self.allowed if self.more else self.judged <= self.allowed

    @property
    def ratio(self) -> float | None:
        """The medians' ratio."""
        return percentile(self.samples, 50) / percentile(self.floor, 50) if self.floor else None

    def record(self) -> dict[str, object]:
        """The figure as JSON has it."""
        return {
            "name": self.name,
            "goal": self.goal,
            "unit": self.unit,
            "measured": _summary(self.samples),
            "floor": _summary(self.floor) if self.floor else None,
            "ratio": self.ratio,
            "judged": self.judged,
            "allowed": self.allowed,
            "ok": None if self.allowed is None else self.well,
            "note": self.note,
        }


def against_floor(
    name: str,
    samples: Sequence[float],
    floor: Sequence[float],
    factor: float,
    *,
    plus: float = 0.0,
    unit: str = "ms",
    note: str = "",
) -> Figure:
    """Held to: p50 ≤ ``factor`` x the floor's p50 + ``plus`` (in ``unit``)."""
    goal = f"p50 ≤ {factor:g} x floor" + (f" + {plus:g} {unit}" if plus else "")
    allowed = factor * percentile(floor, 50) + plus
    return Figure(name, goal, unit, samples, percentile(samples, 50), allowed, floor, note)


def at_most(
    name: str, samples: Sequence[float], allowed: float, unit: str, *, note: str = ""
) -> Figure:
    """Held to: every sample ≤ ``allowed``."""
    return Figure(name, f"≤ {allowed:g} {unit}", unit, samples, max(samples), allowed, note=note)


def at_rank(
    name: str, samples: Sequence[float], rank: float, allowed: float, unit: str, *, note: str = ""
) -> Figure:
    """Held to: the percentile ``rank`` ≤ ``allowed``."""
    goal = f"p{rank:g} ≤ {allowed:g} {unit}"
    return Figure(name, goal, unit, samples, percentile(samples, rank), allowed, note=note)


def at_least(
    name: str, samples: Sequence[float], wanted: float, unit: str, *, note: str = ""
) -> Figure:
    """Held to: every sample ≥ ``wanted``."""
    goal = f"≥ {wanted:.4g} {unit}"
    return Figure(name, goal, unit, samples, min(samples), wanted, note=note, more=True)


def beside(name: str, samples: Sequence[float], unit: str, *, note: str = "") -> Figure:
    """Held to nothing."""
    return Figure(name, "", unit, samples, percentile(samples, 50), None, note=note)


def percentile(samples: Sequence[float], rank: float) -> float:
    """The smallest sample that at least ``rank`` per cent of all do not exceed (nearest rank)."""
    return sorted(samples)[max(0, math.ceil(len(samples) * rank / 100) - 1)]


def _summary(samples: Sequence[float]) -> dict[str, float]:
    return {
        "n": len(samples),
        "p50": percentile(samples, 50),
        "p99": percentile(samples, 99),
        "min": min(samples),
        "max": max(samples),
    }


_HEADINGS = ("figure", "goal", "n", "p50", "p99", "floor p50", "floor p99", "ratio", "")


def table(figures: Sequence[Figure]) -> str:
    """All figures, one per line, notes below."""
    rows = [_HEADINGS, *(_cells(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    lines += ["", *(f"{figure.name}: {figure.note}." for figure in figures if figure.note)]
    return "\n".join(lines).rstrip()


def _cells(figure: Figure) -> tuple[str, ...]:
    def value(samples: Sequence[float], rank: float) -> str:
        return f"{percentile(samples, rank):.2f} {figure.unit}" if samples else ""

    return (
        figure.name,
        figure.goal,
        str(len(figure.samples)),
        value(figure.samples, 50),
        value(figure.samples, 99),
        value(figure.floor, 50),
        value(figure.floor, 99),
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        "" if figure.allowed is None else "ok" if figure.well else "MISSED",
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    words = [
        cell.ljust(width) if column in (0, 1, 8) else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(words).rstrip()


def write_json(path: Path, figures: Sequence[Figure], seconds: float, others: float) -> None:
    """Everything in the table, for a machine to compare with another run.

    :param others: what others have had of all processors meanwhile, from 0 to 1.
    """
    content = {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "seconds": round(seconds, 1),
        "others": round(others, 3),
        "figures": [figure.record() for figure in figures],
    }
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
