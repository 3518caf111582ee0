"""A simulated Kafka cluster: nodes, leaders, the transaction coordinator and the group's offsets.

Follows Kafka's ``TransactionCoordinator``, ``TransactionStateManager``, ``ProducerStateManager`` and
``GroupMetadataManager`` as far as clients can see them. A commit is acknowledged before its markers are
written; each partition and the group's offsets get theirs at a time of their own, and until all have it the
next transaction has to wait.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from tests.simulation.connections import REQUESTS, Connection
from tests.simulation.logs import OK, Batch, Log, Outcome, batches_of
from tests.simulation.loop import NOWHERE, SimulatedLoop
from tests.simulation.schedule import Fate, Schedule

__all__ = ["Cluster", "Node", "Place"]

Place = tuple[str, int]

UNKNOWN_TOPIC: Final = 3
LEADER_NOT_AVAILABLE: Final = 5
NOT_LEADER: Final = 6
LOADING: Final = 14
NOT_COORDINATOR: Final = 16
TOPIC_AUTHORIZATION: Final = 29
DUPLICATE_SEQUENCE: Final = 46
INVALID_PRODUCER_EPOCH: Final = 47
INVALID_TXN_STATE: Final = 48
INVALID_PRODUCER_ID_MAPPING: Final = 49
CONCURRENT_TRANSACTIONS: Final = 51
NOT_ATTEMPTED: Final = 55

RETRY_S: Final = 0.05
GROUP: Final = "tracker"


@dataclass
class Transaction:
    """What the coordinator knows of one transactional id."""

    producer_id: int
    epoch: int = -1
    timeout_s: float = 60.0
    state: Literal["empty", "ongoing", "preparing", "complete"] = "empty"
    outcome: Outcome = "abort"
    #: partitions, and group ids, that are part of it
    places: dict[Place, None] = field(default_factory=dict)
    groups: dict[str, None] = field(default_factory=dict)
    left: set[Any] = field(default_factory=set)
    number: int = 0


@dataclass
class Offsets:
    """The offsets of the group, and those that transactions have not committed yet."""

    committed: dict[Place, int] = field(default_factory=dict)
    pending: dict[int, dict[Place, int]] = field(default_factory=dict)
    epochs: dict[int, int] = field(default_factory=dict)

    def mark(self, producer_id: int, epoch: int, outcome: Outcome) -> None:
        """End a producer's transaction."""
        self.epochs[producer_id] = max(epoch, self.epochs.get(producer_id, -1))
        offsets = self.pending.pop(producer_id, {})
        if outcome == "commit":
            self.committed.update(offsets)


