"""Under which names a demonstration keeps its topics and its group."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

from streams.demo.traffic import Stream
from streams.settings import Settings
from streams.topics import PlacedTopic, names, placed

PROCESSES = min(2, os.cpu_count() or 1)
"""Of the worker: two show that they share the work, and the broker needs a core, too."""

DEFAULTS = {
    "TRACKER_BROKER_URL": "an embedded broker",
    "TRACKER_APP_ID": "delivery-tracker; a fresh one on a broker that you name",
    "TRACKER_TOPIC_PREFIX": "delivery.; a fresh one on a broker that you name",
    "TRACKER_PARTITIONS": "4",
    "TRACKER_DATA_DIR": "always one of its own, gone afterwards",
    "TRACKER_WEB_PORT": "6066; a free one if it is taken",
    "TRACKER_PROCESSES": str(PROCESSES),
}
"""What stands for a variable that is not set, in words, where it is another than for a worker."""


@dataclass(frozen=True)
class Place:
    """Names and partition count; enough to produce, to start a worker and to look at what it did."""

    app_id: str
    topic_prefix: str
    partitions: int

    @property
    def inputs(self) -> dict[Stream, str]:
        """The topics that the traffic goes to."""
        found = names(self.topic_prefix)
        return {"requests": found.requests, "statuses": found.statuses}

    @property
    def events(self) -> str:
        """The topic that events come from."""
        return names(self.topic_prefix).events

    def topics(self) -> list[PlacedTopic]:
        """All topics that must be there."""
        return placed(self.topic_prefix, self.partitions)


def settings_from(environment: Mapping[str, str], *, partitions: int | None = None) -> Settings:
    """Read the environment; what it leaves open gets the demonstration's own defaults.

    These are the usual names on a broker of our own, which is empty, and fresh names on one that others use.

    Raises:
        InvalidSetting: names the first variable that cannot be used.
    """
    defaults = {name: DEFAULTS[name] for name in ("TRACKER_PARTITIONS", "TRACKER_PROCESSES")}
    if environment.get("TRACKER_BROKER_URL"):
        fresh = f"demo-{int(time.time())}"
        defaults |= {"TRACKER_APP_ID": fresh, "TRACKER_TOPIC_PREFIX": f"{fresh}."}
    given = {name: value for name, value in environment.items() if value}
    asked = {} if partitions is None else {"TRACKER_PARTITIONS": str(partitions)}
    return Settings.from_env({**defaults, **given, **asked})


def place_of(settings: Settings) -> Place:
    """Return where a run with these settings takes place."""
    return Place(settings.app_id, settings.topic_prefix, settings.partitions)
