"""What all tests share: their order, and `scale` and `tally` for trials of reliability (see ``tools/reliability.py``).

`s3` and `connect_s3`: a bucket at a real S3 server, which all tests of a process share.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import hypothesis
import pytest

from alfwatchd.store import open_readers, writer

if TYPE_CHECKING:
    from alfwatchd.publish.s3 import S3Target
    from kit.s3 import S3Box

# How long an example takes says something about the machine, and what else runs on it.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


KINDS = (
    "operations",
    "faults",
    "overflows",
    "restarts",
    "kills",
    "flushes",
    "reads",
    "requests",
    "comparisons",
    "held",
)
"""What trials count: changes of the disk; things made to fail; losses of events; starts of a daemon after an end; ends
by SIGKILL; versions of the tables; times that a program read them; requests to the socket; tables compared with what
they should be; answers that rows are held."""

_LONGEST_FIRST = {name: place for place, name in enumerate(("system", "trials", "web", "engine"))}
_Size = TypeVar("_Size")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that all users may enter; `tmp_path` lies in one that each test run closes to other users."""
    folder = Path(tempfile.mkdtemp(prefix="alf-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="trials of reliability at full size: about an hour")


def pytest_configure(config: pytest.Config) -> None:
    """Let processes that tests start keep what they compile, or each of hundreds compiles the program again."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    config.option.loadscopereorder = False  # pytest-xdist would begin with the files of most tests, the fastest ones


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the folders, or at full size the trials, that take longest: all others find their time beside them."""
    if config.getoption("--long"):
        items.sort(key=lambda item: not item.path.stem.endswith(("soak", "prune_stories")))
    else:
        items.sort(key=lambda item: _LONGEST_FIRST.get(item.path.parent.name, len(_LONGEST_FIRST)))


@pytest.fixture(scope="module")
def no_readers() -> Iterator[None]:
    """Let a writer wait for no reader: in these tests, only the test itself reads, when the tables are written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_readers, "UNSEEN_SECONDS", 0.0)
        patch.setattr(writer, "TO_SESSIONS_SECONDS", 0.0)
        patch.setattr(writer, "TO_DATASETS_SECONDS", 0.0)
        yield


@pytest.fixture
def scale(request: pytest.FixtureRequest) -> Callable[[Any, Any], Any]:
    """Return the first of two values in the test command, the second at full size."""
    is_long = request.config.getoption("--long")

    def pick(short: _Size, long: _Size) -> _Size:
        return long if is_long else short

    return pick


@pytest.fixture
def chance() -> random.Random:
    """Return a source of chance, whose seed pytest shows if the test fails."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201
    return random.Random(seed)


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Iterator[Counter[str]]:
    """Yield a counter of what a trial did, for the report."""
    counts: Counter[str] = Counter()
    yield counts
    assert counts.keys() <= set(KINDS), f"unknown kinds: {sorted(counts.keys() - set(KINDS))}"
    for kind, number in counts.items():
        record_property(kind, number)


@pytest.fixture(scope="session")
def s3_address() -> Iterator[str]:
    """Yield the address of the S3 server."""
    from kit.s3 import s3_server

    with s3_server() as address:
        yield address


@pytest.fixture
def s3(s3_address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Box]:
    """Yield a bucket, and let us have its credentials."""
    from kit.s3 import KEY, SECRET, TOKEN, s3_box

    for name, value in (("ACCESS_KEY_ID", KEY), ("SECRET_ACCESS_KEY", SECRET), ("SESSION_TOKEN", TOKEN)):
        monkeypatch.setenv(f"ALFWATCHD_CREDENTIAL_AWS_{name}", value)
    with s3_box(s3_address) as made:
        yield made


@pytest.fixture
def connect_s3(s3: S3Box) -> Iterator[Callable[..., S3Target]]:
    """Yield how to connect to the bucket."""
    from kit.s3 import s3_targets

    with s3_targets(s3) as connect_s3:
        yield connect_s3
