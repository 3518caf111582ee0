"""What the environment may say, read once and checked at start."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from streams.webhooks.guard import Network, networks_of
from streams.webhooks.sealing import Sealer, sealer_of

__all__ = ["VARIABLES", "InvalidSetting", "Settings", "settings_or_exit", "variables_help"]

T = TypeVar("T")

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
#: Kafka's own rule for topic names (``Topic.java``); dots are ours as separators.
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")

_SECRET = frozenset({"TRACKER_SECRET_KEYS"})

LAST_PORT = 65_535
MOST_PAUSES = 50
DAY_S = 86_400
TEN_YEARS_S = 3_650 * DAY_S


class InvalidSetting(ValueError):
    """A variable of the environment cannot be used; the message names it and says how to mend it."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable: its name, what it is when unset, one line on what it does."""

    name: str
    default: str
    help: str


VARIABLES: tuple[Variable, ...] = (
    Variable(
        "TRACKER_BROKER_URL", "kafka://127.0.0.1:9092", "brokers: kafka://host:port[;kafka://host:port…]"
    ),
    Variable("TRACKER_APP_ID", "delivery-tracker", "group id; prefix of changelogs and transactional ids"),
    Variable("TRACKER_TOPIC_PREFIX", "delivery.", "begins the name of every topic"),
    Variable("TRACKER_PARTITIONS", "8", "partitions of the input topics and tables"),
    Variable("TRACKER_REPLICATION", "1", "replication factor of topics that are created"),
    # Trap 17: workers that share a directory (or a port) cannot both start; RocksDB locks the directory.
    Variable("TRACKER_DATA_DIR", "data", "directory of the tables; each worker needs its own"),
    Variable("TRACKER_WEB_BIND", "127.0.0.1", "address that the web view binds to"),
    Variable("TRACKER_WEB_PORT", "6066", "port of the web view; each worker of a machine needs its own"),
    Variable(
        "TRACKER_PROCESSES",
        "1",
        "processes of a worker, to use as many cores; each takes the next web port, its own part of the data "
        "directory and its share of the partitions",
    ),
    Variable("TRACKER_SESSION_TIMEOUT", "10s", "silence after which the group takes a worker for dead"),
    Variable("TRACKER_STANDBYS", "0", "hot copies of each table partition on other workers"),
    Variable("TRACKER_MAX_TRACKING", "72h", "how long a message is waited for that does not say"),
    Variable("TRACKER_RETENTION", "30d", "how long a final record is kept after its last change"),
    Variable(
        "TRACKER_MARKER_RETENTION",
        "30d",
        "how long it is known of a message that it was stopped, erased or removed",
    ),
    Variable("TRACKER_MINUTES_RETENTION", "48h", "how long statistics of each minute are kept"),
    Variable("TRACKER_HOURS_RETENTION", "90d", "the same of each hour; not shorter than of minutes"),
    Variable("TRACKER_DAYS_RETENTION", "730d", "the same of each day; not shorter than of hours"),
    Variable("TRACKER_STATS_INTERVAL", "10s", "how often changed hours and days are told of"),
    Variable("TRACKER_GRACE", "96h", "how long after its end an hour or a day is final"),
    Variable("TRACKER_HEALTH_INTERVAL", "1m", "how often providers are judged"),
    Variable("TRACKER_HEALTH_WINDOW", "15m", "by the messages sent in so long a time"),
    Variable("TRACKER_HEALTH_MESSAGES", "50", "and by no fewer than so many"),
    Variable("TRACKER_HEALTH_RATE", "70", "percent of the messages in a final status that must arrive"),
    Variable("TRACKER_HEALTH_SLOW", "5m", "what is late: 5s, 30s, 1m, 5m, 1h or 24h"),
    Variable("TRACKER_HEALTH_SLOW_SHARE", "50", "percent of the messages that may be late"),
    Variable("TRACKER_HEALTH_COOLDOWN", "30m", "how long a provider stays degraded, or recovered, at least"),
    Variable(
        "TRACKER_SECRET_KEYS",
        "",
        "keys that the secrets of endpoints are sealed with, name:base64 of 32 bytes, several with ',' "
        "between; the first seals, all open; without one no endpoint can be registered",
    ),
    Variable(
        "TRACKER_WEBHOOK_ALLOW",
        "",
        "networks that webhooks may reach beside public addresses, such as 10.1.0.0/16,fd00::/8; plain http "
        "goes only there",
    ),
    Variable(
        "TRACKER_WEBHOOK_SCHEDULE",
        "5s,5m,30m,2h,5h,10h,14h,20h,24h",
        "pauses between the attempts to deliver a webhook, each a fifth longer or shorter by chance",
    ),
    Variable(
        "TRACKER_WEBHOOK_DISABLE_AFTER", "120h", "how long nothing gets through until an endpoint is disabled"
    ),
    Variable(
        "TRACKER_WEBHOOK_RETENTION",
        "7d",
        "how long what was told to endpoints is kept and can be sent again",
    ),
    Variable("TRACKER_SWEEP_INTERVAL", "5s", "how often a worker looks for what is due"),
    Variable("TRACKER_UNIT_RECORDS", "5000", "most records of one transaction"),
    Variable("TRACKER_COMPRESSION", "zstd", "codec of the output topics: zstd, lz4, snappy, gzip or none"),
)


