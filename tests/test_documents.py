"""What the documents say of the program is true, and they say it in plain English."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import importlib.util
import io
import re
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from alfwatchd import errors
from alfwatchd.cli.main import main
from alfwatchd.index.look_queue import Look
from alfwatchd.index.worker_pool import WorkerPool
from alfwatchd.service.in_force import NEEDS_RESTART
from alfwatchd.settings import EXPLANATIONS
from alfwatchd.tree.folder import Folder
from alfwatchd.watch.events import EventsLost

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "alfwatchd"
DOCS = REPOSITORY / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]
ARCHITECTURE = DOCS / "design/architecture.md"
MOST_ARCHITECTURE_LINES = 150
PACKAGES = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def load_tool(name: str) -> ModuleType:
    """Return a script of ``tools/`` as a module."""
    spec = importlib.util.spec_from_file_location(f"tools_{name}", REPOSITORY / f"tools/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@functools.cache
def help_of(*command: str) -> str:
    """Return what ``--help`` prints, as on a wide terminal."""
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said), pytest.raises(SystemExit) as ended:
        patch.setenv("COLUMNS", "200")
        main([*command, "--help"])
    assert not ended.value.code
    said.seek(0)
    return said.read()


# --- links and paths ------------------------------------------------------------------------------------------------


def without_code(text: str) -> str:
    return re.sub(r"(?ms)^```.*?^```$", "", text)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"(?m)^#+ (.*)$", without_code(page.read_text()))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """Without it, a reader who clicks gets an error."""
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())) if "://" not in link]
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_overview() -> None:
    """Without it, a page exists that no reader finds."""
    linked = re.findall(r"\]\(([\w/]+\.md)\)", (DOCS / "README.md").read_text())
    pages = [str(page.relative_to(DOCS)) for page in sorted(DOCS.rglob("*.md")) if page != DOCS / "README.md"]
    assert sorted(linked) == pages


ROOTS = (REPOSITORY, PACKAGE, REPOSITORY / "tests", REPOSITORY / "benchmarks")
"""Paths in pages are relative to one of these; tables of tests say "below `tests/`"."""


def named_paths(text: str) -> Iterator[str]:
    for code in re.findall(r"`([^`\n]+)`", without_code(text)):
        yield from re.findall(r"(?<![\w/.*-])(?!/)[\w./-]+\.(?:py|c|toml)\b", code)
        if re.fullmatch(r"(?:alfwatchd|tests|docs|benchmarks|tools|systemd)/[\w/.]*", code):
            yield code


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_in_pages_exist(page: Path) -> None:
    """Without it, "look in Y" sends the reader to a file that has moved."""
    missing = [path for path in named_paths(page.read_text()) if not any((root / path).exists() for root in ROOTS)]
    assert missing == []


def test_pages_that_the_program_names_exist() -> None:
    """Without it, an error message sends its reader to a page that has moved."""
    folders = ("alfwatchd", "systemd", "tests", "benchmarks", "tools")
    files = [file for folder in folders for file in (REPOSITORY / folder).rglob("*") if file.is_file()]
    for file in [*files, REPOSITORY / "pyproject.toml", REPOSITORY / "config.example.toml", REPOSITORY / ".ci/run"]:
        if file.suffix in (".pyc", ".pqt", ".jsonl") or file == Path(__file__):
            continue
        for page in re.findall(r"\bdocs/[\w/]+\.(?:md|svg)", file.read_text()):
            assert (REPOSITORY / page).exists(), f"{name_of(file)}: {page}"


# --- architecture ---------------------------------------------------------------------------------------------------


def test_architecture_is_short() -> None:
    """Without it, the first page grows until it is too long to be read."""
    assert len(ARCHITECTURE.read_text().splitlines()) <= MOST_ARCHITECTURE_LINES


def docstring_of(package: str) -> str:
    return " ".join((ast.get_docstring(ast.parse((PACKAGE / package / "__init__.py").read_text())) or "").split())


def test_paragraphs_of_packages_are_their_docstrings() -> None:
    """Without it, the map of the house shows rooms that are used otherwise."""
    section = ARCHITECTURE.read_text().partition("\n## Packages\n")[2].partition("\n## ")[0]
    told = dict(re.findall(r"(?m)^\| `(\w+)` \| (.*) \|$", section))
    assert sorted(told) == PACKAGES
    assert told == {package: docstring_of(package) for package in told}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_names_its_invariant_and_its_face(package: str) -> None:
    """Without it, a newcomer does not know where to enter a package, and what never to break."""
    text, _, face = docstring_of(package).partition("Face: ")
    assert re.search(r"\*\*[^*]+\*\*", text)
    names = re.findall(r"`([\w.]+)`", face)
    assert names
    for name in names:
        module, _, attribute = name.partition(".")
        found = importlib.import_module(f"alfwatchd.{package}.{module}")
        assert not attribute or hasattr(found, attribute), name


def test_packages_in_the_picture_stand_as_in_the_contract() -> None:
    """Without it, the picture shows another order of packages than imports may have."""
    picture = ARCHITECTURE.read_text().partition("```\n")[2].partition("```")[0]
    line_of = {
        word: number
        for number, line in enumerate(picture.splitlines())
        for word in re.findall(r"\w+", line[:43])
        if word in PACKAGES
    }
    assert sorted(line_of) == PACKAGES
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [re.findall(r"\w+", layer) for layer in next(each["layers"] for each in contracts if "layers" in each)]
    ranks = {name: rank for rank, layer in enumerate(layers) for name in layer if name in line_of}
    assert [ranks[name] for name in sorted(line_of, key=line_of.__getitem__)] == sorted(ranks.values())


def test_workers_of_a_scan_run_without_pyarrow() -> None:
    """Without it, each of eight workers takes 80 MB and a second to start, instead of 18 MB."""
    answers: list[object] = []
    pool = WorkerPool(str(REPOSITORY / "alfwatchd"), (), 1, answers.append)
    try:
        for path in sorted(PACKAGES) * 4:
            pool.submit(Look(Folder.at(path), is_urgent=False, is_unit=True))
        pool.share(-1)
        deadline = time.monotonic() + 60
        while not answers and time.monotonic() < deadline:
            time.sleep(0.01)
        assert answers
        assert not isinstance(answers[0], EventsLost)
        children = psutil.Process().children(recursive=True)
        workers = [child.pid for child in children if "alfwatchd.index.scan_worker" in child.cmdline()]
        assert workers
        for pid in workers:
            assert "libarrow" not in Path(f"/proc/{pid}/maps").read_text()
    finally:
        pool.close()


# --- glossary -------------------------------------------------------------------------------------------------------

WORDS = """
lab subject date number session session_path eid dataset rel_path collection revision namespace object attribute
timescale extra extension event overflow dirty settle longest_wait scan rescan reconcile sync_cookie problem tables
generation snapshot flush atomic_replace stale journal prune
"""


def test_the_glossary_has_each_word_once() -> None:
    """Without it, one word means two things, and its readers two different ones."""
    bold = re.findall(r"\*\*([^*]+)\*\*", (DOCS / "design/words.md").read_text())
    words = Counter(word.strip("` ").lower() for group in bold for word in group.split(","))
    assert [word for word, number in words.items() if number > 1] == []
    assert {word.replace("_", " ") for word in WORDS.split()} - {"rel path"} <= words.keys()


# --- settings and commands ------------------------------------------------------------------------------------------


def test_the_page_of_settings_is_made_from_the_example_file() -> None:
    """Without it, the page tells old defaults. `python tools/settings_page.py` writes it."""
    tool = load_tool("settings_page")
    assert tool.PAGE.read_text() == tool.make()
    keys = {f"{each.section}.{each.name}".lstrip(".") for each in tool.read_example(tool.EXAMPLE.read_text())}
    assert {key for key in keys if not key.startswith("publish.")} == set(EXPLANATIONS) - {"publish"}


def test_the_guide_names_the_settings_that_need_a_restart() -> None:
    """Without it, a user reloads the settings, and wonders why nothing changes."""
    text = " ".join((DOCS / "guide/operate.md").read_text().split())
    listed = text.partition("take effect only at a restart:")[2].partition(". ")[0]
    assert re.findall(r"`\[*(\w+)\]*`", listed) == sorted(NEEDS_RESTART, key=re.findall(r"\w+", listed).index)


def test_commands_and_flags_that_pages_name_exist() -> None:
    """Without it, a pasted command is an error."""
    page = (DOCS / "reference/commands.md").read_text()
    commands = sorted(set(re.findall(r"(?m)^\| `alfwatchd ([a-z]+)", page)))
    helps = {command: help_of(command) for command in commands}
    whole = help_of()
    for command, flag in re.findall(r"`alfwatchd ([a-z]+)[^`]*?(--[a-z-]+)", page):
        assert flag in helps[command], f"{command} {flag}"
    for flag in re.findall(r"(?m)^\| `(--[a-z-]+)", (DOCS / "guide/prune.md").read_text()):
        assert flag in helps["prune"], flag
    assert "--once" in whole
    listed = whole.lower().partition("commands")[2].partition("examples")[0]
    assert set(re.findall(r"(?m)^ {2,6}([a-z]+)  ", listed)) <= set(commands)


def test_exit_codes_are_all_in_the_page_of_commands() -> None:
    """Without it, a script meets a code that it cannot look up."""
    page = (DOCS / "reference/commands.md").read_text()
    codes = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type)}
    assert codes | {0, 130} == {int(code) for code in re.findall(r"(?m)^\| (\d+) \| ", page)}


# --- evidence -------------------------------------------------------------------------------------------------------


def test_what_is_said_of_a_run_goes_with_its_figures() -> None:
    """Without it, the next run leaves words on the page that are about this one."""
    tool = load_tool("reliability")
    assert tool.REPORT.read_text().endswith(f"{tool.END}\n")


@pytest.mark.parametrize(("code", "is_written"), [(0, True), (1, True), (2, False)])
def test_a_trial_that_was_interrupted_writes_no_figures(
    code: int, is_written: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it, figures of half a run stand on the page as if they were of a whole one."""
    tool = load_tool("reliability")
    page = tmp_path / "page.md"
    page.write_text(f"before\n{tool.BEGIN}\nold\n{tool.END}\n")
    monkeypatch.setattr(tool, "REPORT", page)

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        results = next(each for each in command if each.startswith("--junitxml=")).partition("=")[2]
        Path(results).write_text('<a><testcase name="test_x" classname="tests.trials.test_y" time="1"/></a>')
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(tool.subprocess, "run", run)
    assert tool.main([]) == code
    assert ("| trials.test_y: test_x |" in page.read_text()) == is_written
    assert ("old" in page.read_text()) != is_written


