"""A machine that says, asks, ends, applies and lets time go by, in any order, against the naive reference."""

from __future__ import annotations

import json
import random
from typing import Any

from aiokafka.partitioner import murmur2
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from .checker import check
from .inputs import STATUSES, Json
from .memory import PARTITIONS, START_MS, Logs, is_input

messages = st.sampled_from(("m-1", "m-2", "한국"))
statuses = st.sampled_from(STATUSES)
providers = st.sampled_from((None, "a", "b"))
attempts = st.sampled_from((None, 1, 2))
channels = st.sampled_from((None, "sms", "email"))
#: ms after the start; negative: before the year 2000, when no clock was set
moments = st.sampled_from((None, 0, 1, 500, 9_000, 90_000_000, -START_MS))


class Tracking(RuleBasedStateMachine):
    """One application over a few messages; Kafka's timestamps go on with the clock."""

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.logs = Logs(random.Random(seed))
        self.said: list[tuple[str, int, bytes]] = []

    @rule(
        message=messages,
        status=statuses,
        provider=providers,
        attempt=attempts,
        moment=moments,
        channel=channels,
        id_=st.sampled_from((None, "x")),
        error=st.booleans(),
        misplaced=st.booleans(),
    )
    def say(self, message: str, status: str, moment: int | None, misplaced: bool, **more: Any) -> None:
        said = {"messageId": message, "status": status, "id": more.pop("id_")}
        if more.pop("error"):
            said["error"] = {"code": "E1", "message": "no route"}
        if moment is not None:
            said["timestamp"] = START_MS + moment
        self.put("statuses", message, said | more, misplaced)

    @rule(
        message=messages,
        provider=st.sampled_from(("a", "c")),
        moment=moments,
        status=st.sampled_from((None, "SENT", "DELIVERED")),
        waits=st.sampled_from((None, 1, 4_000)),
        campaign=st.sampled_from((None, "x", "y")),
    )
    def track(
        self,
        message: str,
        provider: str,
        moment: int | None,
        status: str | None,
        waits: int | None,
        campaign: str | None,
    ) -> None:
        said: Json = {"type": "track", "messageId": message, "provider": provider, "templateId": "t"}
        said |= {"phoneNumber": "+1", "initialStatus": status, "maxTrackingDuration": waits}
        said["createdAt"] = None if moment is None else START_MS + moment
        said["metadata"] = campaign and {"campaign": campaign}
        self.put("requests", message, said)

    @rule(message=messages, kind=st.sampled_from(("stop", "erase", "expire", "purge", "nothing")))
    def ask(self, message: str, kind: str) -> None:
        """Anyone may ask for what timers ask for."""
        self.put("requests", message, {"type": kind, "messageId": message})

    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        if self.said:
            stream, partition, value = data.draw(st.sampled_from(self.said))
            key = json.loads(value)["messageId"].encode()
            self.logs.append(f"delivery.{stream}", partition, self.logs.now, key, value, ())

    @rule(ms=st.sampled_from((1, 1_000, 10_000)))
    def pass_time(self, ms: int) -> None:
        self.logs.now += ms

    @rule()
    def sweep(self) -> None:
        for partition in range(PARTITIONS):
            self.logs.sweep(partition)

    @rule()
    def apply(self) -> None:
        """One unit of work, of whatever waits first; that two topics interleave otherwise is as good."""
        waiting = [
            place
            for place, log in self.logs.topics.items()
            if is_input(place) and self.logs.stands.get(place, 0) < len(log)
        ]
        if waiting:
            self.logs.apply(*self.logs.rng.choice(waiting))

    def put(self, stream: str, message: str, said: Json, misplaced: bool = False) -> None:
        key = message.encode()
        partition = ((murmur2(key) & 0x7FFFFFFF) + misplaced) % PARTITIONS
        value = json.dumps(said).encode()
        self.said.append((stream, partition, value))
        self.logs.append(f"delivery.{stream}", partition, self.logs.now, key, value, ())

    def teardown(self) -> None:
        self.logs.run(())
        report = check(self.logs.world())
        assert report.faults() == {}, str(report)


TestTracking = Tracking.TestCase
TestTracking.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
