"""Webhooks while receivers misbehave and workers and senders are killed: a run, and what is judged of it."""

import contextlib
import json
import random
import time
import urllib.request
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from streams.kafka.probe import free_ports

from .cluster import Cluster, FaultRunError, Worker, until
from .inputs import Json
from .logs import Names, read_topic
from .receivers import MODES, Arrival, Receivers, secret_of

Say = Callable[[str], None]

TIMEOUT_MS = 500
PAUSES_MS = (200, 400, 800, 1_600, *[3_000] * 44)
JITTER = 0.2
#: By how much clocks and roundings may differ; ms.
SLACK_MS = 5
HEALED_S = 90.0
#: What a restart may take, the time it is dead included.
LATEST_S = 20.0
TOLD = ("status.", "tracking.")


@dataclass
class HookReport:
    """What is wrong, and some figures."""

    kills: int = 0
    senders_killed: int = 0
    expected: int = 0
    attempts: int = 0
    arrivals: int = 0
    missing: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    out_of_order: list[str] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    unsigned: list[str] = field(default_factory=list)
    secrets_found: list[str] = field(default_factory=list)
    trapped: int = 0
    lateness_ms: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def faults(self) -> dict[str, Any]:
        names = (
            "missing",
            "altered",
            "out_of_order",
            "early",
            "late",
            "unsigned",
            "secrets_found",
            "trapped",
        )
        return {name: found for name in names if (found := getattr(self, name))}

    def __str__(self) -> str:
        late = sorted(self.lateness_ms) or [0.0]
        at = {share: late[int(share * (len(late) - 1))] for share in (0.5, 0.9, 0.99, 1.0)}
        return (
            f"webhooks: {self.kills} kills, {self.senders_killed} of senders alone, "
            f"{self.expected} expected, {self.arrivals} arrivals, "
            f"{self.attempts} attempts, later than due by ms: "
            + ", ".join(f"p{share * 100:g} {value:,.0f}" for share, value in at.items())
            + f"; {self.faults() or 'all as expected'}, {self.seconds:.0f} s"
        )


def hooks_run(names: Names, directory: Path, seed: int, seconds: float, say: Say) -> HookReport:
    """Let receivers misbehave for so long while the worker is killed again and again; then heal them."""
    rng, began = random.Random(seed), time.monotonic()
    secrets = {mode: secret_of(rng) for mode in MODES}
    tokens = {mode: f"token-{rng.randbytes(16).hex()}" for mode in MODES}
    seal = b64encode(rng.randbytes(32)).decode()
    directory.mkdir(parents=True, exist_ok=True)
    places = (*MODES, "trap")
    receivers = Receivers(seed, secrets, dict(zip(places, free_ports(len(places)), strict=True)))
    receivers.trust(directory / "trusted.pem")
    report = HookReport()
    extra = {
        "TRACKER_SECRET_KEYS": f"k1:{seal}",
        "TRACKER_WEBHOOK_ALLOW": "127.0.0.1",
        "TRACKER_WEBHOOK_SCHEDULE": ",".join(f"{pause}ms" for pause in PAUSES_MS),
        "SSL_CERT_FILE": str(directory / "trusted.pem"),
    }
    with receivers, Cluster(names, directory, session_timeout_s=2.0, extra=extra) as cluster:
        cluster.create_topics()
        worker = cluster.worker("w0")
        worker.start()
        cluster.await_ready(worker)
        endpoints = {mode: register(worker, mode, receivers, secrets, tokens) for mode in MODES}
        load = Load(names, time.monotonic() + seconds)
        while time.monotonic() < load.until:
            load.go_on(rng.uniform(1.5, 5))
            if rng.random() < 0.5:
                report.senders_killed += worker.kill_sender()
                load.go_on(rng.uniform(0.1, 3))
            worker.kill()
            report.kills += 1
            say(f"{time.monotonic() - began:5.1f} s  kill {report.kills}")
            worker.start()
            load.go_on(0, lambda: worker.ready())
        receivers.healed = True
        load.close()
        cluster.await_caught_up()
        expected = told_to(names, endpoints)
        report.expected = sum(len(ids) for of_message in expected.values() for ids in of_message.values())
        with contextlib.suppress(FaultRunError):  # what is missing is in the report
            until(lambda: not missing(expected, receivers.arrivals), HEALED_S, "all webhooks", 0.5)
        answers = [worker.get(path)[1] for path in paths(endpoints)]
        worker.terminate()
        judge(report, names, receivers, expected, endpoints)
        needles = needles_of(secrets, tokens, seal)
        report.secrets_found = sorted(secrets_in(names, cluster.directory, answers, needles))
    report.seconds = time.monotonic() - began
    return report


