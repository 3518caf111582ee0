"""Webhooks are delivered whatever receivers do, and however often the worker is killed."""

from pathlib import Path
from typing import Any

import pytest

from .hooks import hooks_run
from .logs import Names
from .runs import profile_from_env, seed_from_env

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(600)]
PARTITIONS = 4


def test_every_webhook_arrives_in_order_and_by_the_schedule(kafka: Any, names: Any, tmp_path: Path) -> None:
    """Refused, failed, reset, slow, endless, redirected, with bad TLS, while the worker is killed."""
    profile, seed = profile_from_env(), seed_from_env()
    print(f"FAULTS_SEED={seed}")
    topics = Names(kafka.bootstrap, names.app_id, names.prefix, PARTITIONS)

    report = hooks_run(topics, tmp_path, seed, profile.hooks_s, lambda line: None)

    print(report)
    assert not report.faults(), str(report)
    assert report.kills >= profile.hooks_kills
    assert report.senders_killed
    assert report.attempts > report.expected
