"""The simulated network: what aiokafka's client gets in place of its connections.

Requests and responses are aiokafka's own structures, without the bytes between them: encoding them twice a
request took a third of the time of a run, and their codecs are not under test here. Record batches are bytes.
Each connection is a pair of ordered queues, as TCP's are; different connections overtake each other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from aiokafka.client import CloseReason
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.coordination import FindCoordinatorRequest_v1
from aiokafka.protocol.metadata import MetadataRequest_v1
from aiokafka.protocol.produce import ProduceRequest_v7
from aiokafka.protocol.transaction import (
    AddOffsetsToTxnRequest_v0,
    AddPartitionsToTxnRequest_v0,
    EndTxnRequest_v0,
    InitProducerIdRequest_v0,
    TxnOffsetCommitRequest_v0,
)
from aiokafka.util import wait_for

from tests.simulation.loop import NOWHERE, SimulatedLoop, current_process
from tests.simulation.schedule import Fate, Schedule

__all__ = ["REQUESTS", "Connection", "Network"]

#: The requests that the brokers understand, each in one version.
REQUESTS: dict[int, tuple[str, Any]] = {
    request.API_KEY: (request.__name__.removesuffix(f"Request_v{request.API_VERSION}"), request)
    for request in (
        FindCoordinatorRequest_v1,
        MetadataRequest_v1,
        ProduceRequest_v7,
        InitProducerIdRequest_v0,
        AddPartitionsToTxnRequest_v0,
        AddOffsetsToTxnRequest_v0,
        TxnOffsetCommitRequest_v0,
        EndTxnRequest_v0,
    )
}

#: So much later than the one before it arrives what would arrive earlier or at once, seconds.
BEHIND_S = 1e-6
#: So much longer takes a request for metadata while a partition has no leader, seconds.
UNCALM_S = 0.05

#: What brokers say of the versions that they understand.
VERSIONS = {key: (request.API_VERSION, request.API_VERSION) for key, (_, request) in REQUESTS.items()}


class Network:
    """Connects processes with nodes."""

    def __init__(
        self, loop: SimulatedLoop, schedule: Schedule, nodes: dict[str, Any], trace: Callable[..., None]
    ) -> None:
        self.loop = loop
        self.schedule = schedule
        self.trace = trace
        self._nodes = nodes
        loop.connect = self.connect

    async def connect(
        self,
        host: str,
        port: int,
        *,
        request_timeout_ms: int,
        on_close: Callable[[Connection, CloseReason | None], None] | None = None,
        **_: Any,
    ) -> Connection:
        """Connect the current process with a node, as aiokafka's `create_conn` does.

        Raises:
            ConnectionRefusedError: the node is down, or the schedule says so.
        """
        node = self._nodes[host]
        await asyncio.sleep(self.schedule.latency_s())
        if not node.is_up or self.schedule.happens("refused connection"):
            raise ConnectionRefusedError(f"{host}:{port}")
        return Connection(self, node, port, request_timeout_ms / 1000, on_close)


class Connection:
    """Both ends of a connection between a process and a node; to aiokafka, an `AIOKafkaConnection`."""

    def __init__(
        self,
        network: Network,
        node: Any,
        port: int,
        timeout_s: float,
        on_close: Callable[[Connection, CloseReason | None], None] | None,
    ) -> None:
        process = current_process()
        assert process is not None
        self.process = process
        self.host, self.port = node.host, port
        self._network = network
        self._loop = network.loop
        self._node = node
        self._timeout_s = timeout_s
        self._on_close = on_close
        self._closed = self._loop.create_future()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._is_open = True
        # broken: nothing arrives any more, though the client does not know yet
        self._is_broken = False
        self._is_mute = False
        self._there = self._back = 0.0
        node.connections[self] = None

    # the client's end

    def send(self, request: Any, expect_response: bool = True) -> Coroutine[Any, Any, Any]:
        """Send a request; the result is its response.

        Raises:
            KafkaConnectionError: the connection is closed.
        """
        if not self._is_open:
            raise KafkaConnectionError(f"No connection to broker at {self.host}:{self.port}")
        built = request.prepare(VERSIONS)
        name, _ = REQUESTS[built.API_KEY]
        fate = self._network.schedule.fate(name)
        if name == "Metadata" and not self._node.is_calm:
            # aiokafka asks again at once while a partition has no leader, which makes many steps
            fate = replace(fate, there_s=fate.there_s + UNCALM_S)
        self._there = max(self._there + BEHIND_S, self._loop.time() + fate.there_s)
        future = self._loop.create_future()
        self._waiting.append(future)
        self._loop.call_at(self._there, self._arrive, name, built, fate, context=NOWHERE.copy())
        return wait_for(future, self._timeout_s)

    def connected(self) -> bool:
        """Return whether the connection is open."""
        return self._is_open

    def close(self, reason: CloseReason | None = None, exc: BaseException | None = None) -> Any:
        """Close from the client's side; what was sent still arrives."""
        if self._is_open:
            self._is_open = False
            self._node.connections.pop(self, None)
            for future in self._waiting:
                if not future.done():
                    error = KafkaConnectionError(f"Connection at {self.host}:{self.port} closed")
                    error.__cause__ = exc
                    future.set_exception(error)
            self._waiting.clear()
            if self._on_close is not None:
                self._on_close(self, reason)
            self._closed.set_result(None)
        return self._closed

    # the node's end

    def _arrive(self, name: str, request: Any, fate: Fate) -> None:
        trace = self._network.trace
        if fate.kind == "lost request" or self._is_broken or not self._node.is_up:
            trace("lost", self.process.name, name)
            self.break_off()
            return
        if fate.kind == "error":
            response = self._node.fail(name, request, fate)
        else:
            response = self._node.handle(name, request) if fate.applied else None
        trace(fate.kind, self.process.name, self._node.host, name, request, response)
        if fate.kind == "lost response":
            self.break_off()
        elif fate.kind == "no response" or response is None:
            self._is_mute = True
        elif not self._is_mute:
            self._back = max(self._back + BEHIND_S, self._loop.time() + fate.back_s)
            self._loop.call_at(self._back, self._answer, response, context=self.process.context.copy())

    def _answer(self, response: Any) -> None:
        """Resolve the oldest request: a node answers in the order in which it is asked."""
        if self._is_open and not self._is_broken:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(response)

    def break_off(self) -> None:
        """Have the connection break, as the client sees soon."""
        if self._is_open and not self._is_broken:
            self._is_broken = True
            self._node.connections.pop(self, None)
            delay = self._network.schedule.latency_s()
            self._loop.call_later(delay, self._lose, context=self.process.context.copy())

    def _lose(self) -> None:
        self.close(CloseReason.CONNECTION_BROKEN, ConnectionResetError("the connection broke"))
