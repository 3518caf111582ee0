"""Which settings of existing topics break a guarantee of a worker, or weaken one. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from streams.kafka.topics import FoundTopic, safe_insync
from streams.topics import DEAD_LETTER_BYTES, HOUR_MS, PlacedTopic

__all__ = ["Deviation", "corrections", "deviations", "unverified"]

#: The largest batch of several records that a worker produces, and what Kafka allows by default.
OWN_BATCH_BYTES: Final = 1_048_588
#: Kafka's "no limit": of timestamps, and of retention.
NO_LIMIT: Final = 2**63 - 1
UNLIMITED: Final = -1

TIMESTAMP_REFUSED: Final = (
    "a dead letter keeps the timestamp that an input accepted; one beyond this limit is refused, and its "
    "partition stops"
)


@dataclass(frozen=True, slots=True)
class Deviation:
    """One setting of one topic that is not as a worker needs it.

    Attributes:
        topic: full name.
        setting: Kafka's name of the setting.
        actual: its value.
        needed: the values that would do, in words.
        consequence: what happens with the actual value.
        breaks: whether a guarantee is broken; otherwise it is weakened.
        correction: the value that corrects it; None when no setting does.
    """

    topic: str
    setting: str
    actual: str
    needed: str
    consequence: str
    breaks: bool
    correction: str | None

    def __str__(self) -> str:
        return f"{self.topic}: {self.setting} is {self.actual}, not {self.needed}: {self.consequence}"


def deviations(
    specs: Sequence[PlacedTopic], found: Mapping[str, FoundTopic], replication: int = 1
) -> list[Deviation]:
    """Return how the existing topics differ from what a worker needs; at most one deviation of a setting.

    A setting that the broker does not know, or does not show, deviates from nothing.

    Args:
        specs: the topics of a worker; those that are missing are left out.
        found: the topics as they are, by name.
        replication: replicas that each partition should have.
    """
    limits = _limits([found[spec.name] for spec in specs if spec.role == "input" and spec.name in found])
    deviating: list[Deviation] = []
    for spec in specs:
        if spec.name in found:
            topic = found[spec.name]
            deviating += _of_the_layout(spec, topic, replication)
            deviating += _of_the_config(spec.name, topic.config or {}, _rules(spec, topic, limits))
    return deviating


def corrections(deviating: Sequence[Deviation]) -> dict[str, dict[str, str]]:
    """Return the settings that correct the deviations, by topic and name of the setting."""
    changes: dict[str, dict[str, str]] = {}
    for deviation in deviating:
        if deviation.correction is not None:
            changes.setdefault(deviation.topic, {})[deviation.setting] = deviation.correction
    return changes


def unverified(specs: Sequence[PlacedTopic], found: Mapping[str, FoundTopic]) -> list[str]:
    """Return the names of existing topics whose settings may not be read."""
    return [spec.name for spec in specs if spec.name in found and found[spec.name].config is None]


def _of_the_layout(spec: PlacedTopic, topic: FoundTopic, replication: int) -> Iterator[Deviation]:
    if topic.partitions > spec.partitions:
        yield Deviation(
            spec.name,
            "the number of partitions",
            str(topic.partitions),
            str(spec.partitions),
            "workers write to the first ones only",
            breaks=False,
            correction=None,
        )
    if topic.replication < replication:
        yield Deviation(
            spec.name,
            "the replication factor",
            str(topic.replication),
            f"{replication} (TRACKER_REPLICATION)",
            "acknowledged records are lost with fewer brokers than intended; kafka-reassign-partitions.sh "
            "adds replicas",
            breaks=False,
            correction=None,
        )


class _Rule(NamedTuple):
    """What a value of a setting must be, and what happens otherwise; `needed` says it in words."""

    setting: str
    is_met: Callable[[str], bool]
    needed: str
    correction: str
    consequence: str
    breaks: bool


def _of_the_config(name: str, config: Mapping[str, str], rules: Sequence[_Rule]) -> Iterator[Deviation]:
    seen = set()
    for rule in rules:
        actual = config.get(rule.setting)
        if actual is None or rule.setting in seen or rule.is_met(actual):
            continue
        seen.add(rule.setting)
        yield Deviation(
            name, rule.setting, actual, rule.needed, rule.consequence, rule.breaks, rule.correction
        )


def _at_least(
    setting: str, least: int, consequence: str, *, breaks: bool = True, unlimited: int = 0
) -> _Rule:
    """`unlimited` is the value, if not 0, that is as good as any number."""

    def is_met(value: str) -> bool:
        return int(value) >= least or (unlimited != 0 and int(value) == unlimited)

    # a limit of what the protocol can express is no limit
    needed = "unlimited" if least in (NO_LIMIT, unlimited) else f"{least} or more"
    return _Rule(setting, is_met, needed, str(least), consequence, breaks)


def _at_most(setting: str, most: int, consequence: str, *, breaks: bool = True) -> _Rule:
    return _Rule(setting, lambda value: int(value) <= most, f"{most} or less", str(most), consequence, breaks)


def _equal(setting: str, needed: str, consequence: str, *, breaks: bool = True) -> _Rule:
    return _Rule(setting, lambda value: value == needed, needed, needed, consequence, breaks)


class _Limits(NamedTuple):
    """What the input topics accept: the largest value of each limit among them."""

    message_bytes: int
    ahead_ms: int


def _limits(inputs: Sequence[FoundTopic]) -> _Limits:
    def largest(setting: str) -> int:
        return max((int((topic.config or {}).get(setting, 0)) for topic in inputs), default=0)

    return _Limits(largest("max.message.bytes"), largest("message.timestamp.after.max.ms"))


def _rules(spec: PlacedTopic, topic: FoundTopic, limits: _Limits) -> list[_Rule]:
    if spec.role == "input":
        own = _rules_of_an_input(spec.config)
    elif spec.role == "changelog":
        own = _rules_of_a_changelog(spec.config)
    elif spec.role == "clock":
        type_ = "message.timestamp.type"
        own = [_equal(type_, spec.config[type_], "workers do not learn the broker's time")]
    elif spec.role == "dead letters":
        own = _rules_of_dead_letters(spec.config, topic.config or {}, limits)
    else:
        own = _rules_of_an_output(spec.config, int(spec.config["max.message.bytes"]))
    return own + _rules_of_all(topic.replication)


def _rules_of_all(replication: int) -> list[_Rule]:
    insync = safe_insync(replication)
    return [
        # seen with Kafka 4.3: a coordinator that cannot write its markers in time throws, and goes on so
        _at_least(
            "message.timestamp.before.max.ms",
            HOUR_MS,
            "the broker refuses the markers of transactions that took longer, and these never end",
        ),
        _Rule(
            "min.insync.replicas",
            lambda value: int(value) <= replication,
            f"{replication} or less",
            str(insync),
            "there are not so many replicas, and the broker refuses each write",
            breaks=True,
        ),
        _at_least(
            "min.insync.replicas",
            insync,
            "what a single broker has acknowledged is lost with that broker",
            breaks=False,
        ),
        _equal(
            "unclean.leader.election.enable",
            "false",
            "a replica that lacks acknowledged records may become the leader",
            breaks=False,
        ),
    ]


def _rules_of_an_input(spec: Mapping[str, str]) -> list[_Rule]:
    size = _at_least(
        "max.message.bytes",
        int(spec["max.message.bytes"]),
        "larger records are refused when they are produced",
        breaks=False,
    )
    return [
        _at_least("max.message.bytes", OWN_BATCH_BYTES, "batches that workers produce are refused")._replace(
            correction=size.correction
        ),
        size,
        _kept_whole("records that nobody has read yet are removed"),
        *_retained(spec, "records that are not read for so long, in an outage, are lost"),
        _equal(
            "message.timestamp.type",
            "CreateTime",
            "statuses without `timestamp`, expiry and the order of the inputs go by the producers' times",
        ),
        _at_least(
            "message.timestamp.before.max.ms",
            NO_LIMIT,
            "a misplaced record that reaches this age before it is forwarded stops its partition",
            breaks=False,
        ),
    ]


def _rules_of_an_output(spec: Mapping[str, str], largest_bytes: int) -> list[_Rule]:
    larger = "a larger record is refused, and its partition stops"
    rules = [
        _at_least("max.message.bytes", largest_bytes, larger),
        _at_least("segment.bytes", largest_bytes, larger),
    ]
    if spec["cleanup.policy"] == "compact":
        return [*rules, _equal("cleanup.policy", "compact", "the rows of unchanged windows are removed")]
    return [
        *rules,
        _kept_whole("all records of a key but the last are removed"),
        *_retained(spec, "consumers have less time to read"),
    ]


def _rules_of_dead_letters(
    spec: Mapping[str, str], config: Mapping[str, str], limits: _Limits
) -> list[_Rule]:
    # a dead letter is its original with more headers, and keeps the timestamp
    largest_bytes = max(int(spec["max.message.bytes"]), limits.message_bytes + DEAD_LETTER_BYTES)
    rules = [
        *_rules_of_an_output(spec, largest_bytes),
        _equal(
            "message.timestamp.type",
            "CreateTime",
            "dead letters do not have the timestamps of their originals",
            breaks=False,
        ),
    ]
    if config.get("message.timestamp.type") != "LogAppendTime":
        # one that was young enough for the input is older when it is read
        rules += [
            _at_least("message.timestamp.after.max.ms", limits.ahead_ms, TIMESTAMP_REFUSED),
            _at_least("message.timestamp.before.max.ms", NO_LIMIT, TIMESTAMP_REFUSED),
            _at_least("message.timestamp.difference.max.ms", NO_LIMIT, TIMESTAMP_REFUSED),
        ]
    return rules


def _rules_of_a_changelog(spec: Mapping[str, str]) -> list[_Rule]:
    largest_bytes = int(spec["max.message.bytes"])
    larger = "a larger row is refused, and its partition stops"
    rules = [
        _equal("cleanup.policy", "compact", "rows that did not change for long are lost"),
        _at_least("max.message.bytes", largest_bytes, larger),
        _at_least("segment.bytes", largest_bytes, larger),
        _at_least(
            "delete.retention.ms",
            int(spec["delete.retention.ms"]),
            "a worker that was away for longer keeps rows that were deleted meanwhile",
        ),
        _equal(
            "message.timestamp.type",
            spec["message.timestamp.type"],
            "the age of a store is judged by the clocks of workers",
            breaks=False,
        ),
    ]
    return rules + [
        _at_most(setting, int(spec[setting]), "erased data stays longer", breaks=False)
        for setting in ("segment.ms", "max.compaction.lag.ms")
    ]


def _kept_whole(consequence: str) -> _Rule:
    return _Rule(
        "cleanup.policy",
        lambda value: "compact" not in [policy.strip() for policy in value.split(",")],
        "delete",
        "delete",
        consequence,
        breaks=True,
    )


def _retained(spec: Mapping[str, str], consequence: str) -> list[_Rule]:
    return [
        _at_least("retention.ms", int(spec["retention.ms"]), consequence, breaks=False, unlimited=UNLIMITED),
        _Rule(
            "retention.bytes",
            lambda value: int(value) == UNLIMITED,
            "-1 (unlimited)",
            str(UNLIMITED),
            consequence,
            breaks=False,
        ),
    ]