def variables_help(defaults: Mapping[str, str] = {}) -> str:
    """Return what a command's help says at its end; `defaults` has what stands for another than ours."""
    # click does not wrap a paragraph that begins so
    lines = ["\b", "Environment:"]
    for variable in VARIABLES:
        default = defaults.get(variable.name, variable.default)
        lines += [f"  {variable.name}  [default: {default}]", f"      {variable.help}"]
    return "\n".join(lines)


def duration_s(text: str) -> float:
    """Read a duration such as ``5s``, ``500ms``, ``72h`` or ``30d``; seconds."""
    match = _DURATION.fullmatch(text)
    if not match:
        raise ValueError("write a duration like 500ms, 5s, 10m, 72h or 30d")
    return float(match[1]) * _UNIT_S[match[2]]


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"-?\d+", text) or not low <= int(text) <= high:
            raise ValueError(f"write a whole number from {low} to {high}")
        return int(text)

    return read


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("write up to 100 letters, digits, '.', '_' or '-'")
    return text


def _one_of(*names: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in names:
            raise ValueError(f"write one of {', '.join(names)}")
        return text

    return read


def _brokers(text: str) -> str:
    for url in text.split(";"):
        parts = urlsplit(url)
        if parts.scheme != "kafka" or not parts.hostname:
            raise ValueError("write brokers as kafka://host:port, several with ';' between")
    return text


def _between(low_s: float, high_s: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = duration_s(text)
        if not low_s <= value <= high_s:
            raise ValueError(f"write a duration from {low_s:g}s to {high_s:g}s")
        return value

    return read


def _pauses(text: str) -> tuple[float, ...]:
    pauses = tuple(_between(0.001, TEN_YEARS_S)(part.strip()) for part in text.split(","))
    if len(pauses) > MOST_PAUSES:
        raise ValueError(f"write at most {MOST_PAUSES} pauses")
    return pauses


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings; names as in the environment without ``TRACKER_``."""

    broker_url: str
    app_id: str
    topic_prefix: str
    partitions: int
    replication: int
    data_dir: Path
    web_bind: str
    web_port: int
    processes: int
    session_timeout_s: float
    standbys: int
    max_tracking_s: float
    retention_s: float
    marker_retention_s: float
    minutes_retention_s: float
    hours_retention_s: float
    days_retention_s: float
    stats_interval_s: float
    grace_s: float
    health_interval_s: float
    health_window_s: float
    health_messages: int
    health_rate: int
    health_slow: str
    health_slow_share: int
    health_cooldown_s: float
    secret_keys: Sealer | None
    webhook_allow: tuple[Network, ...]
    webhook_schedule_s: tuple[float, ...]
    webhook_disable_after_s: float
    webhook_retention_s: float
    sweep_interval_s: float
    unit_records: int
    compression: str

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read and check the environment.

        Raises:
            InvalidSetting: names the first variable that cannot be used.
        """
        defaults = {variable.name: variable.default for variable in VARIABLES}

        def read(name: str, parse: Callable[[str], T]) -> T:
            text = environ.get(name) or defaults[name]
            try:
                return parse(text)
            except ValueError as error:
                shown = "what it is" if name in _SECRET else repr(text)
                raise InvalidSetting(f"{name}: cannot use {shown}: {error}") from None

        settings = cls(
            broker_url=read("TRACKER_BROKER_URL", _brokers),
            app_id=read("TRACKER_APP_ID", _name),
            topic_prefix=read("TRACKER_TOPIC_PREFIX", _name),
            partitions=read("TRACKER_PARTITIONS", _whole(1, 1024)),
            replication=read("TRACKER_REPLICATION", _whole(1, 32)),
            data_dir=read("TRACKER_DATA_DIR", Path),
            web_bind=read("TRACKER_WEB_BIND", str),
            web_port=read("TRACKER_WEB_PORT", _whole(1, LAST_PORT)),
            processes=read("TRACKER_PROCESSES", _whole(1, 64)),
            session_timeout_s=read("TRACKER_SESSION_TIMEOUT", _between(1, 300)),
            standbys=read("TRACKER_STANDBYS", _whole(0, 8)),
            max_tracking_s=read("TRACKER_MAX_TRACKING", _between(1, TEN_YEARS_S)),
            retention_s=read("TRACKER_RETENTION", _between(1, TEN_YEARS_S)),
            marker_retention_s=read("TRACKER_MARKER_RETENTION", _between(1, TEN_YEARS_S)),
            minutes_retention_s=read("TRACKER_MINUTES_RETENTION", _between(1, TEN_YEARS_S)),
            hours_retention_s=read("TRACKER_HOURS_RETENTION", _between(1, TEN_YEARS_S)),
            days_retention_s=read("TRACKER_DAYS_RETENTION", _between(1, TEN_YEARS_S)),
            stats_interval_s=read("TRACKER_STATS_INTERVAL", _between(0.1, DAY_S)),
            grace_s=read("TRACKER_GRACE", _between(1, TEN_YEARS_S)),
            health_interval_s=read("TRACKER_HEALTH_INTERVAL", _between(1, DAY_S)),
            health_window_s=read("TRACKER_HEALTH_WINDOW", _between(60, DAY_S)),
            health_messages=read("TRACKER_HEALTH_MESSAGES", _whole(1, 1_000_000)),
            health_rate=read("TRACKER_HEALTH_RATE", _whole(0, 100)),
            health_slow=read("TRACKER_HEALTH_SLOW", _one_of("5s", "30s", "1m", "5m", "1h", "24h")),
            health_slow_share=read("TRACKER_HEALTH_SLOW_SHARE", _whole(0, 100)),
            health_cooldown_s=read("TRACKER_HEALTH_COOLDOWN", _between(0, TEN_YEARS_S)),
            secret_keys=read("TRACKER_SECRET_KEYS", lambda text: sealer_of(text) if text else None),
            webhook_allow=read("TRACKER_WEBHOOK_ALLOW", networks_of),
            webhook_schedule_s=read("TRACKER_WEBHOOK_SCHEDULE", _pauses),
            webhook_disable_after_s=read("TRACKER_WEBHOOK_DISABLE_AFTER", _between(1, TEN_YEARS_S)),
            webhook_retention_s=read("TRACKER_WEBHOOK_RETENTION", _between(60, TEN_YEARS_S)),
            sweep_interval_s=read("TRACKER_SWEEP_INTERVAL", _between(0.1, DAY_S)),
            unit_records=read("TRACKER_UNIT_RECORDS", _whole(1, 100_000)),
            compression=read("TRACKER_COMPRESSION", _one_of("zstd", "lz4", "snappy", "gzip", "none")),
        )
        if settings.web_port + settings.processes - 1 > LAST_PORT:
            raise InvalidSetting(
                f"TRACKER_WEB_PORT: cannot use '{settings.web_port}': {settings.processes} processes need as "
                f"many ports from it on, up to {LAST_PORT}"
            )
        settings._check_windows()
        return settings

    def _check_windows(self) -> None:
        """Refuse to keep shorter windows for longer: a period is put together from the wider ones behind."""
        kept = (self.minutes_retention_s, self.hours_retention_s, self.days_retention_s)
        for shorter, wider, name in zip(kept, kept[1:], ("HOURS", "DAYS"), strict=False):
            if wider < shorter:
                raise InvalidSetting(
                    f"TRACKER_{name}_RETENTION: cannot use {wider:g}s: shorter windows are kept for "
                    f"{shorter:g}s; write at least as much"
                )
        for kept_s, window_s, name in (
            (self.hours_retention_s, 3_600, "HOURS"),
            (self.days_retention_s, DAY_S, "DAYS"),
        ):
            if kept_s < self.grace_s + 2 * window_s:
                raise InvalidSetting(
                    f"TRACKER_{name}_RETENTION: cannot use {kept_s:g}s: a window is final {self.grace_s:g}s "
                    f"after its end (TRACKER_GRACE); write at least {self.grace_s + 2 * window_s:g}s"
                )


def settings_or_exit() -> Settings:
    """Return the settings of this process's environment, or end it with what is wrong with them."""
    try:
        return Settings.from_env()
    except InvalidSetting as error:
        sys.exit(str(error))