# --- plain English --------------------------------------------------------------------------------------------------

PHRASES = (
    # Words that name no actor, or that readers of English as a second language stumble over.
    r"whoever", r"anew", r"lest", r"but for", r"(?:is|are) let go", r"which is none", r"will do[.,;:]",
    r"does not do[.,;:]", r"no hindrance", r"is concerned", r"dawdles?", r"long since",
    # Sentences, and kinds of sentences, that readers reported.
    r"right afterwards", r"honest meanwhile", r"nothing deeper", r"right until stopped", r"is not what it was",
    r"are not what they were", r"should outlive a restart", r"what must outlive", r"(?<!wins )over the environment \(",
    r"below somebody's", r"may only do as", r"lie in each other", r"guarded alike", r"at once: where", r"if both tell",
    r"loads by default can be loaded", r"over REST come", r"knows of none", r"as new as", r"kept out: as",
    r"by them One", r"may tell of a change", r"then it wins", r"of which no event told", r"has the content of before",
    r"until somebody looks", r"goes in its place", r"very files", r"in one process of python can take less",
    r"return by what", r"let no digest",
    r"everything right", r"who asks is", r"whoever it is", r"ids? (?:is|are) in the way", r"ha(?:s|ve) (?:its|a) say",
    r"beats a heart", r"without a word", r"holds up nobody", r"told to lie in", r"can be told from",
)  # fmt: skip
UNPLAIN = re.compile(rf"\b(?:{'|'.join(PHRASES)})", re.IGNORECASE)


