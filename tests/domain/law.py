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


def rank(row: dict[str, Any]) -> int:
    return ORDER.index(row["status"])


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


def attempts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        provider = "unknown" if row["provider"] is None else row["provider"]
        groups.setdefault(provider if row["attempt"] is None else row["attempt"], []).append(row)
    ordered = sorted(groups.items(), key=lambda item: (min(row["at"] for row in item[1]), str(item[0])))
    return [
        {
            "provider": first_provider(group),
            "at": min(row["at"] for row in group),
            "status": max(group, key=rank)["status"],
            "error": last_error(group),
        }
        for _, group in ordered
    ]


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
    top = max(rows, key=rank)["status"]
    seen = {row["status"] for row in rows}
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
    least = min(
        requests, key=lambda r: tuple(value or "" if value is None else value for value in r), default=None
    )
    return {
        "status": top,
        **{name: moment(rows, status) for status, name in MOMENTS.items()},
        "contradiction": "FAILED" in seen and bool(seen & {"DELIVERED", "READ", "CLICKED"}),
        "error": last_error(rows),
        "metadata": metadata(rows),
        "tracked": least is not None,
        "phone_number": least[1] if least else hint(rows, "phone_number"),
        "template_id": least[2] if least else hint(rows, "template_id"),
        "channel": least[4] if least and least[4] is not None else hint(rows, "channel"),
        "tenant": least[5] if least and least[5] is not None else hint(rows, "tenant"),
        "provider": first_provider([row for row in rows if row["status"] == top])
        or (least[3] if least else None),
        "created_at": least[0] if least else min(row["at"] for row in rows),
        "updated_at": max(row["receipt"] for row in rows),
        "attempts": attempts(rows),
        "entries": len(rows),
    }
