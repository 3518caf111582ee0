"""What is erased is gone: from views and events; from changelogs and data directory once compacted."""

from __future__ import annotations

import json
import random
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from rocksdict import Options, Rdict

from tests.faults.cluster import Cluster, Worker, until
from tests.faults.inputs import Json
from tests.faults.logs import Names, of_messages, read_topic

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

PARTITIONS = 1
COMPACTED_S = 60.0
ERASED = "m-erased"


def secrets() -> list[str]:
    """A phone number and words that stand nowhere else; digits that no compression finds twice."""
    rng = random.Random(uuid.uuid4().int)
    return [f"+82{rng.randrange(10**14):014d}", *(f"{rng.getrandbits(80):020x}" for _ in range(3))]


def compact_soon(names: Names, topic: str) -> None:
    """Let segments be rolled and compacted at once; as it is set up, that takes up to two days."""
    admin = AdminClient({"bootstrap.servers": names.bootstrap})
    soon = {"segment.ms": "100", "max.compaction.lag.ms": "1", "min.cleanable.dirty.ratio": "0.001"}
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in soon.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(30)


def call(worker: Worker, method: str, path: str, said: Json | None = None) -> Any:
    """Call, and wait until it is committed."""
    url = f"http://127.0.0.1:{worker.port}/v1/messages{path}?wait=20s"
    body = None if said is None else json.dumps(said).encode()
    asked = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(asked, timeout=40) as answer:
        assert answer.status == 200
        return json.loads(answer.read())["outcome"]


def found_in_files(directory: Path, words: list[str]) -> set[str]:
    contents = [path.read_bytes() for path in directory.rglob("*") if path.is_file()]
    assert contents
    return {word for word in words if any(word.encode() in content for content in contents)}


def found_in_log(names: Names, topic: str, words: list[str]) -> set[str]:
    values = [raw.value or b"" for log in read_topic(names, topic).values() for raw in log]
    assert values
    return {word for word in words if any(word.encode() in value for value in values)}


def compact(data_dir: Path) -> None:
    """Have RocksDB write its files anew, as it does by itself in time."""
    stores = sorted(data_dir.rglob("*.db"))
    assert stores
    for path in stores:
        store = Rdict(str(path), Options(raw_mode=True))
        store.compact_range(None, None)
        store.close()


def test_nothing_personal_is_left_after_a_compaction(kafka: Any, tmp_path: Path) -> None:
    """Each place is looked through before, too, where it must be found: the search can find it."""
    unique = f"t{uuid.uuid4().hex[:10]}"
    names = Names(kafka.bootstrap, f"{unique}-app", f"{unique}.", PARTITIONS)
    changelog = names.changelog("deliveries")
    phone, name, words, detail = personal = secrets()
    request = {"messageId": ERASED, "phoneNumber": phone, "templateId": "otp", "provider": "solapi"}
    failed = {
        "status": "FAILED",
        "provider": "solapi",
        "phoneNumber": phone,
        "error": {"code": "30003", "message": words, "details": {"to": detail}},
    }
    with Cluster(names, tmp_path) as cluster:
        cluster.create_topics()
        compact_soon(names, changelog)
        worker = cluster.worker("w0")
        worker.start()
        cluster.await_ready(worker)
        call(worker, "POST", "", request | {"metadata": {"name": name}})
        call(worker, "POST", f"/{ERASED}/statuses", failed)
        before = worker.get(f"/v1/messages/{ERASED}")[1]
        worker.terminate()
        assert {word for word in personal if word in json.dumps(before)} == set(personal)
        assert found_in_log(names, changelog, personal) == set(personal)
        assert found_in_files(worker.data_dir, personal) == set(personal)

        worker.start()
        cluster.await_ready(worker)
        told = len(read_topic(names, f"{names.prefix}events")[0])
        assert call(worker, "POST", f"/{ERASED}/erase") == "applied"
        # it is said again, and something else happens, so that segments are rolled
        assert call(worker, "POST", f"/{ERASED}/statuses", failed | {"status": "SENT"}) == "amended"
        again = Producer({"bootstrap.servers": names.bootstrap})

        def is_compacted() -> bool:
            other = uuid.uuid4().hex
            again.produce(names.input("statuses"), json.dumps({"messageId": other, "status": "SENT"}), other)
            assert again.flush(30) == 0
            return not found_in_log(names, changelog, personal)

        until(is_compacted, COMPACTED_S, "nothing personal is left in the changelog", 0.5)
        views = [worker.get(f"/v1/messages{path}") for path in (f"/{ERASED}", f"/{ERASED}/report")]
        views.append(worker.get("/v1/messages?status=FAILED"))
        worker.terminate()
    events = of_messages(read_topic(names, f"{names.prefix}events")[0][told:])
    compact(worker.data_dir)

    assert [status for status, _ in views] == [200] * 3
    assert [word for word in personal if word in json.dumps(views)] == []
    assert b"30003" in (events[-1].value or b"") or "30003" in json.dumps(views)
    assert [word for word in personal for event in events if word.encode() in (event.value or b"")] == []
    assert found_in_files(worker.data_dir, personal) == set()
    assert [word for word in personal if word in worker.last_words(10_000)] == []