class Cluster:
    """All nodes, and what they know together."""

    def __init__(
        self,
        loop: SimulatedLoop,
        schedule: Schedule,
        topics: dict[str, int],
        trace: Callable[..., None],
        nodes: int = 3,
    ) -> None:
        self.loop = loop
        self.schedule = schedule
        self.trace = trace
        self.nodes = {f"node{number}": Node(self, number) for number in range(1, nodes + 1)}
        self.topics = topics
        self.offsets = Offsets()
        self.transactions: dict[str, Transaction] = {}
        self.logs = {
            (topic, number): Log(self.now_ms) for topic, count in topics.items() for number in range(count)
        }
        by_number = list(self.nodes.values())
        self.leaders: dict[Place, Node | None] = {
            place: by_number[index % nodes] for index, place in enumerate(self.logs)
        }
        #: answers, for they are many and mostly the same
        self.metadata: dict[Any, Any] = {}
        self._producer_ids = 0
        self._moved: dict[str, int] = {}
        self._loading: dict[str, float] = {}

    def now_ms(self) -> int:
        """Return the time as brokers see it."""
        # of no process, so without its wrong clock
        return NOWHERE.copy().run(lambda: int(time.time() * 1000))

    def later(self, delay_s: float, call: Callable[..., None], *args: Any) -> None:
        """Have something done in no process."""
        self.loop.call_later(delay_s, call, *args, context=NOWHERE.copy())

    def new_producer_id(self) -> int:
        """Return a producer id that nobody has."""
        self._producer_ids += 1
        return self._producer_ids

    # who leads and coordinates

    def coordinator(self, key: str) -> Node:
        """Return the node that coordinates a transactional id or a group."""
        nodes = list(self.nodes.values())
        return nodes[(zlib.crc32(key.encode()) + self._moved.get(key, 0)) % len(nodes)]

    def move_coordinator(self, key: str, loading_s: float) -> None:
        """Have another node coordinate, once it has loaded what it needs."""
        self._moved[key] = self._moved.get(key, 0) + 1
        self._loading[key] = self.loop.time() + loading_s

    def is_loading(self, key: str) -> bool:
        """Say whether a coordinator is not ready yet."""
        return self.loop.time() < self._loading.get(key, 0.0)

    def elect(self, place: Place, without_s: float) -> None:
        """Have a partition without a leader for some time, then another node lead it."""
        self.leaders[place] = None
        self.later(without_s, self._lead, place)

    def _lead(self, place: Place) -> None:
        ready = [node for node in self.nodes.values() if node.is_up]
        if ready:
            self.leaders[place] = self.schedule.random.choice(ready)
        else:
            self.later(RETRY_S, self._lead, place)

    def take_down(self, node: Node, for_s: float) -> None:
        """Have a node break all connections, and refuse others for some time."""
        node.is_up = False
        for connection in list(node.connections):
            connection.break_off()
        for place, leader in self.leaders.items():
            if leader is node:
                self.elect(place, self.schedule.random.uniform(0.0, for_s))
        self.later(for_s, node.come_up)

    # transactions

    def begin(self, transaction: Transaction) -> None:
        """Begin a transaction, which is aborted when it takes too long."""
        if transaction.state != "ongoing":
            transaction.state = "ongoing"
            transaction.number += 1
            transaction.places, transaction.groups = {}, {}
            self.later(transaction.timeout_s, self._time_out, transaction, transaction.number)

    def _time_out(self, transaction: Transaction, number: int) -> None:
        if transaction.state == "ongoing" and transaction.number == number:
            transaction.epoch += 1
            self.prepare(transaction, "abort")

    def prepare(self, transaction: Transaction, outcome: Outcome) -> None:
        """Decide a transaction, and send its markers out."""
        transaction.state, transaction.outcome = "preparing", outcome
        self.trace("decided", transaction.producer_id, transaction.epoch, outcome)
        transaction.left = {*transaction.places, *transaction.groups}
        if not transaction.left:
            transaction.state = "complete"
        for place in transaction.places:
            self.later(self.schedule.marker_s(), self._mark, transaction, place)
        for group in transaction.groups:
            self.later(self.schedule.marker_s(), self._mark_group, transaction, group)

    def _mark(self, transaction: Transaction, place: Place) -> None:
        leader = self.leaders[place]
        if leader is None or not leader.is_up:
            self.later(RETRY_S, self._mark, transaction, place)
            return
        self.logs[place].mark(transaction.producer_id, transaction.epoch, transaction.outcome)
        self._marked(transaction, place)

    def _mark_group(self, transaction: Transaction, group: str) -> None:
        if self.is_loading(group) or not self.coordinator(group).is_up:
            self.later(RETRY_S, self._mark_group, transaction, group)
            return
        self.offsets.mark(transaction.producer_id, transaction.epoch, transaction.outcome)
        self._marked(transaction, group)

    def _marked(self, transaction: Transaction, where: Any) -> None:
        self.trace("marked", transaction.producer_id, transaction.epoch, where, transaction.outcome)
        transaction.left.discard(where)
        if not transaction.left:
            transaction.state = "complete"

    def is_settled(self) -> bool:
        """Say whether no transaction is under way."""
        return all(known.state in ("empty", "complete") for known in self.transactions.values())


