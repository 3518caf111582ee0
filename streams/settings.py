"""The settings of a worker: variables of the environment, read once and checked at start."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NoReturn, TypeVar

if TYPE_CHECKING:
    from streams.webhooks.guard import Network
    from streams.webhooks.sealing import Sealer

__all__ = [
    "DEVELOPMENT_VARIABLES",
    "REFUSED",
    "VARIABLES",
    "InForce",
    "InvalidSetting",
    "Settings",
    "in_force",
    "is_wildcard",
    "refuse",
    "settings_or_exit",
    "shown",
    "url_host",
    "variables_help",
]

T = TypeVar("T")

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
#: Kafka's own rule for topic names (``Topic.java``); dots are ours as separators.
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_BROKER = re.compile(r"kafka://(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/@]+))(?::([0-9]{1,5}))?/?")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}$)(?:{_LABEL}\.)*(?!\d+\.?$){_LABEL}\.?")

_PREFIX: Final = "TRACKER_"
_SECRET = frozenset({"TRACKER_SECRET_KEYS"})
#: Kubernetes gives every container of a namespace these variables of each service; a service may be called
#: ``tracker`` or ``tracker-web`` (source: Kubernetes, "Discovering services", "Environment variables").
_OF_SERVICES = re.compile(
    r"TRACKER_(?:.+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_.+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
_SERVICE_URL = re.compile(r"(?:tcp|udp|sctp)://.*")

#: Exit code of a process that refuses its configuration: to start it again would not help.
REFUSED: Final = os.EX_CONFIG
LAST_PORT = 65_535
LONGEST_PREFIX = 100
LONGEST_ID = 200
MOST_PAUSES = 50
DAY_S = 86_400
TEN_YEARS_S = 3_650 * DAY_S


class InvalidSetting(ValueError):
    """A variable of the environment cannot be used; the message names it and says how to correct it."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable: its name, its value when unset or empty, one line on its effect."""

    name: str
    default: str
    help: str


VARIABLES: tuple[Variable, ...] = (
    Variable(
        "TRACKER_BROKER_URL", "kafka://127.0.0.1:9092", "brokers: kafka://host:port[;kafka://host:port…]"
    ),
    Variable(
        "TRACKER_APP_ID",
        "delivery-tracker",
        "group id; prefix of changelogs and transactional ids; with another TRACKER_TOPIC_PREFIX such as "
        "eu. the default is delivery-tracker-eu",
    ),
    Variable("TRACKER_TOPIC_PREFIX", "delivery.", "begins the name of every topic"),
    Variable("TRACKER_PARTITIONS", "8", "partitions of the input topics and tables"),
    Variable("TRACKER_REPLICATION", "1", "replication factor of topics that are created"),
    # Trap 17: workers that share a directory (or a port) cannot both start
    Variable("TRACKER_DATA_DIR", "data", "directory of the tables; each worker needs its own"),
    Variable(
        "TRACKER_WEB_BIND",
        "127.0.0.1",
        "address or host name that the web view binds to; with 0.0.0.0, or :: for IPv6 too, other workers "
        "use the machine's name",
    ),
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
    Variable(
        "TRACKER_IDLE_WAIT",
        "100ms",
        "how long a partition waits for records of one input that the broker has while another input has "
        "records, so that they are applied in the order of their timestamps; 0s: not at all",
    ),
    Variable("TRACKER_COMPRESSION", "zstd", "codec of the output topics: zstd, lz4, snappy, gzip or none"),
)

