"""Under which names a demonstration keeps its topics and its group."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from streams.demo.traffic import Stream
from streams.topics import PlacedTopic, names, placed

DEFAULT_PREFIX = "delivery."
DEFAULT_APP_ID = "delivery-tracker"


@dataclass(frozen=True)
class Place:
    """Names and partition count; enough to produce, to start a worker and to look at what it did."""

    app_id: str
    topic_prefix: str
    partitions: int

    @property
    def inputs(self) -> dict[Stream, str]:
        """The topics that the traffic goes to."""
        full = names(self.topic_prefix)
        return {"requests": full.requests, "statuses": full.statuses}

    @property
    def events(self) -> str:
        """The topic that events come from."""
        return names(self.topic_prefix).events

    def topics(self) -> list[PlacedTopic]:
        """All topics that must be there."""
        return placed(self.topic_prefix, self.partitions)


def choose_place(environment: Mapping[str, str], *, own_broker: bool, partitions: int) -> Place:
    """The usual names on a broker of our own, which is empty; fresh names on one that others use.

    Names that the environment sets are taken as they are.
    """
    fresh = "" if own_broker else f"demo-{int(time.time())}"
    return Place(
        app_id=environment.get("TRACKER_APP_ID") or fresh or DEFAULT_APP_ID,
        topic_prefix=environment.get("TRACKER_TOPIC_PREFIX") or (f"{fresh}." if fresh else DEFAULT_PREFIX),
        partitions=partitions,
    )
