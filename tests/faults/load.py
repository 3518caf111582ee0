"""A producer that keeps hostile traffic flowing while workers die."""

import threading
import time
from itertools import count
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException, Producer

from .logs import Names
from .traffic import HUGE_BYTES, traffic

CHUNK_MESSAGES = 100
#: The traffic of a chunk is stamped as of the recent past: receipts in the future are nobody's.
BEHIND_MS = 20_000


class Load:
    """Traffic at a steady rate from a thread of its own, until the block is left.

    Leaving it waits for the last acknowledgement, so that what was produced is what the log holds.
    """

    def __init__(self, names: Names, seed: int, records_per_second: float) -> None:
        self.names = names
        self.seed = seed
        self.rate = records_per_second
        self.produced = 0
        self.huge = 0  # how many of them have HUGE_BYTES
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._producer = Producer(
            {
                "bootstrap.servers": names.bootstrap,
                "enable.idempotence": True,
                "linger.ms": 20,
                "log_level": 0,  # failures are collected
                "message.max.bytes": HUGE_BYTES * 2,
            }
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        left = self._producer.flush(30)
        if error is None and (left or self.failures):
            raise RuntimeError(f"the load could not be produced: {left} left, {self.failures[:3]}")

    def _run(self) -> None:
        try:
            self._produce()
        except (KafkaException, BufferError) as error:
            self.failures.append(str(error))

    def _produce(self) -> None:
        began = time.monotonic()
        for chunk in count():
            start_ms = time.time_ns() // 1_000_000 - BEHIND_MS
            seed = self.seed * 10_000 + chunk
            for sent in traffic(seed, CHUNK_MESSAGES, self.names.partitions, start_ms, huge=chunk == 1):
                if self._stop.wait(max(0.0, began + self.produced / self.rate - time.monotonic())):
                    return
                self._producer.produce(
                    self.names.input(sent.stream),
                    value=sent.value,
                    key=sent.key,
                    partition=sent.partition,
                    timestamp=sent.at,
                    headers=list(sent.headers),
                    on_delivery=self._delivered,
                )
                self.produced += 1
                self.huge += len(sent.value or b"") == HUGE_BYTES
                self._producer.poll(0)

    def _delivered(self, error: object, _message: object) -> None:
        if error is not None:
            self.failures.append(str(error))