def register(
    worker: Worker, mode: str, receivers: Receivers, secrets: Mapping[str, str], tokens: Mapping[str, str]
) -> str:
    said = {
        "url": receivers.url(mode),
        "tenant": mode,
        "secret": secrets[mode],
        "headers": {"X-Token": tokens[mode]},
        "timeout": TIMEOUT_MS,
    }
    request = urllib.request.Request(
        f"http://127.0.0.1:{worker.port}/v1/endpoints",
        json.dumps(said).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(json.loads(answer.read())["id"])


class Load:
    """A message a second for each endpoint, of three events."""

    EVERY_S = 1.0 / len(MODES)

    def __init__(self, names: Names, until: float) -> None:
        self.until = until
        self._topic = names.input("statuses")
        self._producer = Producer({"bootstrap.servers": names.bootstrap, "linger.ms": 5, "log_level": 3})
        self._count = 0
        self._next = time.monotonic()

    def go_on(self, seconds: float, done: Callable[[], bool] = lambda: True) -> None:
        """Produce for so long, and until something is done."""
        end = time.monotonic() + seconds
        while time.monotonic() < end or not done():
            while self._next <= time.monotonic():
                self._one()
                self._next += self.EVERY_S
            self._producer.poll(0)
            time.sleep(0.02)

    def _one(self) -> None:
        mode = MODES[self._count % len(MODES)]
        message_id = f"{mode}-{self._count}"
        self._count += 1
        for status in ("SENT", "DELIVERED"):
            value = {"messageId": message_id, "status": status, "tenant": mode, "timestamp": time.time()}
            self._producer.produce(self._topic, json.dumps(value).encode(), message_id.encode(), partition=-1)

    def close(self) -> None:
        assert not self._producer.flush(30)


def told_to(names: Names, endpoints: Mapping[str, str]) -> dict[str, dict[str, list[str]]]:
    """The ids of the events that each endpoint must get, by message, in their order."""
    expected: dict[str, dict[str, list[str]]] = {mode: defaultdict(list) for mode in endpoints}
    for log in read_topic(names, f"{names.prefix}events").values():
        for record in log:
            event = json.loads(record.value or b"{}")
            if event["type"].startswith(TOLD) and "messageId" in event:
                expected[event["messageId"].split("-")[0]][event["messageId"]].append(event["id"])
    return expected


def missing(
    expected: Mapping[str, Mapping[str, list[str]]], arrivals: Mapping[str, list[Arrival]]
) -> list[str]:
    """What was taken by no receiver."""
    lost = []
    for mode, messages in expected.items():
        taken = {arrival.webhook_id for arrival in list(arrivals[mode]) if arrival.taken}
        lost += [f"{mode} {id_}" for ids in messages.values() for id_ in ids if id_ not in taken]
    return lost


def judge(
    report: HookReport,
    names: Names,
    receivers: Receivers,
    expected: Mapping[str, Mapping[str, list[str]]],
    endpoints: Mapping[str, str],
) -> None:
    report.missing = missing(expected, receivers.arrivals)
    report.unsigned, report.trapped = receivers.unsigned, receivers.trapped
    report.arrivals = sum(map(len, receivers.arrivals.values()))
    for mode, messages in expected.items():
        came = receivers.arrivals[mode]
        report.altered += [f"{mode} {id_}" for id_, bodies in bodies_of(came).items() if len(bodies) > 1]
        first, taken = first_of(came, taken=False), first_of(came, taken=True)
        for ids in messages.values():
            report.out_of_order += [
                f"{mode} {after} came before {before} was taken"
                for before, after in pairwise(ids)
                if first.get(after, float("inf")) < taken.get(before, float("inf"))
            ]
    judge_schedule(report, names)


def bodies_of(came: list[Arrival]) -> dict[str, set[bytes]]:
    bodies: dict[str, set[bytes]] = defaultdict(set)
    for arrival in came:
        bodies[arrival.webhook_id].add(arrival.body)
    return bodies


def first_of(came: list[Arrival], *, taken: bool) -> dict[str, int]:
    """The number of the first arrival of each id, or of the first that was taken."""
    first: dict[str, int] = {}
    for number, arrival in enumerate(came):
        if arrival.taken or not taken:
            first.setdefault(arrival.webhook_id, number)
    return first


def judge_schedule(report: HookReport, names: Names) -> None:
    """Each attempt came when the one before it had ended for as long as the schedule and its chance say."""
    for said in attempts_of(names).values():
        report.attempts += sum(map(len, said.values()))
        for number in sorted(said)[1:]:
            before = said[number - 1][0]
            pause = PAUSES_MS[number - 2] * (1 - JITTER + 2 * JITTER * before["random"])
            due = before["startedAt"] + before["duration"] + pause
            for attempt in said[number]:
                late = attempt["startedAt"] - due
                what = f"{attempt['eventId']} attempt {number}: {late:+.0f} ms"
                if late < -SLACK_MS:
                    report.early.append(what)
                if late > LATEST_S * 1000:
                    report.late.append(what)
            report.lateness_ms.append(max(0.0, said[number][0]["startedAt"] - due))


def attempts_of(names: Names) -> dict[tuple[str, str], dict[int, list[Json]]]:
    """What was said of attempts, by event and endpoint and number; the first of a number is what counts."""
    found: dict[tuple[str, str], dict[int, list[Json]]] = defaultdict(lambda: defaultdict(list))
    for log in read_topic(names, f"{names.prefix}webhooks").values():
        for record in log:
            said = json.loads(record.value or b"{}")
            if said["type"] == "webhook.attempted":
                found[said["eventId"], said["endpointId"]][said["number"]].append(said)
    return found


def needles_of(secrets: Mapping[str, str], tokens: Mapping[str, str], seal: str) -> dict[str, list[bytes]]:
    """What must stand nowhere: as text, as its base64 alone, and as the bytes that sign."""
    found = {f"secret of {mode}": spellings(secret[len("whsec_") :]) for mode, secret in secrets.items()}
    found["sealing key"] = spellings(seal)
    return found | {f"header of {mode}": [token.encode()] for mode, token in tokens.items()}


def spellings(encoded: str) -> list[bytes]:
    return [encoded.encode(), b64decode(encoded)]


def secrets_in(
    names: Names, directory: Path, answers: list[Json], needles: Mapping[str, list[bytes]]
) -> Iterator[str]:
    """Where a secret stands: logs, data, every topic and changelog, the answers of views."""
    hay: list[tuple[str, bytes]] = [("a view", json.dumps(answers).encode())]
    hay += [(str(path.name), path.read_bytes()) for path in directory.rglob("*") if path.is_file()]
    for topic in topics_of(names):
        for log in read_topic(names, topic).values():
            hay += [
                (topic, b"\0".join((r.key or b"", r.value or b"", repr(r.headers).encode()))) for r in log
            ]
    for where, text in hay:
        for what, written in needles.items():
            if any(needle in text for needle in written):
                yield f"{what} in {where}"


def topics_of(names: Names) -> list[str]:
    from streams.topics import TABLES

    own = ("requests", "statuses", "events", "dead-letters", "stats", "webhooks")
    return [*(names.prefix + name for name in own), *map(names.changelog, TABLES)]


def paths(endpoints: Mapping[str, str]) -> list[str]:
    some = [f"/v1/endpoints/{id_}" for id_ in endpoints.values()]
    lists = [
        f"/v1/webhooks?endpoint={id_}&status={status}"
        for id_ in endpoints.values()
        for status in ("pending", "delivered", "failed")
    ]
    return ["/v1/endpoints", "/v1/stats", "/v1/webhooks/statuses-0-0-0", *some, *lists]
