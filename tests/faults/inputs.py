"""What the inputs say, read once more with the standard library only; see `reference`."""

import base64
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

STATUSES = ("QUEUED", "SENDING", "SENT", "CANCELLED", "EXPIRED", "FAILED", "DELIVERED", "READ", "CLICKED")
SOURCES = ("manual", "provider", "webhook", "system")
MARKS = {
    "sentAt": "SENT",
    "deliveredAt": "DELIVERED",
    "readAt": "READ",
    "clickedAt": "CLICKED",
    "failedAt": "FAILED",
}
FINAL = frozenset(STATUSES[3:])
HINTS = ("phoneNumber", "templateId", "channel", "tenant")
LIMIT_BYTES = 65_536
HOUR_MS = 3_600_000
YEAR_1_MS = -62_135_596_800_000
YEAR_2000_MS = 946_684_800_000
YEAR_10000_MS = 253_402_300_800_000
DIGITS = re.compile(r"[+-]?\d{1,40}(\.\d{1,40})?", re.ASCII)
#: Where each unit of time begins, and how many of them are a millisecond.
UNITS = ((10**17, 10**6), (10**14, 10**3), (10**11, 1))
EVENTS = (
    *("tracking.started", "status.updated", "status.amended", "tracking.expired", "tracking.completed"),
    *("tracking.stopped", "tracking.erased", "tracking.removed"),
    *(f"message.{status.lower()}" for status in STATUSES),
)
#: How many bytes the base64 of a secret may have, by its prefix; a public key signs nothing.
SECRETS = {"whsec_": range(24, 65), "whsk_": (32, 64), "whpk_": ()}
#: The port of an authority, if it names one.
PORT = re.compile(r"(?::(\d+))?$")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Json = dict[str, Any]


@dataclass(frozen=True)
class Ages:
    """How long the workers wait for a message that does not say, and keep what is final; ms."""

    tracking_ms: int = 72 * HOUR_MS
    retention_ms: int = 720 * HOUR_MS

    def due_at(self, record: Json) -> int:
        """When a record's time is up, as it is shown."""
        if record["currentStatus"] in FINAL:
            return to_ms(record["updatedAt"]) + self.retention_ms
        if "expiresAt" in record:
            return to_ms(record["expiresAt"])
        return to_ms(record["createdAt"]) + self.tracking_ms


NORMAL_AGES = Ages()


@dataclass(frozen=True)
class Raw:
    """A Kafka record as it lies in a log; `timestamp` in ms."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


class Malformed(Exception):
    """A record that becomes a dead letter with `code`."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def parse(value: bytes | None, stream: str) -> Json:
    """Return the fields of a record, absent ones as None; raise Malformed with the dead letter's code."""
    if not value:
        raise Malformed("empty")
    if len(value) > LIMIT_BYTES:
        raise Malformed("too-large")
    try:
        body = json.loads(value.decode("utf-8"), parse_constant=refuse)
    except ValueError:
        raise Malformed("not-json") from None
    except RecursionError:
        raise Malformed("invalid-value") from None
    if any(0xD800 <= ord(letter) < 0xE000 for letter in compact(body)):
        raise Malformed("not-json")  # half of a pair, which UTF-8 has no bytes for
    if not isinstance(body, dict):
        raise Malformed("wrong-type")
    return parse_request(body) if stream == "requests" else parse_status(body)


def parse_status(body: Json) -> Json:
    out: Json = {"messageId": text(body, "messageId", required=True), "track": False}
    out["status"] = status_of(text(body, "status", required=True))
    for name in ("provider", "providerMessageId", "id", *HINTS):
        out[name] = text(body, name)
    spell(out)
    out["source"] = text(body, "source") or "provider"
    if out["source"] not in SOURCES:
        raise Malformed("invalid-value")
    out["attempt"] = whole(body, "attempt", 2**31)
    out["given"] = moment(body, "timestamp")
    out |= {mark: moment(body, mark) for mark in MARKS}
    out["metadata"] = mapping(body, "metadata")
    error = mapping(body, "error")
    if error is not None:
        said = {"code": code(error), "message": text(error, "message", most=LIMIT_BYTES) or ""}
        out["error"] = present(said | {"details": error.get("details")})
    return out


def parse_request(body: Json) -> Json:
    kind = text(body, "type", required=True)
    if kind in ("stop", "erase"):
        said = {"messageId": text(body, "messageId", required=True), "track": False, "ends": kind}
        return said | ({"reason": text(body, "reason")} if kind == "stop" else {})
    if kind in ("expire", "purge", "tick", "judge"):
        return {"messageId": text(body, "messageId", required=True), "track": False, "timer": kind}
    if kind != "track":
        raise Malformed("unsupported-type")
    names = ("messageId", "phoneNumber", "templateId", "provider")
    out: Json = {name: text(body, name, required=True) for name in names} | {"track": True}
    out |= {name: text(body, name) for name in ("channel", "tenant")}
    spell(out)
    out["status"] = status_of(text(body, "initialStatus") or "QUEUED")
    out["given"] = moment(body, "createdAt")
    out["scheduled"] = moment(body, "scheduledAt")
    out["duration"] = whole(body, "maxTrackingDuration", 2**53)
    out["metadata"] = mapping(body, "metadata")
    out["webhooks"] = [webhook(said) for said in sequence(body, "webhooks", 10) or ()]
    return out | {"id": "track", "attempt": None, "source": "system"} | dict.fromkeys(MARKS)


