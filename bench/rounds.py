"""Ours and the bare loop in alternation, over the same callbacks, within one run."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from bench import ours
from bench.brokers import callbacks, fill_topics, fresh_place, make_topics, same_topics
from streams.demo.places import Place
from streams.demo.producing import bootstrap_servers
from streams.demo.traffic import Arrangement

ARRANGEMENTS: tuple[Arrangement, ...] = ("adjacent", "scattered")
BARE_WITHIN_S = 180
Figures = dict[str, Any]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Variant:
    """One way to run the tracker."""

    processes: int = 1
    unit_records: int | None = None

    @property
    def name(self) -> str:
        """What it is called in the table."""
        limit = "" if self.unit_records is None else f", transactions of {self.unit_records:,}"
        return f"ours, {self.processes} process{'es' if self.processes > 1 else ''}{limit}"


def measure(url: str, count: int, rounds: int, variants: Sequence[Variant], say: Say) -> list[Figures]:
    """One row of figures for each arrangement and contender; all contenders take turns, round by round."""
    rows: list[Figures] = []
    for arrangement in ARRANGEMENTS:
        place = fresh_place(arrangement)
        say(f"filling {count:,} {arrangement} callbacks")
        fill_topics(url, place, callbacks(count, arrangement))
        make_topics(url, bare_sink(place))
        taken: dict[str, list[Figures]] = defaultdict(list)
        for number in range(rounds):
            for name, run in contenders(url, place, count, number, variants).items():
                taken[name].append(run())
                rate = _rates(taken[name])[-1]
                say(f"{arrangement}, round {number + 1}: {name} {rate:,.0f}/s")
        rows += rows_of(arrangement, taken)
    return rows


def contenders(
    url: str, place: Place, count: int, number: int, variants: Sequence[Variant]
) -> dict[str, Callable[[], Figures]]:
    """Who takes part in a round; who begins changes from round to round."""

    def tracker(which: int, variant: Variant) -> Callable[[], Figures]:
        group = same_topics(place, f"{number}-{which}")
        limit, processes = variant.unit_records, variant.processes
        return lambda: asdict(ours.measure(url, group, count, unit_records=limit, processes=processes))

    everyone = {variant.name: tracker(which, variant) for which, variant in enumerate(variants)}
    everyone["bare loop"] = lambda: bare(url, place, count, with_headers=True)
    everyone["bare loop without headers"] = lambda: bare(url, place, count, with_headers=False)
    names = list(everyone)
    turn = number % len(names)
    return {name: everyone[name] for name in names[turn:] + names[:turn]}


def bare(url: str, place: Place, count: int, *, with_headers: bool) -> Figures:
    """The bare loop, in a process of its own."""
    command = [sys.executable, "-m", "bench.bare", bootstrap_servers(url), place.inputs["statuses"]]
    done = subprocess.run(
        [*command, bare_sink(place).events, str(count), str(int(with_headers))],
        capture_output=True,
        text=True,
        timeout=BARE_WITHIN_S,
        check=False,
    )
    if done.returncode:
        raise ours.BenchFailed(f"the bare loop failed: {done.stderr.strip()[-2000:]}")
    figures: Figures = json.loads(done.stdout)
    return figures


def bare_sink(place: Place) -> Place:
    """Where the bare loop's events go, apart from ours."""
    return replace(place, topic_prefix=f"{place.topic_prefix}bare.")


def rows_of(arrangement: str, taken: dict[str, list[Figures]]) -> list[Figures]:
    """Medians, with the least and the greatest rate, and the ratio to the bare loop."""
    rows = []
    ceiling = statistics.median(_rates(taken["bare loop"]))
    for name in sorted(taken, key=lambda name: (name.startswith("bare"), len(name), name)):
        rounds = taken[name]
        rates = _rates(rounds)
        row: Figures = {
            "arrangement": arrangement,
            "contender": name,
            "callbacks_per_s": statistics.median(rates),
            "least": min(rates),
            "greatest": max(rates),
            "ratio": statistics.median(rates) / ceiling,
        }
        used = [r["cpu_s"] / r["records"] for r in rounds if r["cpu_s"] is not None]
        row["cpu_us_per_callback"] = statistics.median(used) * 1e6 if used else None
        for figure in ("peak_bytes", "units", "gc_ratio", "empty_polls"):
            known = [r[figure] for r in rounds if r.get(figure) is not None]
            row[figure] = statistics.median(known) if known else None
        row["rounds"] = rounds
        rows.append(row)
    return rows


def _rates(rounds: list[Figures]) -> list[float]:
    return [figures["records"] / figures["seconds"] for figures in rounds]
