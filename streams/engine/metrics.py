"""What the engine counts, in prometheus_client's default registry."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

__all__ = [
    "CHANGELOG_HOLES",
    "EMPTY_POLLS",
    "FIRST_UNIT",
    "GC_SECONDS",
    "HOLES",
    "LAST_COMMIT",
    "QUEUED",
    "REBUILT_STORES",
    "RECORDS",
    "RESTORED",
    "UNITS",
]

#: I5: over its outcomes this sums to the records consumed from the partition.
RECORDS = Counter("tracker_records", "Consumed records by what became of them", ["partition", "outcome"])
UNITS = Counter("tracker_units", "Units of work, each one Kafka transaction")
FIRST_UNIT = Gauge("tracker_first_unit_timestamp_seconds", "When the first unit of work began")
LAST_COMMIT = Gauge("tracker_last_commit_timestamp_seconds", "When the last unit of work was committed")
QUEUED = Gauge("tracker_queued_records", "Records waiting in the lanes")
HOLES = Counter("tracker_holes", "Batches that began after their lane's stand and were sought again")
CHANGELOG_HOLES = Counter("tracker_changelog_holes", "The same in a changelog that recovery reads")
RESTORED = Counter("tracker_restored_records", "Changelog records applied by recovery and standbys")
REBUILT_STORES = Counter("tracker_rebuilt_stores", "Stores that were rebuilt from the changelog", ["reason"])
EMPTY_POLLS = Counter(
    "tracker_empty_polls",
    "Polls that brought nothing while records waited in Kafka and the lanes had no work",
)
GC_SECONDS = Counter("tracker_gc_seconds", "Time spent in the cyclic garbage collector")
