import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from click.testing import CliRunner

from streams.kafka import broker as broker_module
from streams.kafka import probe
from streams.kafka.broker import EmbeddedKafka
from streams.kafka.cli import kafka as command
from streams.kafka.errors import BrokerFailed, BrokerRunning, DiskFull, PortTaken
from streams.kafka.topics import PartitionMismatch, TopicsRefused, create_topics
from streams.kafka.watchdog import end

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.kafka


def topic(name, partitions=2, **config):
    return SimpleNamespace(
        name=name,
        role="input",
        partitions=partitions,
        config={key.replace("_", "."): value for key, value in config.items()},
    )


def is_alive(pid):
    """Tell whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, within_s):
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


@pytest.fixture
def taken_port():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


async def test_a_record_of_ten_megabytes_comes_back_as_it_was(kafka, names):
    """The largest callback that must become a dead letter fits, with both clients' defaults raised."""
    name = names.topic("large")
    await create_topics(kafka.url, [topic(name, 1)])
    value = os.urandom(10 * 2**20)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, max_request_size=17 * 2**20) as producer:
        sent = await producer.send_and_wait(name, value, key=b"k", headers=[("h", b"v")])
    async with AIOKafkaConsumer(
        name, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest"
    ) as consumer:
        record = await consumer.getone()

    assert (record.offset, record.key, record.headers) == (sent.offset, b"k", (("h", b"v"),))
    assert record.value == value


async def test_topics_are_made_once(kafka, names):
    """The second call finds them and makes nothing."""
    specs = [topic(names.topic("a"), 3, cleanup_policy="compact"), topic(names.topic("b"), 3)]

    assert await create_topics(kafka.url, specs) == [names.topic("a"), names.topic("b")]
    assert await create_topics(kafka.url, specs) == []


async def test_another_partition_count_is_named_and_nothing_is_made(kafka, names):
    """Topics that share their keys must agree, or a message and its record lie on different partitions."""
    await create_topics(kafka.url, [topic(names.topic("requests"), 4)])
    wanted = [topic(names.topic("requests"), 8), topic(names.topic("statuses"), 8)]

    with pytest.raises(PartitionMismatch, match="requests has 4, not 8") as mismatch:
        await create_topics(kafka.url, wanted)

    assert mismatch.value.counts == {names.topic("requests"): (4, 8)}
    assert await create_topics(kafka.url, [wanted[1]]) == [names.topic("statuses")], "it was not made before"


async def test_what_the_broker_refuses_is_said_in_its_words(kafka, names):
    """A setting that the broker does not know is named in the error, so that it can be mended."""
    with pytest.raises(TopicsRefused, match=r"no\.such\.setting"):
        await create_topics(kafka.url, [topic(names.topic("odd"), no_such_setting="1")])


def test_it_starts_offline_once_the_jars_are_there(kafka, tmp_path):
    """Two starts on one directory, with jgo unimportable and no name but 127.0.0.1 resolvable."""
    script = """
import socket, sys
from pathlib import Path
sys.modules["jgo"] = sys.modules["requests"] = None
ask = socket.getaddrinfo
def offline(host, *rest, **more):
    assert host == "127.0.0.1", f"asked the network for {host}"
    return ask(host, *rest, **more)
socket.getaddrinfo = offline
from streams.kafka.broker import EmbeddedKafka
ports = []
for _ in range(2):
    with EmbeddedKafka(Path(sys.argv[1])) as broker:
        assert broker.status().serving
        ports.append(broker.port)
    assert broker.status() is None
assert ports[0] != ports[1]
"""
    subprocess.run([sys.executable, "-c", script, tmp_path / "data"], cwd=ROOT, check=True, timeout=60)


def test_a_taken_port_is_named(taken_port):
    """Said at once, before a JVM is started."""
    with pytest.raises(PortTaken, match=f"port {taken_port} on 127.0.0.1 is taken") as error:
        EmbeddedKafka(port=taken_port).start()

    assert "0 takes any free one" in str(error.value)


def test_too_little_space_is_said_before_it_starts(tmp_path, monkeypatch):
    """Free and needed space stand in the message, and no JVM is started."""
    monkeypatch.setattr(broker_module, "ensure_jars", lambda **_: [])
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=2**20))

    with pytest.raises(DiskFull, match=r"1 MiB are free at .*, 256 MiB are needed"):
        EmbeddedKafka(tmp_path).start()