#: Read by tests and by the embedded broker only.
DEVELOPMENT_VARIABLES: tuple[Variable, ...] = (
    Variable("TRACKER_TEST_BROKER_URL", "", "a broker for the tests instead of an embedded one"),
    Variable("TRACKER_KAFKA_DIR", "", "where `python -m streams kafka` keeps topics, log and pid file"),
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


def _name(longest: int) -> Callable[[str], str]:
    def read(text: str) -> str:
        if len(text) > longest or not _NAME.fullmatch(text):
            raise ValueError(f"write up to {longest} letters, digits, '.', '_' or '-'")
        return text

    return read


def _one_of(*names: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in names:
            raise ValueError(f"write one of {', '.join(names)}")
        return text

    return read


def _brokers(text: str) -> str:
    if "@" in text:
        raise ValueError("write neither a user nor a password; the tracker connects without authentication")
    for url in text.split(";"):
        match = _BROKER.fullmatch(url)
        address, name, port = match.groups() if match else ("", "", None)
        if not (_is_address(address) if address else _is_host(name or "")):
            raise ValueError("write brokers as kafka://host:port, several with ';' between")
        if port is not None and not 1 <= int(port) <= LAST_PORT:
            raise ValueError(f"write a port from 1 to {LAST_PORT}")
    return text


def _bind_address(text: str) -> str:
    if not _is_host(text):
        raise ValueError(
            "write an IP address such as 127.0.0.1, 0.0.0.0 or ::, without brackets and zone, or a host name"
        )
    return text


def _is_host(text: str) -> bool:
    return _is_address(text) or _HOST_NAME.fullmatch(text) is not None


def _is_address(text: str) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    # a zone names a link of one machine only, and URLs with one differ from library to library
    return not (isinstance(address, IPv6Address) and address.scope_id)


def is_wildcard(host: str) -> bool:
    """Return whether a bind address stands for all addresses of the machine."""
    return _is_address(host) and ip_address(host).is_unspecified


def url_host(host: str) -> str:
    """Return a host as it is written in URLs: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _sealer(text: str) -> Sealer | None:
    if not text:
        return None
    # cryptography costs a supervisor more memory than all the rest of it
    from streams.webhooks.sealing import sealer_of

    return sealer_of(text)


def _networks(text: str) -> tuple[Network, ...]:
    if not text:
        return ()
    from streams.webhooks.guard import networks_of

    try:
        return networks_of(text)
    except ValueError as error:
        raise ValueError(f"{error}; write networks such as 10.1.0.0/16,fd00::/8") from None


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
class InForce:
    """The value of a variable, and whether the environment sets it."""

    text: str
    source: Literal["default", "environment"]


def in_force(environ: Mapping[str, str]) -> dict[str, InForce]:
    """Return the values of all variables of the catalogue; they are not checked yet.

    Raises:
        InvalidSetting: a variable of another name begins with ``TRACKER_``.
    """
    given = {
        name: text
        for name, text in environ.items()
        if name.startswith(_PREFIX) and text and not _is_of_a_service(name, text)
    }
    _refuse_unknown(given)
    values = {
        variable.name: InForce(given[variable.name], "environment")
        if variable.name in given
        else InForce(variable.default, "default")
        for variable in VARIABLES
    }
    if "TRACKER_APP_ID" not in given:
        values["TRACKER_APP_ID"] = InForce(_app_id(values["TRACKER_TOPIC_PREFIX"].text), "default")
    return values


def _is_of_a_service(name: str, text: str) -> bool:
    """Return whether Kubernetes made this variable for a service."""
    if name.endswith("_PORT") and _SERVICE_URL.fullmatch(text):
        return True
    return _OF_SERVICES.fullmatch(name) is not None


def _refuse_unknown(given: Mapping[str, str]) -> None:
    known = {variable.name for variable in (*VARIABLES, *DEVELOPMENT_VARIABLES)}
    unknown = sorted(given.keys() - known)
    if not unknown:
        return
    name = unknown[0]
    # without the prefix, which alone makes all names similar
    suffixes = [one.name.removeprefix(_PREFIX) for one in VARIABLES]
    near = difflib.get_close_matches(name.removeprefix(_PREFIX), suffixes, n=1, cutoff=0.5)
    mending = f"did you mean {_PREFIX}{near[0]}?" if near else "README.md lists those that there are."
    raise InvalidSetting(f"{name}: there is no such variable; {mending} Correct its name or unset it")


def shown(name: str, text: str) -> str:
    """Return a valid value as it may be printed: of secret keys only their names."""
    if name not in _SECRET:
        return text
    return ", ".join(part.strip().partition(":")[0] for part in text.split(",")) if text else ""


def _app_id(prefix: str) -> str:
    """Return the default app id: deployments with different topics share neither group nor changelogs."""
    defaults = {variable.name: variable.default for variable in VARIABLES}
    app_id = defaults["TRACKER_APP_ID"]
    if prefix == defaults["TRACKER_TOPIC_PREFIX"]:
        return app_id
    return f"{app_id}-{prefix[:-1] if prefix.endswith(('.', '-')) else prefix}"


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
    idle_wait_s: float
    compression: str

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read and check the environment.

        Raises:
            InvalidSetting: names the first variable that cannot be used.
        """
        values = in_force(environ)

        def read(name: str, parse: Callable[[str], T]) -> T:
            text = values[name].text
            try:
                return parse(text)
            except ValueError as error:
                is_secret = name in _SECRET or "@" in text
                shown = "its value, which is not shown" if is_secret else repr(text)
                raise InvalidSetting(f"{name}: cannot use {shown}: {error}") from None

        settings = cls(
            broker_url=read("TRACKER_BROKER_URL", _brokers),
            # before the app id, whose default contains it
            topic_prefix=read("TRACKER_TOPIC_PREFIX", _name(LONGEST_PREFIX)),
            app_id=read("TRACKER_APP_ID", _name(LONGEST_ID)),
            partitions=read("TRACKER_PARTITIONS", _whole(1, 1024)),
            replication=read("TRACKER_REPLICATION", _whole(1, 32)),
            data_dir=read("TRACKER_DATA_DIR", Path),
            web_bind=read("TRACKER_WEB_BIND", _bind_address),
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
            secret_keys=read("TRACKER_SECRET_KEYS", _sealer),
            webhook_allow=read("TRACKER_WEBHOOK_ALLOW", _networks),
            webhook_schedule_s=read("TRACKER_WEBHOOK_SCHEDULE", _pauses),
            webhook_disable_after_s=read("TRACKER_WEBHOOK_DISABLE_AFTER", _between(1, TEN_YEARS_S)),
            webhook_retention_s=read("TRACKER_WEBHOOK_RETENTION", _between(60, TEN_YEARS_S)),
            sweep_interval_s=read("TRACKER_SWEEP_INTERVAL", _between(0.1, DAY_S)),
            unit_records=read("TRACKER_UNIT_RECORDS", _whole(1, 100_000)),
            idle_wait_s=read("TRACKER_IDLE_WAIT", _between(0, 60)),
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
        refuse(str(error))


def refuse(reason: str) -> NoReturn:
    """End a process that cannot run with its configuration: one line on stderr, exit code `REFUSED`."""
    print(reason, file=sys.stderr, flush=True)
    sys.exit(REFUSED)
