from pathlib import Path

import pytest

from streams.engine import failpoints
from streams.settings import VARIABLES
from streams.topics import CATALOGUE

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CONTRACT = (ROOT / "docs/contract.md").read_text()


@pytest.mark.parametrize("variable", [variable.name for variable in VARIABLES])
def test_every_setting_stands_in_the_readme(variable: str) -> None:
    """Who may set a variable finds it documented."""
    assert f"`{variable}`" in README


@pytest.mark.parametrize("topic", [topic.name for topic in CATALOGUE])
def test_every_topic_stands_in_the_contract(topic: str) -> None:
    """Who may produce or consume a topic finds it documented."""
    assert f"`delivery.{topic}`" in CONTRACT


def test_the_readme_fits_its_first_screens() -> None:
    """120 lines at most; the rest stands under docs/."""
    assert len(README.splitlines()) <= 120


def test_every_trap_is_told() -> None:
    """Each of the twenty-three traps has its cure and its place in docs/engine.md."""
    engine = (ROOT / "docs/engine.md").read_text()

    assert [n for n in range(1, 24) if f"\n| {n} " not in engine] == []


def test_every_step_of_a_commit_is_a_failpoint() -> None:
    """The commit passes each named point, so a test that kills there does kill."""
    engine = (ROOT / "streams/engine/transactions.py").read_text() + (
        ROOT / "streams/engine/lanes.py"
    ).read_text()

    assert [name for name in failpoints.NAMES if f'passed("{name}")' not in engine] == []