@pytest.mark.parametrize(
    ("log", "error"),
    [
        ("java.io.IOException: No space left on device", DiskFull),
        ("java.net.BindException: Address already in use", PortTaken),
        ("java.lang.IllegalStateException: odd", BrokerFailed),
    ],
)
def test_a_broker_that_ends_is_explained_by_its_log(tmp_path, monkeypatch, log, error):
    """What only the broker meets is told in the same words; what is not known comes with the log's end."""
    failing = tmp_path / "java"
    failing.write_text(f'#!/bin/sh\necho "{log}"\nexit 1\n')
    failing.chmod(0o755)
    monkeypatch.setattr(broker_module, "ensure_jars", lambda **_: [])
    monkeypatch.setattr(broker_module, "find_java", lambda: failing)
    (tmp_path / "data" / "topics").mkdir(parents=True)
    (tmp_path / "data" / "topics" / "meta.properties").touch()
    broker = EmbeddedKafka(tmp_path / "data")

    with pytest.raises(error) as failure:
        broker.start()

    assert broker.status() is None
    if error is BrokerFailed:
        assert log in str(failure.value)


def test_a_temporary_directory_goes_with_the_broker():
    """Without a directory of one's own, neither process nor files are left at the end."""
    with EmbeddedKafka() as broker:
        pid = broker.status().pid
    assert not is_alive(pid)
    assert not broker.data_dir.exists()


def test_a_broker_that_does_not_heed_sigterm_is_gone_within_five_seconds():
    """A stopped process (SIGSTOP) cannot act on SIGTERM; SIGKILL ends it all the same."""
    with EmbeddedKafka() as broker:
        pid = broker.status().pid
        os.kill(pid, signal.SIGSTOP)
        asked = time.monotonic()
    assert time.monotonic() - asked < 5
    assert not is_alive(pid)


def test_it_does_not_outlive_an_owner_that_is_killed():
    """The owner gets SIGKILL and can do nothing more; broker, watchdog and directory go all the same."""
    script = """
import json, time
from streams.kafka.broker import EmbeddedKafka
with EmbeddedKafka() as broker:
    print(json.dumps([broker.status().pid, str(broker.data_dir)]), flush=True)
    time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as owner:
        pid, directory = json.loads(owner.stdout.readline())
        assert is_alive(pid)
        owner.kill()
    wait_until(lambda: not is_alive(pid), within_s=6)
    wait_until(lambda: not Path(directory).exists(), within_s=2)


def test_the_commands_start_tell_stop_and_forget(tmp_path):
    """`up` leaves it running and ends with its URL; a second `up` finds it; `reset` forgets the topics."""
    data = tmp_path / "kafka"

    def say(*arguments):
        ran = CliRunner().invoke(command, [*arguments, "--dir", str(data)])
        return ran.exit_code, ran.output.splitlines()

    up = subprocess.run(
        [sys.executable, "-m", "streams.kafka.cli", "up", "--port", "0", "--dir", data],
        cwd=ROOT,
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    )
    url = up.stdout.splitlines()[-1]
    running = EmbeddedKafka(data).status()
    try:
        assert running.serving and url == running.url == f"kafka://127.0.0.1:{running.port}"
        assert say("up")[1][-1] == url
        assert say("status") == (0, [f"pid {running.pid}, data in {data}, serving", url])
        with pytest.raises(BrokerRunning, match=url):
            EmbeddedKafka(data).start()
        assert probe.serves(running.port), "the one that runs is left alone"
        assert say("down") == (0, [f"Stopped (pid {running.pid})."])
        assert say("status") == (1, ["No broker runs."])
        assert (data / "topics").exists()
        assert say("reset")[0] == 0
        assert not data.exists()
    finally:
        end(running.pid, 1)


def test_a_command_says_in_words_what_keeps_it_from_working(tmp_path, taken_port):
    """What is expected to go wrong ends a command with 1 and a line, never a traceback."""
    ran = CliRunner().invoke(command, ["up", "--port", str(taken_port), "--dir", str(tmp_path)])

    assert ran.exit_code == 1
    assert ran.output.startswith(f"Error: port {taken_port} on 127.0.0.1 is taken")


def test_a_pid_file_of_a_process_that_is_another_now_counts_for_nothing(tmp_path):
    """Process ids are used again; ours is known by its configuration."""
    broker = EmbeddedKafka(tmp_path)
    broker.pid_file.write_text(json.dumps({"pid": os.getpid(), "port": 9}))

    assert broker.status() is None
