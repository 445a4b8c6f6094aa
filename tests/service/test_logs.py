"""Each line of the log has its priority, and no name of a file can make a line."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import logging, os, sys, threading
from alfwatchd.service import logs
about = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{about.st_dev}:{about.st_ino}" if sys.argv[1] == "journal" else "1:2"
logs.set_up("info")
logs.log_uncaught()
log = logging.getLogger("alfwatchd.test")
"""


def stderr_of(code, journal=False):
    command = [sys.executable, "-c", PROGRAM + code, "journal" if journal else "terminal"]
    return subprocess.run(command, stderr=subprocess.PIPE, env={**os.environ, "LC_ALL": "C.UTF-8"}).stderr.decode()


def test_plain_lines_have_time_and_level():
    (line,) = stderr_of("log.warning('flush failed error=%s', 'disk full'); log.debug('no')").splitlines()
    assert line.endswith(" WARNING flush failed error=disk full")
    assert line[:4].isdecimal()


@pytest.mark.parametrize(
    ("level", "expected"),
    [("critical", "<2>a\n"), ("error", "<3>a\n"), ("warning", "<4>a\n"), ("info", "<6>a\n"), ("debug", "")],
)
def test_the_journal_gets_the_priority(level, expected):
    assert stderr_of(f"log.{level}('a')", journal=True) == expected


def test_the_level_can_be_changed():
    code = "logs.set_level('debug'); log.debug('a'); logs.set_level('error'); log.warning('b')"
    assert stderr_of(code, journal=True) == "<7>a\n"


@pytest.mark.parametrize(
    ("name", "shown"), [(r"a\n<0>b", r"a\n<0>b"), (r"a\r\nb", r"a\r\nb"), (r"a\udcffb", r"a\udcffb")]
)
def test_names_of_files_cannot_make_lines(name, shown):
    assert stderr_of(f"log.info('seen path=%s', '{name}')", journal=True) == f"<6>seen path={shown}\n"


def test_each_line_of_a_traceback_has_the_priority():
    lines = stderr_of("1 / 0", journal=True).splitlines()
    assert lines[0] == "<2>thread ended by an error thread=main error=ZeroDivisionError('division by zero')"
    assert lines[-1] == "<2>ZeroDivisionError: division by zero"
    assert all(line.startswith("<2>") for line in lines)


def test_errors_of_threads_are_logged_with_their_name():
    lines = stderr_of("t = threading.Thread(target=lambda: 1 / 0, name='flusher'); t.start(); t.join()").splitlines()
    assert "CRITICAL thread ended by an error thread=flusher error=ZeroDivisionError" in lines[0]
    assert lines[-1] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize(("journal", "expected"), [(False, "alfwatchd: a\nb\n"), (True, "<3>alfwatchd: a\n<3>b\n")])
def test_why_the_program_ends_is_an_error_in_the_journal(journal, expected):
    assert stderr_of("logs.complain('a\\nb')", journal=journal) == expected
