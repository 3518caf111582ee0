"""The catalogue of topics."""

from __future__ import annotations

from streams.topics import CATALOGUE, clock_topic, co_partitioned, names, outputs


def test_each_topic_has_a_full_name() -> None:
    """Names carry the prefix."""
    assert names("delivery.") == (
        "delivery.requests",
        "delivery.statuses",
        "delivery.events",
        "delivery.dead-letters",
        "delivery.stats",
        "delivery.webhooks",
    )


def test_lanes_read_the_inputs() -> None:
    """Only these are assigned together."""
    assert co_partitioned("a.") == ("a.requests", "a.statuses", "a.webhooks")


def test_others_read_the_outputs() -> None:
    """These are compressed with a codec that consumers choose."""
    assert outputs("a.") == ("a.events", "a.dead-letters", "a.stats")


def test_a_dead_letter_has_room_for_any_input() -> None:
    """A record that the broker took can always be kept, its headers included."""
    largest = {topic.name: int(topic.config["max.message.bytes"]) for topic in CATALOGUE}

    assert largest["requests"] == largest["statuses"] == 16 * 1024 * 1024
    assert largest["dead-letters"] - largest["statuses"] >= 1024 * 1024


def test_the_topic_of_the_clock_has_the_broker_s_timestamps_and_is_short() -> None:
    """One partition, and an hour of it: what is written there is worth nothing."""
    name, partitions, config, _ = clock_topic("app")

    assert (name, partitions) == ("app-clock", 1)
    assert config["message.timestamp.type"] == "LogAppendTime"
    assert int(config["retention.ms"]) <= 3_600_000
