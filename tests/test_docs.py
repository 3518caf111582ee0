import re
from pathlib import Path
from typing import Any, get_args

import pytest
from aiohttp import web

from streams.domain.errors import MalformedCode
from streams.domain.statuses import Status
from streams.engine import failpoints
from streams.messages import EventType
from streams.processes import SUPERVISED
from streams.settings import DEVELOPMENT_VARIABLES, VARIABLES
from streams.topics import CATALOGUE
from streams.web.counting import StatsTables
from streams.web.views import mount

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CONTRACT = (ROOT / "docs/contract.md").read_text()
#: Their numbers in docs/engine.md.
TRAPS = range(1, 30)


@pytest.mark.parametrize("variable", [variable.name for variable in VARIABLES])
def test_every_setting_stands_in_the_readme(variable: str) -> None:
    """Who may set a variable finds it documented."""
    assert f"`{variable}`" in README


def test_every_variable_of_development_stands_in_its_page() -> None:
    """Who works on the tracker finds them; those who run it need not know them."""
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    ours = {variable.name for variable in DEVELOPMENT_VARIABLES} | {SUPERVISED, "STREAMS_FAILPOINT"}

    assert {name for name in ours if f"`{name}" not in contributing} == set()


@pytest.mark.parametrize("topic", [topic.name for topic in CATALOGUE])
def test_every_topic_stands_in_the_contract(topic: str) -> None:
    """Who may produce or consume a topic finds it documented."""
    assert f"`delivery.{topic}`" in CONTRACT


def routes() -> list[str]:
    application = web.Application()
    absent: Any = None
    mount(application, absent, StatsTables(absent, absent, absent), absent, 1, absent, absent, absent, absent)
    routes = [(route.method, route.resource) for route in application.router.routes()]
    called = {(method, resource.canonical) for method, resource in routes if resource is not None}
    return sorted(f"{method} {path}" for method, path in called if method != "HEAD")


@pytest.mark.parametrize("route", routes())
def test_every_route_stands_in_the_contract(route: str) -> None:
    """Who may call a view finds it documented, with or without a query."""
    assert re.search(rf"`{re.escape(route)}[`?]", CONTRACT)


@pytest.mark.parametrize("name", [*get_args(EventType), *get_args(MalformedCode)])
def test_every_event_type_and_dead_letter_code_has_its_row(name: str) -> None:
    """Who branches on a type or a code finds what it means."""
    assert re.search(rf"^\| [^|]*`{re.escape(name)}`[^|]* \|", CONTRACT, re.MULTILINE)


@pytest.mark.parametrize("status", get_args(Status))
def test_every_status_stands_in_the_contract(status: str) -> None:
    """Who reads a status finds where it stands in the order."""
    assert re.search(rf"^- Status of an attempt: [^\n]*\b{status}\b", CONTRACT, re.MULTILINE)


@pytest.mark.parametrize(
    "page", ["README.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_every_relative_link_leads_somewhere(page: str) -> None:
    """A link to a file of ours names one that is there."""
    targets = re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", (ROOT / page).read_text())

    assert [target for target in targets if not ((ROOT / page).parent / target).exists()] == []


def test_the_readme_fits_its_first_screens() -> None:
    """120 lines at most; the rest stands under docs/."""
    assert len(README.splitlines()) <= 120


def test_every_trap_is_told() -> None:
    """Each of the traps has its cure and its place in docs/engine.md."""
    engine = (ROOT / "docs/engine.md").read_text()

    assert [n for n in TRAPS if f"\n| {n} " not in engine] == []


def test_every_trap_is_cited_where_it_is_cured() -> None:
    """Who changes the code of a cure is warned there: each trap is cited as "trap N"."""
    files = [p for d in ("streams", "tables") for p in (ROOT / d).rglob("*.py")]
    files += (ROOT / "requirements").glob("*.in")
    cited = {int(n) for p in files for n in re.findall(r"\btrap (\d+)\b", p.read_text(), re.IGNORECASE)}

    assert sorted(cited) == list(TRAPS)


def test_every_step_of_a_commit_is_a_failpoint() -> None:
    """The commit passes each named point, so a test that kills there does kill."""
    engine = (ROOT / "streams/engine/transactions.py").read_text() + (
        ROOT / "streams/engine/lanes.py"
    ).read_text()

    assert [name for name in failpoints.NAMES if f'passed("{name}")' not in engine] == []
