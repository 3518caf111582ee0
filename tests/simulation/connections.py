"""The simulated network: what `loop.create_connection` returns to aiokafka's real connections.

Bytes go in and out, so aiokafka's client, connections, correlation ids, time-outs and codecs are real.
Each connection is a pair of ordered queues, as TCP's are; different connections overtake each other.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

from aiokafka.protocol.admin import ApiVersionRequest_v0
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

from tests.simulation.loop import NOWHERE, SimulatedLoop, current_process
from tests.simulation.schedule import Fate, Schedule

__all__ = ["REQUESTS", "Connection", "Network"]

#: The requests that the brokers understand, each in one version.
REQUESTS: dict[int, tuple[str, Any]] = {
    request.API_KEY: (request.__name__.removesuffix(f"Request_v{request.API_VERSION}"), request)
    for request in (
        ApiVersionRequest_v0,
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

HEADER = struct.Struct(">ihhih")


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

    async def connect(self, factory: Callable[[], Any], host: str, port: int) -> tuple[Connection, Any]:
        """Connect the current process with a node, as `loop.create_connection` does.

        Raises:
            ConnectionRefusedError: the node is down, or the schedule says so.
        """
        node = self._nodes[host]
        await asyncio.sleep(self.schedule.latency_s())
        if not node.is_up or self.schedule.happens("refused connection"):
            raise ConnectionRefusedError(f"{host}:{port}")
        protocol = factory()
        connection = Connection(self, node, protocol)
        protocol.connection_made(connection)
        return connection, protocol


class Connection(asyncio.Transport):
    """Both ends of a connection between a process and a node."""

    def __init__(self, network: Network, node: Any, protocol: Any) -> None:
        super().__init__()
        process = current_process()
        assert process is not None
        self.process = process
        self._network = network
        self._loop = network.loop
        self._node = node
        self._protocol = protocol
        self._is_open = True
        self._is_mute = False
        self._there = self._back = 0.0
        node.connections[self] = None

    # the client's end

    def write(self, data: Any) -> None:
        """Send one whole frame: aiokafka writes each request at once."""
        if not self._is_open:
            return
        frame = bytes(data)
        _, key, version, correlation, client = HEADER.unpack_from(frame)
        name, request = REQUESTS[key]
        assert version == request.API_VERSION
        body = request.decode(BytesIO(frame[HEADER.size + max(client, 0) :]))
        fate = self._network.schedule.fate(name)
        if name == "Metadata" and not self._node.is_calm:
            # aiokafka asks again at once while a partition has no leader, which makes many steps
            fate = replace(fate, there_s=fate.there_s + UNCALM_S)
        self._there = max(self._there + BEHIND_S, self._loop.time() + fate.there_s)
        arrive = self._arrive, name, body, correlation, fate
        self._loop.call_at(self._there, *arrive, context=NOWHERE.copy())

    def close(self) -> None:
        """Close from the client's side; what was sent still arrives."""
        if self._is_open:
            self._close()
            self._loop.call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        """Close, likewise."""
        self.close()

    def is_closing(self) -> bool:
        """Return whether the connection is closed."""
        return not self._is_open

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return nothing: there is no socket."""
        return default

    # the node's end

    def _arrive(self, name: str, request: Any, correlation: int, fate: Fate) -> None:
        trace = self._network.trace
        if fate.kind == "lost request" or not self._node.is_up:
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
            payload = response if isinstance(response, bytes) else response.encode()
            frame = struct.pack(">ii", len(payload) + 4, correlation) + payload
            self._back = max(self._back + BEHIND_S, self._loop.time() + fate.back_s)
            self._loop.call_at(self._back, self._answer, frame, context=self.process.context.copy())

    def _answer(self, frame: bytes) -> None:
        if self._is_open:
            self._protocol.data_received(frame)

    def break_off(self) -> None:
        """Have the connection break, as the client sees soon."""
        if self._is_open:
            self._node.connections.pop(self, None)
            delay = self._network.schedule.latency_s()
            self._loop.call_later(delay, self._lose, context=self.process.context.copy())

    def _lose(self) -> None:
        if self._is_open:
            self._close()
            self._protocol.connection_lost(ConnectionResetError("the connection broke"))

    def _close(self) -> None:
        self._is_open = False
        self._node.connections.pop(self, None)
