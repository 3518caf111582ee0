"""Rules of the simulated traffic: reproducible, faulty in known amounts, counted exactly."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import replace

from streams.demo.traffic import NO_FAULTS, PRECEDENCE, SPOILERS, Sample, Tally, Traffic, generate, produced

MANY = Traffic(4_000)


def samples_of(traffic: Traffic) -> tuple[list[Sample], Tally]:
    tally = Tally()
    return list(generate(traffic, tally)), tally


def readable(sample: Sample) -> dict[str, object] | None:
    """The record's JSON when it says something of a message."""
    if not sample.value or len(sample.value) > 65_536:
        return None
    try:
        fields = json.loads(sample.value)
    except ValueError:
        return None
    return fields if fields.get("status") in (None, *PRECEDENCE) and fields.get("source") != 17 else None


def test_a_seed_gives_the_same_records_byte_for_byte() -> None:
    """The same traffic twice is the same list; another seed gives another one."""
    assert samples_of(MANY) == samples_of(MANY)
    assert samples_of(MANY)[0] != samples_of(replace(MANY, seed=8))[0]


def test_both_arrangements_hold_the_same_records() -> None:
    """Scattering changes the order of the records, never the records."""
    scattered, first = samples_of(MANY)
    adjacent, second = samples_of(replace(MANY, arrangement="adjacent"))

    assert Counter(scattered) == Counter(adjacent)
    assert first == second
    assert scattered != adjacent


def test_scattered_records_come_in_order_of_arrival() -> None:
    """A broker would have received them so."""
    arrivals = [sample.at_ms for sample in samples_of(MANY)[0]]
    assert arrivals == sorted(arrivals)


def test_the_tally_is_what_the_records_hold() -> None:
    """Messages, records, repetitions and statuses are counted again here, from the bytes alone."""
    samples, tally = samples_of(MANY)
    said: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    emails = set()
    told = []
    for sample in samples:
        fields = readable(sample)
        if fields is None or "messageId" not in fields:
            continue
        if sample.key is not None and sample.key.startswith(b"spoilt"):
            continue
        told.append(json.dumps(fields, sort_keys=True))
        said[fields["messageId"]][fields.get("attempt", 1)].add(fields.get("status", "QUEUED"))
        if fields["channel"] == "email":
            emails.add(fields["messageId"])
    current: Counter[str] = Counter()
    for message_id, attempts in said.items():
        last = attempts[max(attempts)]
        bounced = message_id in emails and {"DELIVERED", "FAILED"} <= last
        current["FAILED" if bounced else max(last, key=PRECEDENCE.index)] += 1

    assert len(said) == tally.messages == 4_000
    assert current == tally.by_status
    assert len(told) - len(set(told)) == tally.repeated > 0
    assert len(samples) == tally.records
    assert len(samples) - len(told) == tally.dead_letters.total() > 0


def test_misplaced_records_are_counted() -> None:
    """Without a key, under another key, or laid past their key's partition."""
    samples, tally = samples_of(MANY)
    wrong = 0
    for sample in samples:
        fields = readable(sample)
        if fields is None or (sample.key or b"").startswith(b"spoilt"):
            continue
        wrong += sample.key is None or sample.key.decode() != fields["messageId"] or sample.shift > 0
    assert wrong == tally.forwarded > 0


def test_every_kind_of_malformed_record_occurs() -> None:
    """Twenty thousand messages hold each kind, and the tally names it."""
    codes = {code for code, _ in SPOILERS}
    assert set(produced(Traffic(20_000)).dead_letters) == codes


def test_a_message_has_two_to_five_callbacks_of_realistic_size() -> None:
    """Beside repetitions; a value is about a quarter of a kilobyte."""
    samples, _ = samples_of(replace(MANY, faults=NO_FAULTS))
    callbacks = Counter(sample.key for sample in samples if sample.stream == "statuses")

    assert set(callbacks.values()) <= {2, 3, 4, 5}
    assert 200 < sum(len(sample.value) for sample in samples) / len(samples) < 350


def test_traffic_without_faults_is_well_formed_and_in_place() -> None:
    """What the benchmark is filled with: nothing repeated, forwarded or dead-lettered."""
    samples, tally = samples_of(replace(MANY, faults=NO_FAULTS, tracked=False))

    assert all(sample.stream == "statuses" and sample.shift == 0 for sample in samples)
    assert (tally.repeated, tally.forwarded, tally.dead_letters.total()) == (0, 0, 0)
    assert all(readable(sample) is not None for sample in samples)


def test_faults_of_order_occur() -> None:
    """SENT after DELIVERED, a callback before its track request, messages that nobody asked to track."""
    seen: dict[object, list[str]] = defaultdict(list)
    for sample in samples_of(MANY)[0]:
        fields = readable(sample)
        if fields is not None and not (sample.key or b"").startswith(b"spoilt"):
            seen[fields["messageId"]].append(str(fields.get("status", "track")))
    stories = list(seen.values())

    assert any("DELIVERED" in s and "SENT" in s[s.index("DELIVERED") :] for s in stories)
    assert any("track" in s[1:] and s[0] != "track" for s in stories)
    assert any("track" not in s for s in stories)
    assert any("FAILED" in s and "DELIVERED" in s for s in stories)
