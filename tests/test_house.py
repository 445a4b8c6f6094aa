"""The rules of the house: where each thing and its test lie, how long they may be, and that tests use public names.

The one list of exceptions names the files that have no test of their name. The last test says which of them have one
by now.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import alfwatchd

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "alfwatchd"
PACKAGES = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))

MOST_LINES_OF_A_MODULE, MOST_LINES_OF_A_FUNCTION = 400, 60


WITHOUT_A_TEST_OF_ITS_NAME = {
    "alf/file_names.py": "names only",
    "database/alyx_reader.py": "a process: tests/database/test_alyx.py",
    "database/source_tables.py": "tests/database/test_sources.py",
    "engine/barriers.py": "tests/engine/test_requests.py",
    "engine/messages.py": "values only",
    "follow/feed_thread.py": "tests/cli/test_follow.py and tests/system/test_follow.py",
    "follow/loop.py": "tests/cli/test_follow.py and tests/system/test_follow.py",
    "index/marks.py": "tests/index/test_indexer.py and tests/engine/test_scanning.py",
    "index/record.py": "values only",
    "publish/target.py": "a protocol; test_folder.py and test_s3.py test what keeps it",
    "scan/identity.py": "tests/index/test_looker.py and tests/trials/test_mounts.py",
    "service/daemon.py": "a process: tests/system/test_daemon_life.py",
    "service/in_force.py": "tests/system/test_daemon_life.py",
    "service/once.py": "a process: tests/system/test_commands.py and test_adopt.py",
    "service/startup.py": "what a start finds: tests/system/test_held.py, test_offline.py and test_kept_ids.py",
    "store/known_eids.py": "tests/system/test_kept_ids.py",
    "store/ledger.py": "tests/store/test_id_history.py and tests/system/test_kept_ids.py",
    "store/parquet.py": "tests/store/test_bombs.py and test_reader.py",
    "tables/adopted_columns.py": "tests/tables/test_adoption.py",
    "tables/conflicts.py": "tests/tables/test_adoption.py",
    "tables/known_rows.py": "tests/tables/test_carry_over.py and test_adoption.py",
    "tables/matching.py": "tests/tables/test_carry_over.py, test_adoption.py, and tests/prune/test_near_miss.py",
    "tables/path_ids.py": "tests/system/test_upstream_tables.py",
    "tables/rules.py": "tests/tables/test_columns.py",
    "watch/events.py": "values only",
    "web/bell.py": "tests/web/test_change_feed.py",
    "web/change_replies.py": "tests/web/test_change_feed.py",
    "web/change_routes.py": "tests/web/test_change_feed.py",
    "web/connecting.py": "tests/web/test_client.py",
    "web/follow_async.py": "tests/web/test_follow.py",
    "web/replies.py": "tests/web/test_client.py",
    "web/request_bodies.py": "values only; tests/system/test_formats.py compares them with the documents",
    "web/request_queries.py": "values only; tests/web/test_change_feed.py",
    "web/thread_calls.py": "tests/web/test_control_service.py",
    "__init__.py": "tested here",
    "__main__.py": "two lines",
    "api.py": "values only; tests/web tests what they become on the wire, tests/system/test_formats.py the documents",
    "changes.py": "values only",
    "bounded_json.py": "tests/store/test_bombs.py",
    "errors.py": "tests/system/test_formats.py compares them with the documents",
    "settings.py": "tests/service/test_configuration.py",
    "upstream.py": "tests/system/test_upstream.py, test_upstream_tables.py and test_upstream_prune.py",
    "version.py": "tests/system/test_commands.py",
}
"""File -> where it is tested, or why it need not be."""

OF_OTHER_LIBRARIES = {
    "_exit": "os",
    "_replace": "a named tuple",
    "_cache": "the tables that an instance of One holds",
    "_check_filesystem": "One",
    "_metadata": "one.alf.cache",
    "_close_resources": "watchdog",
    "_inotify_fd": "watchdog",
    "_parse_event_buffer": "watchdog",
    "_read_event_buffer": "watchdog",
}
"""Private name -> whose it is. We do not use private names of our own in tests."""


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def modules(top: Path) -> dict[str, Path]:
    return {path.relative_to(top).as_posix(): path for path in sorted(top.rglob("*.py"))}


def package_of(name: str) -> str:
    return name.rpartition("/")[0]


# Where things lie.


@pytest.mark.parametrize("package", ["", *PACKAGES])
def test_each_file_has_a_test_of_its_name_where_one_looks_for_it(package):
    files = [path for path in (PACKAGE / package).glob("*.py") if not (package and path.name == "__init__.py")]
    there = {path.name.removeprefix("test_") for path in (TESTS / package).glob("test_*.py")}
    names = {path.relative_to(PACKAGE).as_posix() for path in files if path.name not in there}
    assert names - WITHOUT_A_TEST_OF_ITS_NAME.keys() == set(), "give it a test file, or say above where it is tested"


def test_the_tests_that_the_list_names_are_there():
    told = " ".join(WITHOUT_A_TEST_OF_ITS_NAME.values())
    for folder, first, more in re.findall(r"tests/(\w+)/(test_\w+\.py)((?:,? (?:and )?test_\w+\.py)*)", told):
        for name in (first, *re.findall(r"test_\w+\.py", more)):
            assert (TESTS / folder / name).exists(), f"tests/{folder}/{name}"


# Three tests loop over all test modules: with one test for each, every process of a run would parse all of them.


def test_each_test_module_says_what_a_user_would_lose():
    silent = [name for name, path in modules(TESTS).items() if not ast.get_docstring(tree_of(path))]
    assert silent == [], "they need a docstring"


def test_each_package_says_what_it_is_for():
    for package in PACKAGES:
        assert "Face:" in (ast.get_docstring(tree_of(PACKAGE / package / "__init__.py")) or ""), package
        assert all(isinstance(each, ast.Expr) for each in tree_of(PACKAGE / package / "__init__.py").body), package


def test_the_public_names_are_shown():
    names = ["Change", "Client", "Fresh", "__version__", "make_parquet_db", "remove_missing_datasets"]
    assert dir(alfwatchd) == sorted(alfwatchd.__all__) == names
    for name in names:
        assert getattr(alfwatchd, name)


# How long they are.


def test_no_module_is_longer_than_a_person_reads_at_once():
    lengths = {name: len(path.read_text().splitlines()) for name, path in modules(PACKAGE).items()}
    assert {name: n for name, n in lengths.items() if n > MOST_LINES_OF_A_MODULE} == {}, "divide it"


def test_no_function_is_longer_than_a_screen():
    lengths = {
        f"{name} {node.name}": node.end_lineno - node.lineno + 1
        for name, path in modules(PACKAGE).items()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None
    }
    assert {name: n for name, n in lengths.items() if n > MOST_LINES_OF_A_FUNCTION} == {}, "divide it"


# What tests know.


def private_names(path: Path) -> Iterator[str]:
    """Yield the private names that a module imports, reads from another object, or replaces by name."""
    for node in ast.walk(tree_of(path)):
        match node:
            case ast.ImportFrom(module=str(module), names=names) if module.startswith(("alfwatchd", "kit")):
                yield from (each.name for each in names if is_private(each.name))
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                continue
            case ast.Attribute(attr=name) if is_private(name):
                yield name
            case ast.Call(func=ast.Attribute(attr="setattr" | "delattr"), args=arguments):
                texts = [each.value for each in arguments if isinstance(each, ast.Constant)]
                yield from (
                    name
                    for text in texts
                    if isinstance(text, str) and is_private(name := text.rpartition(".")[2]) and name.isidentifier()
                )


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name != "_"


def test_tests_use_public_names():
    found = {name: {*private_names(path)} - OF_OTHER_LIBRARIES.keys() for name, path in modules(TESTS).items()}
    assert {name: own for name, own in found.items() if own} == {}, "what a test needs deserves a public name"


CODE = re.compile(r"^ *from (alfwatchd[\w.]*) import ([\w, ]+)$", re.MULTILINE)


def codes(path: Path) -> Iterator[str]:
    """Yield the texts in a module that are programs which import from alfwatchd."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.search(node.value):
            yield node.value


def test_programs_in_texts_name_what_is_there():
    """A fault that is planted in a module of an old name is not planted, and its test would test nothing."""
    texts = [(name, code) for name, path in modules(TESTS).items() for code in codes(path)]
    assert len({name for name, _ in texts}) > 10
    for name, code in texts:
        for module, imported in CODE.findall(code):
            for each in imported.split(","):
                own, _, alias = each.strip().partition(" as ")
                found = _import(module, own)
                attributes = re.findall(rf"(?<![\w.]){alias or own}\.([a-zA-Z_]\w*)", code)
                assert [attribute for attribute in attributes if not hasattr(found, attribute)] == [], (name, code)


def _import(module: str, name: str) -> object:
    loaded = importlib.import_module(module)
    return getattr(loaded, name) if hasattr(loaded, name) else importlib.import_module(f"{module}.{name}")


# What need no longer be excepted.


def test_no_exception_is_left_that_is_not_needed():
    unneeded = {
        name
        for name in WITHOUT_A_TEST_OF_ITS_NAME
        if not (PACKAGE / name).exists() or (TESTS / package_of(name) / f"test_{Path(name).name}").exists()
    }
    assert sorted(unneeded) == [], "take them off the list above"
