"""Where the embedded broker keeps its things on this machine."""

import os
from pathlib import Path

_OURS = "delivery-tracker"


def cache_dir() -> Path:
    """What can be fetched again: Kafka's jars. Follows XDG_CACHE_HOME."""
    return _base("XDG_CACHE_HOME", ".cache") / _OURS


def default_data_dir() -> Path:
    """The log and topics of `kafka up`. TRACKER_KAFKA_DIR names another place."""
    chosen = os.environ.get("TRACKER_KAFKA_DIR")
    return Path(chosen).expanduser() if chosen else _base("XDG_STATE_HOME", ".local/state") / _OURS / "kafka"


def _base(variable: str, below_home: str) -> Path:
    value = os.environ.get(variable)
    return Path(value) if value else Path.home() / below_home
