"""The documents: every block runs and prints what the page shows, every link leads somewhere."""

import sys
import warnings
from pathlib import Path

import pytest

from tests.docs.markdown_pages import ROOT, anchors, blocks, links, pages, pictures, section
from tests.docs.page_runner import PageRunner, assert_shown

PAGES = pages()
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_runs_and_prints_what_the_page_shows(page: Path, tmp_path: Path) -> None:
    runner = PageRunner(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for block in blocks(page):
            runner.run(block)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_block_that_does_not_run_says_why(page: Path) -> None:
    for block in blocks(page):
        if block.skipped:
            reason = block.marks.removeprefix("no-run:").strip()
            assert len(reason.split()) >= 3, f"{block.where}: the reason is missing"
        elif block.language == "python":
            assert block.marks in ("", "test", "signature") or block.mark("file"), (
                f"{block.where}: unknown marks {block.marks!r}"
            )
        elif block.language == "text":
            known = block.marks in ("", "output") or block.mark("message")
            assert known, f"{block.where}: unknown marks {block.marks!r}"
        else:
            assert block.language in ("", "console"), f"{block.where}: language {block.language!r}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_page_and_a_heading_that_exist(page: Path) -> None:
    for line, target in links(page):
        if target.startswith(("https://", "http://")):
            continue
        path, _, fragment = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.is_relative_to(ROOT), f"{name_of(page)}:{line}: {target} leads out of the project"
        assert there.exists(), f"{name_of(page)}:{line}: {target} does not exist"
        if fragment:
            assert fragment in anchors(there), f"{name_of(page)}:{line}: {target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_picture_exists_and_says_in_words_what_it_shows(page: Path) -> None:
    for line, words, target in pictures(page):
        assert (page.parent / target).resolve().is_file(), f"{name_of(page)}:{line}: {target} does not exist"
        assert words, f"{name_of(page)}:{line}: {target} is not described"


def test_every_picture_is_shown() -> None:
    shown = {(page.parent / target).resolve() for page in PAGES for _, _, target in pictures(page)}
    assert set((ROOT / "docs" / "pictures").iterdir()) == shown


def test_the_index_names_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    named = {(index.parent / target.partition("#")[0]).resolve() for _, target in links(index)}
    missing = [name_of(page) for page in PAGES if page != index and page not in named]
    assert not missing, f"docs/README.md does not link to {missing}"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_every_example_runs_as_a_program(example: Path, tmp_path: Path) -> None:
    done = PageRunner(tmp_path)._shell([sys.executable, "-W", "error", str(example)])
    assert done.returncode == 0, done.stdout
    assert_shown(section_of_output(example), done.stdout, example.name)


def section_of_output(example: Path) -> str:
    """The end of an example's head docstring, below "It prints:", is what it prints."""
    text = example.read_text(encoding="utf-8").split('"""')[1]
    _, _, shown = text.partition("It prints:\n")
    assert shown, f"{example.name}: its head does not say what it prints"
    return "".join(f"{line.strip()}\n" for line in shown.strip().splitlines())


def test_every_part_of_an_example_that_a_page_shows_exists() -> None:
    shown = [block.mark("file") for page in PAGES for block in blocks(page)]
    for item in filter(None, shown):
        path, _, part = item.partition("#")
        assert section(ROOT / path, part)
