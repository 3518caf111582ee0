from streams.kafka.storage import format_once, is_formatted


def tool(directory, calls):
    def format_anew():
        calls.append(directory)
        (directory / "meta.properties").write_text("version=1")

    return format_anew


def test_the_tool_runs_once_and_its_work_is_copied_after(tmp_path):
    """The second directory gets the same files without the tool."""
    calls = []
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
        format_once(directory, tmp_path / "cache" / "formatted", tool(directory, calls))

    assert calls == [first]
    assert is_formatted(second)
    assert (second / "meta.properties").read_text() == "version=1"


def test_two_that_format_at_once_do_not_disturb_each_other(tmp_path):
    """Whoever comes second leaves the template as it is, and nothing beside it."""
    template = tmp_path / "cache" / "formatted"
    calls = []
    mine = tmp_path / "mine"
    mine.mkdir()

    def while_another_finishes():
        tool(mine, calls)()
        template.mkdir(parents=True)
        (template / "meta.properties").write_text("the other's")

    format_once(mine, template, while_another_finishes)

    assert (template / "meta.properties").read_text() == "the other's"
    assert [path.name for path in template.parent.iterdir()] == ["formatted"]
