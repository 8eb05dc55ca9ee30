"""Every block of code of the documentation runs, in the order of its page, in an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.commands import Command, only_formal, parse, prints, run
from tests.docs.pages import DOCS, blocks, name_of, pages
from tests.docs.runs import replaced, run_page

TUTORIALS = DOCS / "tutorials"  # run by `test_tutorials`, which looks at what they make


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub's uploads
@pytest.mark.parametrize("page", [page for page in pages() if page.parent != TUTORIALS], ids=name_of)
def test_a_page_runs(page: Path, tmp_path: Path, image_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page").mkdir()
    text = page.read_text(encoding="utf-8")
    run_page(name_of(page), text, tmp_path / "page", image_cache, monkeypatch)


def test_blocks_are_found_also_in_lists_and_with_snippets() -> None:
    text = """A
```python
a = 1
```
- b

    ```console title="x"
    $ ls
      x
    ```
````text
```
````
"""
    found = [(block.line, block.language, block.text) for block in blocks(text)]
    assert found == [(2, "python", "a = 1\n"), (7, "console", "$ ls\n  x\n"), (11, "text", "```\n")]
    (snippet,) = blocks('```python\n--8<-- "docs/tutorials/first_set.py"\n```\n')
    assert snippet.text.startswith("# ") and "D3HRFashionMNIST" in snippet.text
    with pytest.raises(ValueError, match="line 2 has no end"):
        blocks("A\n```python\n")


@pytest.mark.parametrize("info", ["", "bash", "pycon"])
def test_a_block_of_another_language_fails(
    info: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "page").mkdir()
    with pytest.raises(AssertionError, match="is none of"):
        run_page("docs/page.md", f"```{info}\nls\n```\n", tmp_path / "page", tmp_path, monkeypatch)


def test_a_page_is_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
```python
from pathlib import Path

a = 1
```

```console
$ export GREETING=hello
$ echo $GREETING > file; cat file
hello
```

```python
b = a + len(Path("file").read_text())
```

```json
{"a": [1]}
```
"""
    (tmp_path / "page").mkdir()
    names = run_page("docs/page.md", text, tmp_path / "page", tmp_path, monkeypatch)
    assert names["b"] == 7
    for damaged in (
        text.replace("hello\n```", "bye\n```"),
        text.replace("[1]", "[1"),
        text.replace("a + ", "c"),
    ):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        with pytest.raises((AssertionError, ValueError, NameError)) as raised:
            run_page("docs/page.md", damaged, folder, tmp_path, monkeypatch)
        assert "in the block of docs/page.md, line" in raised.value.__notes__[0]


def test_commands_are_told_from_what_they_print() -> None:
    text = "$ a \\\n    b\n$ c  # d\ne\n\n$ f\n"
    assert parse(text) == [Command("a \\\n    b", ()), Command("c  # d", ("e",)), Command("f", ())]
    with pytest.raises(ValueError, match="begins with"):
        parse("ls\n")


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        (("a", "b"), "a\nb\n", True),
        (("a",), "a\nb\n", False),
        (("a ... c",), "a 12 c", True),
        (("a ... c",), "a 12 d", False),
        (("a", "...", "z"), "a\nb\nc\nz", True),
        (("a", "..."), "a", True),
        (("...", "z"), "a\ny", False),
    ],
)
def test_output_is_compared(shown: tuple[str, ...], printed: str, same: bool) -> None:
    assert prints(shown, printed) is same


def test_a_command_that_fails_must_be_shown_to_fail(tmp_path: Path) -> None:
    run(Command("echo a; echo b >&2; exit 2", ("b",)), tmp_path, {})
    for shown in ((), ("a",), ("...",)):
        with pytest.raises(AssertionError, match="exit code 2"):
            run(Command("echo a; echo b >&2; exit 2", shown), tmp_path, {})
    with pytest.raises(AssertionError, match="exit code 0"):
        run(Command("echo a", ("b",)), tmp_path, {})


@pytest.mark.parametrize(
    ("line", "formal"),
    [
        ("pip install d3hr_datasets-0.1.0-py3-none-any.whl", True),
        ("pip install 'd3hr_datasets-0.1.0-py3-none-any.whl[train,build]'", True),
        ("pip install '.[train]'  # from a clone", True),
        ("pip install d3hr-datasets", False),
        ("pip install '.[nothing]'", False),
        ("pip install d3hr_datasets-9.9.9-py3-none-any.whl", False),
        ("make docs", True),
        ("make nothing", False),
        ("d3hr info", False),
    ],
)
def test_what_cannot_run_has_a_form(line: str, formal: bool) -> None:
    assert only_formal(Command(line, ())) is formal


def test_placeholders_are_whole_words() -> None:
    text = replaced("MODEL ORG/MODEL MY_MODEL x/MODEL ORG", {"MODEL": "m", "ORG/MODEL": "a/b"})
    assert text == "m a/b MY_MODEL x/MODEL ORG"
