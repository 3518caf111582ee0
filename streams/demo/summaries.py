"""What a run came to, in words, and whether it is what the traffic says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from streams.demo.places import Place
from streams.demo.readings import Metrics
from streams.demo.screens import facts
from streams.demo.traffic import PRECEDENCE, Tally

Json = Mapping[str, Any]


def summary(tally: Tally, metrics: Metrics, stats: Json | None, sample: Json | None) -> str:
    """What the worker made of the traffic."""
    stats = stats or {}
    outcomes = metrics.outcomes
    by_status: Counter[str] = Counter(stats.get("byStatus", {}))
    rows = [
        ("messages", f"{stats.get('totalMessages', 0):,}"),
        *((f"  {status}", f"{by_status[status]:,}") for status in PRECEDENCE if by_status[status]),
        ("records", f"{metrics.consumed:,} in {metrics.elapsed_s:.2f} s, {metrics.units:,} transactions"),
        ("callbacks/s", f"{metrics.rate:,.0f}"),
        ("applied, amended", f"{outcomes['applied']:,}, {outcomes['amended']:,}"),
        ("repeated", f"{outcomes['repeated']:,}"),
        ("forwarded", f"{outcomes['forwarded']:,}"),
        ("dead letters", _dead_letters(tally, outcomes["dead-lettered"])),
    ]
    lines = ["", "summary", facts(rows)]
    if sample is not None:
        lines += ["", f"one message, {tally.sample_id}", json.dumps(sample, indent=2, ensure_ascii=False)]
    return "\n".join(lines) + "\n"


def _dead_letters(tally: Tally, count: int) -> str:
    kinds = ", ".join(f"{code} {number}" for code, number in sorted(tally.dead_letters.items()))
    return f"{count:,}" + (f" (produced: {kinds})" if kinds else "")


def differences(tally: Tally, metrics: Metrics, stats: Json | None) -> list[str]:
    """One line for each number that is not what the traffic says; none when all adds up."""
    outcomes = metrics.outcomes
    said = stats or {}
    pairs: list[tuple[str, object, object]] = [
        ("messages", tally.messages, said.get("totalMessages")),
        ("records consumed", tally.consumed, metrics.consumed),
        ("repeated", tally.repeated, outcomes["repeated"]),
        ("forwarded", tally.forwarded, outcomes["forwarded"]),
        ("dead-lettered", tally.dead_letters.total(), outcomes["dead-lettered"]),
    ]
    by_status = said.get("byStatus", {})
    pairs += [(status, tally.by_status[status], by_status.get(status, 0)) for status in PRECEDENCE]
    return [
        f"  {name}: the traffic says {expected}, the worker {found}"
        for name, expected, found in pairs
        if expected != found
    ]


def delivered(record: Json) -> str:
    """One delivered message on one line."""
    words = [str(record.get("messageId")), f"by {record.get('provider')}"]
    if record.get("channel"):
        words.append(f"as {record['channel']}")
    report = record.get("deliveryReport") or record
    if report.get("deliveredAt"):
        words.append(f"at {report['deliveredAt']}")
    return " ".join(words)


def where_to_look(url: str, place: Place, message_id: str, endpoint_id: str) -> str:
    """Where the views are, and one curl for each."""
    curls = [
        ("a message", f"curl {url}/v1/messages/{message_id}"),
        ("its report", f"curl {url}/v1/messages/{message_id}/report"),
        ("by status", f"curl '{url}/v1/messages?status=DELIVERED&limit=3'"),
        ("webhooks", f"curl '{url}/v1/webhooks?endpoint={endpoint_id}&status=delivered&limit=3'"),
        ("totals", f"curl {url}/v1/stats"),
        ("health", f"curl {url}/live; curl {url}/ready"),
        ("metrics", f"curl {url}/metrics"),
    ]
    topics = [("topics", f"{place.topic_prefix}requests, …statuses → …events, …dead-letters")]
    return "\n" + facts(curls + topics) + "\n"