def unplain(text: str) -> list[str]:
    flat = " ".join(text.split())
    return [flat[max(0, found.start() - 40) : found.end() + 30] for found in UNPLAIN.finditer(flat)]


@pytest.mark.parametrize(
    "page",
    [
        *PAGES,
        *(REPOSITORY / name for name in ("CHANGELOG.md", "config.example.toml")),
        *sorted((REPOSITORY / "systemd").iterdir()),
    ],
    ids=name_of,
)
def test_pages_are_in_plain_english(page: Path) -> None:
    """Without it, readers who learnt English later guess what a sentence means."""
    assert unplain(page.read_text()) == []


def docstrings() -> Iterator[tuple[str, str]]:
    """Yield (where, text) of the docstrings of modules, and of public classes and functions."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                name = getattr(node, "name", "")
                if not name.startswith("_"):
                    yield f"{name_of(file)} {name}".strip(), ast.get_docstring(node) or ""


STILL_UNPLAIN = 0
STILL_UNPLAIN_IN_HELP = 0
"""How many such phrases public docstrings and help texts still hold. These numbers may only become smaller."""


def test_docstrings_are_in_plain_english() -> None:
    """Without it, the next person to carry this on must guess what a function promises."""
    found = [f"{where}: {each}" for where, text in docstrings() for each in unplain(text)]
    assert len(found) <= STILL_UNPLAIN, "\n".join(found)


COMMANDS = ("", "status", "sync", "flush", "rescan", "ids", "metrics", "prune", "serve", "config", "demo")


def test_help_is_in_plain_english() -> None:
    """Without it, the first text that a user reads is one to puzzle over."""
    found = [f"{command}: {each}" for command in COMMANDS for each in unplain(help_of(*command.split()))]
    assert len(found) <= STILL_UNPLAIN_IN_HELP, "\n".join(found)
