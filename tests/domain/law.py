"""The law, recomputed from the whole set each time: slow, and short enough to be read against its text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from streams.domain.delivery import Callback, Track

ORDER = ["QUEUED", "SENDING", "SENT", "CANCELLED", "EXPIRED", "FAILED", "DELIVERED", "READ", "CLICKED"]
MOMENTS = {
    "SENT": "sent_at",
    "DELIVERED": "delivered_at",
    "READ": "read_at",
    "CLICKED": "clicked_at",
    "FAILED": "failed_at",
}

Said = tuple[Callback | Track, int]


def plausible(time: int | None, receipt: int) -> bool:
    return time is not None and 946_684_800_000 <= time <= receipt + 86_400_000


def entries(said: Iterable[Said]) -> list[dict[str, Any]]:
    rows = []
    for what, receipt in said:
        is_track = isinstance(what, Track)
        given = what.created_at if isinstance(what, Track) else what.timestamp
        rows.append(
            {
                "what": what,
                "receipt": receipt,
                "status": (what.initial_status or "QUEUED") if isinstance(what, Track) else what.status,
                "at": given if plausible(given, receipt) else receipt,
                "provider": what.provider,
                "attempt": None if is_track else what.attempt,
                "error": None if is_track else what.error,
            }
        )
    return rows


def last_error(rows: list[dict[str, Any]]) -> Any:
    failed = [row for row in rows if row["error"] is not None]
    order = lambda row: (row["at"], row["error"].code, row["error"].message, row["error"].details or "")  # noqa: E731
    return max(failed, key=order)["error"] if failed else None


def first_provider(rows: list[dict[str, Any]]) -> str | None:
    named = [(row["at"], row["provider"]) for row in rows if row["provider"] is not None]
    return min(named)[1] if named else None


def moment(rows: list[dict[str, Any]], status: str) -> int | None:
    name = MOMENTS[status]
    said = [(getattr(row["what"], name, None), row["receipt"]) for row in rows]
    explicit = [time for time, receipt in said if plausible(time, receipt)]
    implied = [row["at"] for row in rows if row["status"] == status]
    return min(explicit or implied, default=None)


def attempts(rows: list[dict[str, Any]], channel: str | None) -> list[dict[str, Any]]:
    """By number; else by provider, whose last number it is, if it has one; else of the last of all."""
    numbered: dict[int, list[dict[str, Any]]] = {}
    named: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["attempt"] is not None:
            numbered.setdefault(row["attempt"], []).append(row)
        elif row["provider"] is not None:
            named.setdefault(row["provider"], []).append(row)
    places = []
    for number, group in numbered.items():
        begins = max(first(other) for n, other in numbered.items() if n <= number)
        provider = first_provider(group)
        last = max(n for n, other in numbered.items() if first_provider(other) == provider) == number
        more = named.get(provider, []) if last and provider is not None else []
        places.append(((True, begins, number, ""), first(group), group + more))
    for provider, group in named.items():
        if provider not in {first_provider(other) for other in numbered.values()}:
            asked = any(isinstance(row["what"], Track) for row in group)
            places.append(((not asked, first(group), -1, provider), first(group), group))
    places.sort(key=lambda place: place[0])
    nameless = [row for row in rows if row["attempt"] is None and row["provider"] is None]
    if places:
        place, at, group = places[-1]
        places[-1] = place, at, group + nameless
    else:
        places = [((True, 0, 0, ""), first(nameless), nameless)]
    return [
        {
            # what has joined does not name it
            "provider": first_provider(numbered.get(place[2], group)),
            "at": at,
            "status": verdict(group, channel),
            "error": last_error(group),
            "contradiction": contradicts(group),
        }
        for place, at, group in places
    ]


def first(rows: list[dict[str, Any]]) -> int:
    return min(row["at"] for row in rows)


def verdict(rows: list[dict[str, Any]], channel: str | None) -> str:
    """Of one attempt: the greatest rank, but that e-mail bounces after it was delivered."""
    statuses = {row["status"] for row in rows}
    if channel == "email" and "FAILED" in statuses and not statuses & {"READ", "CLICKED"}:
        return "FAILED"
    return max(statuses, key=ORDER.index)


def contradicts(rows: list[dict[str, Any]]) -> bool:
    statuses = {row["status"] for row in rows}
    return "FAILED" in statuses and bool(statuses & {"DELIVERED", "READ", "CLICKED"})


def speaking(tries: list[dict[str, Any]]) -> dict[str, Any]:
    """The latest of those that came furthest, if any arrived; else the latest."""
    arrived = [one for one in tries if one["status"] in {"DELIVERED", "READ", "CLICKED"}]
    furthest = max((ORDER.index(one["status"]) for one in arrived), default=None)
    return [one for one in tries if furthest is None or ORDER.index(one["status"]) == furthest][-1]


def hint(rows: list[dict[str, Any]], name: str) -> str | None:
    said = [getattr(row["what"], name) for row in rows if isinstance(row["what"], Callback)]
    return min((value for value in said if value is not None), default=None)


def metadata(rows: list[dict[str, Any]]) -> dict[str, str]:
    values: dict[str, tuple[int, str]] = {}
    for row in rows:
        for key, text in (row["what"].metadata or {}).items():
            values[key] = max(values.get(key, (row["at"], text)), (row["at"], text))
    return {key: text for key, (_, text) in values.items()}


def law(said: list[Said]) -> dict[str, Any]:
    """All that a delivery is, of a set of which no two have one identity."""
    rows = entries(said)
    requests = [
        (
            r["at"],
            r["what"].phone_number,
            r["what"].template_id,
            r["provider"],
            r["what"].channel,
            r["what"].tenant,
        )
        for r in rows
        if isinstance(r["what"], Track)
    ]
    least = min(requests, key=lambda r: (r[0], *(value or "" for value in (*r[2:], r[1]))), default=None)
    channel = least[4] if least and least[4] is not None else hint(rows, "channel")
    tries = attempts(rows, channel)
    speaks = speaking(tries)
    times = {name: moment(rows, status) for status, name in MOMENTS.items()}
    used = [time for time in (times["read_at"], times["clicked_at"]) if time is not None]
    return {
        "status": speaks["status"],
        **times,
        "delivered_at": min(used, default=None) if times["delivered_at"] is None else times["delivered_at"],
        "is_delivery_inferred": times["delivered_at"] is None and bool(used),
        "contradiction": any(one["contradiction"] for one in tries),
        "error": speaks["error"],
        "metadata": metadata(rows),
        "tracked": least is not None,
        "phone_number": least[1] if least else hint(rows, "phone_number"),
        "template_id": least[2] if least else hint(rows, "template_id"),
        "channel": channel,
        "tenant": least[5] if least and least[5] is not None else hint(rows, "tenant"),
        "provider": speaks["provider"] or (least[3] if least else None),
        "created_at": least[0] if least else min(row["at"] for row in rows),
        "updated_at": max(row["receipt"] for row in rows),
        "attempts": tries,
        "entries": len(rows),
    }