class Node:
    """One broker."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.cluster = cluster
        self.number = number
        self.host = f"node{number}"
        self.is_up = True
        self.connections: dict[Connection, None] = {}

    @property
    def is_calm(self) -> bool:
        """Whether every partition has a leader."""
        return None not in self.cluster.leaders.values()

    def come_up(self) -> None:
        """Take connections again."""
        self.is_up = True

    def handle(self, api: str, request: Any) -> Any:
        """Apply a request and return its response."""
        return getattr(self, f"_{api}")(request)

    def fail(self, api: str, request: Any, fate: Fate) -> Any:
        """Return a response with an error code; the request is applied only where the fate says so."""
        codes = getattr(self, f"_fail_{api}", None)
        if codes is not None:
            return codes(request, fate)
        response = self.handle(api, request) if fate.applied else None
        return _blank(api, response, error_code=fate.code)

    # metadata

    def _Metadata(self, request: Any) -> Any:
        return self._metadata(request, OK)

    def _fail_Metadata(self, request: Any, fate: Fate) -> Any:
        return self._metadata(request, fate.code)

    def _metadata(self, request: Any, code: int) -> Any:
        cluster = self.cluster
        names = tuple(cluster.topics if request.topics is None else request.topics)
        leaders = tuple(leader and leader.number for leader in cluster.leaders.values())
        known = cluster.metadata.get((names, code, leaders))
        if known is None:
            # a rack, for the hash of None is another in each process (before Python 3.12)
            brokers = [(node.number, node.host, 9092, "rack") for node in cluster.nodes.values()]
            topics = [
                (code, topic, False, [] if code else self._partitions(topic))
                for topic in names
                if topic in cluster.topics
            ]
            known = _response("Metadata")(brokers, 1, topics)
            cluster.metadata[names, code, leaders] = known
        return known

    def _partitions(self, topic: str) -> list[Any]:
        leaders = [self.cluster.leaders[topic, number] for number in range(self.cluster.topics[topic])]
        return [
            (LEADER_NOT_AVAILABLE, number, -1, [], [])
            if leader is None
            else (OK, number, leader.number, [leader.number], [leader.number])
            for number, leader in enumerate(leaders)
        ]

    def _FindCoordinator(self, request: Any) -> Any:
        node = self.cluster.coordinator(request.coordinator_key)
        return _response("FindCoordinator")(0, OK, None, node.number, node.host, 9092)

    # produce

    def _Produce(self, request: Any) -> Any:
        return self._produce(request, None)

    def _fail_Produce(self, request: Any, fate: Fate) -> Any:
        return self._produce(request, fate)

    def _produce(self, request: Any, fate: Fate | None) -> Any:
        """Append what is for each partition; a fate is that of one of them."""
        places = [(topic, number) for topic, partitions in request.topics for number, _ in partitions]
        victim = None if fate is None else self.cluster.schedule.random.choice(places)
        topics = []
        for topic, partitions in request.topics:
            answers = []
            for number, buffer in partitions:
                is_hit = fate is not None and victim == (topic, number)
                code, base = (
                    (OK, -1)
                    if is_hit and fate and not fate.applied
                    else self._append(request.transactional_id, (topic, number), bytes(buffer))
                )
                if is_hit and fate is not None and code == OK:
                    code, base = fate.code, -1
                answers.append((number, code, base, -1, 0))
            topics.append((topic, answers))
        return _response("Produce")(topics, 0)

    def _append(self, transactional_id: str | None, place: Place, buffer: bytes) -> tuple[int, int]:
        log = self.cluster.logs.get(place)
        if log is None:
            return UNKNOWN_TOPIC, -1
        if self.cluster.leaders[place] is not self:
            return NOT_LEADER, -1
        code, base = OK, -1
        for batch in batches_of(buffer):
            code = self._verify(transactional_id, place, batch)
            if code == OK:
                code, base = log.append(batch)
            sequences = batch.producer_id, batch.epoch, batch.sequence, len(batch.records)
            self.cluster.trace("append", place, sequences, code, base)
        return code, base

    def _verify(self, transactional_id: str | None, place: Place, batch: Batch) -> int:
        """Refuse a batch of no transaction that the coordinator knows (KIP-890, part 1)."""
        if not batch.is_transactional:
            return OK
        known = self.cluster.transactions[transactional_id or ""]
        if batch.epoch < known.epoch:
            return INVALID_PRODUCER_EPOCH
        is_part = known.state == "ongoing" and place in known.places
        return OK if is_part else INVALID_TXN_STATE

    # the transaction coordinator

    def _not_here(self, key: str) -> int:
        if self.cluster.coordinator(key) is not self:
            return NOT_COORDINATOR
        return LOADING if self.cluster.is_loading(key) else OK

    def _InitProducerId(self, request: Any) -> Any:
        respond = _response("InitProducerId")
        cluster, key = self.cluster, request.transactional_id
        if key is None:
            return respond(0, OK, cluster.new_producer_id(), 0)
        if code := self._not_here(key):
            return respond(0, code, -1, -1)
        known = cluster.transactions.get(key)
        if known is None:
            known = cluster.transactions[key] = Transaction(cluster.new_producer_id())
        if known.state == "ongoing":
            # fences the owner; the abort is under way when it is asked again
            known.epoch += 1
            cluster.prepare(known, "abort")
            return respond(0, CONCURRENT_TRANSACTIONS, -1, -1)
        if known.state == "preparing":
            return respond(0, CONCURRENT_TRANSACTIONS, -1, -1)
        known.epoch += 1
        known.state, known.timeout_s = "empty", request.transaction_timeout_ms / 1000
        return respond(0, OK, known.producer_id, known.epoch)

    def _known(self, request: Any) -> tuple[int, Transaction]:
        """Return the transaction of a request, and why the coordinator refuses it."""
        known = self.cluster.transactions.get(request.transactional_id)
        if code := self._not_here(request.transactional_id):
            return code, Transaction(-1)
        if known is None or known.producer_id != request.producer_id:
            return INVALID_PRODUCER_ID_MAPPING, Transaction(-1)
        return (OK if known.epoch == request.producer_epoch else INVALID_PRODUCER_EPOCH), known

    def _AddPartitionsToTxn(self, request: Any) -> Any:
        code, known = self._known(request)
        if not code and known.state == "preparing":
            code = CONCURRENT_TRANSACTIONS
        if not code:
            self.cluster.begin(known)
            known.places |= dict.fromkeys((topic, p) for topic, ps in request.topics for p in ps)
        return _response("AddPartitionsToTxn")(
            0, [(topic, [(p, code) for p in ps]) for topic, ps in request.topics]
        )

    def _fail_AddPartitionsToTxn(self, request: Any, fate: Fate) -> Any:
        if fate.applied:
            self._AddPartitionsToTxn(request)
        places = [(topic, p) for topic, ps in request.topics for p in ps]
        victim = self.cluster.schedule.random.choice(places)
        is_of_one = fate.code in (UNKNOWN_TOPIC, TOPIC_AUTHORIZATION)
        codes = {place: NOT_ATTEMPTED if is_of_one and place != victim else fate.code for place in places}
        return _response("AddPartitionsToTxn")(
            0, [(topic, [(p, codes[topic, p]) for p in ps]) for topic, ps in request.topics]
        )

    def _AddOffsetsToTxn(self, request: Any) -> Any:
        code, known = self._known(request)
        if not code and known.state == "preparing":
            code = CONCURRENT_TRANSACTIONS
        if not code:
            self.cluster.begin(known)
            known.groups[request.group_id] = None
        return _response("AddOffsetsToTxn")(0, code)

    def _TxnOffsetCommit(self, request: Any) -> Any:
        offsets, code = self.cluster.offsets, self._not_here(request.group_id)
        if not code and request.producer_epoch < offsets.epochs.get(request.producer_id, -1):
            code = INVALID_PRODUCER_EPOCH
        known = self.cluster.transactions.get(request.transactional_id)
        if not code and (known is None or known.state != "ongoing" or request.group_id not in known.groups):
            code = INVALID_TXN_STATE
        if not code:
            pending = offsets.pending.setdefault(request.producer_id, {})
            pending |= {(topic, p): offset for topic, ps in request.topics for p, offset, _ in ps}
        return self._offset_codes(request, code)

    def _fail_TxnOffsetCommit(self, request: Any, fate: Fate) -> Any:
        if fate.applied:
            self._TxnOffsetCommit(request)
        return self._offset_codes(request, fate.code)

    def _offset_codes(self, request: Any, code: int) -> Any:
        return _response("TxnOffsetCommit")(
            0, [(topic, [(p, code) for p, _, _ in ps]) for topic, ps in request.topics]
        )

    def _EndTxn(self, request: Any) -> Any:
        code, known = self._known(request)
        outcome: Outcome = "commit" if request.transaction_result else "abort"
        if not code:
            if known.state == "ongoing":
                self.cluster.prepare(known, outcome)
            elif known.state == "empty" or known.outcome != outcome:
                code = INVALID_TXN_STATE
            elif known.state == "preparing":
                code = CONCURRENT_TRANSACTIONS
        return _response("EndTxn")(0, code)


def _response(api: str) -> Any:
    return _RESPONSES[api]


_RESPONSES = {api: request.RESPONSE_TYPE for api, request in REQUESTS.values()}


def _blank(api: str, response: Any, error_code: int) -> Any:
    """Return a response that says nothing but an error code."""
    kind = _response(api)
    blanks = {"error_message": None, "host": "", "coordinator_id": -1, "port": -1}
    values = [error_code if name == "error_code" else blanks.get(name, 0) for name in kind.SCHEMA.names]
    return kind(*values)