def webhook(said: Any) -> Json:
    """What is kept of a webhook: not its secret, nor its headers."""
    if not isinstance(said, dict):
        raise Malformed("wrong-type")
    url = words(said, "url")
    found = re.fullmatch(r"https?://([^/?#]+)([/?#].*)?", url)
    if not found or "@" in found[1] or len(url) > 2048 or port_of(found[1]) > 65_535 or re.search(r"\s", url):
        raise Malformed("invalid-value")
    headers, secret, events = mapping(said, "headers"), text(said, "secret"), sequence(said, "events", 50)
    if not all(map(matches, events or ())) or not (secret is None or is_secret(secret)):
        raise Malformed("invalid-value")
    if any(not re.fullmatch(r"[!-~]([ -~]*[!-~])?", str(value)) for value in (headers or {}).values()):
        raise Malformed("invalid-value")
    out = {"url": url, "events": events or None}
    out["timeout"] = whole(said, "timeout", 120_001)
    out["retries"] = whole(said, "retries", 21, least=0)
    return present(out)


def matches(pattern: str) -> bool:
    return pattern in (*EVENTS, "*") or (
        pattern.endswith(".*") and any(name.startswith(pattern[:-1]) for name in EVENTS)
    )


def is_secret(text: str) -> bool:
    if text.strip() != text or any(prefix in text[1:] for prefix in SECRETS):
        return False
    for prefix, lengths in SECRETS.items():
        if text.startswith(prefix):
            try:
                return len(base64.b64decode(text[len(prefix) :], validate=True)) in lengths
            except ValueError:
                return False
    return len(text.encode()) >= 24


def spell(fields: Json) -> None:
    """Names of providers and channels mean the same in any case."""
    for name in ("provider", "channel"):
        if fields[name] is not None:
            fields[name] = fields[name].lower()


def code(error: Json) -> str | None:
    number = error.get("code")
    if type(number) in (int, float):
        if len(str(number)) > 256:
            raise Malformed("invalid-value")
        return str(number)
    return text(error, "code", required=True)


def port_of(authority: str) -> int:
    found = PORT.search(authority)
    return int(found[1] or 0) if found else 0


def sequence(body: Json, name: str, most: int) -> list[Any] | None:
    value = body.get(name)
    if value is not None and not isinstance(value, list):
        raise Malformed("wrong-type")
    if value is not None and len(value) > most:
        raise Malformed("invalid-value")
    return value


def words(body: Json, name: str) -> str:
    if name not in body:
        raise Malformed("missing-field")
    if not isinstance(body[name], str):
        raise Malformed("wrong-type")
    return str(body[name])


def text(body: Json, name: str, required: bool = False, most: int = 256) -> str | None:
    if body.get(name) is None and not required:
        return None
    value = words(body, name)
    if name in ("phoneNumber", "providerMessageId"):
        most = 1_024
    if len(value) > most or (name == "messageId" and not value):
        raise Malformed("invalid-value")
    return value


def status_of(value: str | None) -> str | None:
    if value not in STATUSES:
        raise Malformed("unknown-status")
    return value


def whole(body: Json, name: str, limit: int, least: int = 1) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int:
        raise Malformed("wrong-type")
    if not least <= value < limit:
        raise Malformed("invalid-value")
    return value


def mapping(body: Json, name: str) -> Json | None:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise Malformed("wrong-type")
    # what is read as infinite was written with too great an exponent
    if value and (any(len(key) > 256 for key in value) or not all(map(math.isfinite, numbers(value)))):
        raise Malformed("invalid-value")
    return value


def numbers(value: Any) -> Iterator[float]:
    """Yield the numbers that are not whole, however deep."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)


def moment(body: Json, name: str) -> int | None:
    """A time as ISO 8601 with a zone, or a number or its digits since the epoch; in ms."""
    value = body.get(name)
    if value is None:
        return None
    if type(value) is str:
        if not DIGITS.fullmatch(value):
            return to_ms(value)
        value = float(value) if "." in value else int(value)
    if type(value) not in (int, float):
        raise Malformed("wrong-type")
    if not math.isfinite(value):
        raise Malformed("invalid-value")
    for begin, in_a_ms in UNITS:
        if abs(value) >= begin:
            return bounded(Decimal(value) / in_a_ms)
    return round(value * 1000)


def bounded(ms: Decimal) -> int:
    return round(min(max(ms, Decimal(YEAR_1_MS)), Decimal(YEAR_10000_MS - 1)))


def to_ms(value: str) -> int:
    leap = re.fullmatch(r"(.*\d\d:\d\d:|.*[T ]\d{4})60(?=\D)(.*)", value)
    try:
        said = datetime.fromisoformat(f"{leap[1]}59{leap[2]}" if leap else value.replace("z", "Z"))
        ms = Decimal((said - EPOCH) // timedelta(microseconds=1)) / 1000 + (1000 if leap else 0)
    except (ValueError, TypeError):  # TypeError: no zone
        raise Malformed("invalid-value") from None
    return bounded(ms)


def within(at: int | None, receipt: int) -> bool:
    return at is not None and YEAR_2000_MS <= at <= receipt + 24 * HOUR_MS


def iso(ms: int | None) -> str | None:
    if ms is None:
        return None
    return (EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def present(fields: Json) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


def refuse(literal: str) -> None:
    raise ValueError(literal)
