"""Publishes the tables once to a target, so that a reader finds two tables that belong together at every moment.

The order is: a zip under a name of its own, which is never replaced; ``cache.zip``; ``cache_info.json``, which names
the first zip. The last two are replaced only if they are still the versions that were there when the publication began.
If a publisher dies between these steps, ``cache.zip`` is newer than the JSON, and the next publication continues from
its date.
"""

from __future__ import annotations

import json
import random
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from alfwatchd.alf.file_names import INFO, ZIP
from alfwatchd.errors import TargetChanged, TargetError
from alfwatchd.publish import archive, cache_info
from alfwatchd.publish.cache_info import Found
from alfwatchd.publish.folder import FolderTarget
from alfwatchd.publish.selection import Selection
from alfwatchd.publish.target import Target, Token
from alfwatchd.settings import Publish
from alfwatchd.tables.dates import next_date

_TRIES = 5
_CLEAN_AGAIN_SECONDS = 3600.0
_CHANGED, _UNCHANGED = True, False


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a publication.

    Parameters
    ----------
    published : bool
        False where clients had the same rows already.
    name : str
        The generation at the target: `<generation>-<digest>`.
    date : str
        Its date, as ONE writes it.
    n_sessions, n_datasets : int
        Number of rows in its tables.
    removed : tuple of str
        Earlier generations that were removed.
    next_removal_seconds : float or None
        In how many seconds another one is old enough to be removed; None if there is none.
    removal_error : str
        Why old generations could not be removed; empty if they could.
    """

    published: bool
    name: str
    date: str
    n_sessions: int
    n_datasets: int
    removed: tuple[str, ...]
    next_removal_seconds: float | None
    removal_error: str = ""


def open_target(settings: Publish) -> Target:
    """Return the target of an entry of `publish`. It is not contacted yet.

    Raises
    ------
    ConfigError
        It needs a package that is not installed, or a credential cannot be read.
    """
    if "://" not in settings.target:
        return FolderTarget(Path(settings.target), settings.subset.tag)
    from alfwatchd.publish.s3 import S3Target

    return S3Target(settings.target, settings.subset.tag, settings.endpoint, settings.region)


def check_targets(entries: Iterable[Publish]) -> None:
    """Raise `ConfigError` for a target that cannot be written, because a package or a credential is missing."""
    if any("://" in entry.target for entry in entries):
        from alfwatchd.publish.s3 import check_installed

        check_installed()


def _utc_now() -> datetime:
    return datetime.now(UTC)


def publish(
    out_dir: Path, settings: Publish, target: Target | None = None, *, now: Callable[[], datetime] = _utc_now
) -> Outcome:
    """Bring a target up to date. Any thread may call it, and several processes may do so at once.

    Parameters
    ----------
    out_dir : Path
        Folder of the tables that alfwatchd keeps.
    settings : Publish
    target : Target or None
        The target, if it is open already; it stays open. None: open that of the settings.
    now : callable
        Returns the time, with a zone.

    Raises
    ------
    TargetChanged
        Another publisher has written to the target meanwhile; try again.
    TargetError
        The target cannot be reached or written.
    TablesError
        There are no tables to publish.
    ConfigError
        See `open_target`.
    """
    with ExitStack() as stack:
        if target is None:
            target = open_target(settings)
            stack.callback(target.close)
        subset = settings.subset
        selection = Selection(subset.projects, subset.subjects, subset.labs)
        ours = stack.enter_context(archive.open_bundle(out_dir, selection, subset.tag))
        found, tokens, info = _look(target)
        location = _location(settings, target)
        counts = cache_info.counts(info)
        is_told = info.get("location") == _zip_location(location, found.name)
        if counts is None or not is_told or not _is_there(target, found, ours.content):
            return _write(ours, target, found, tokens, location, settings.keep_seconds, now)
        cleaned = _try_to_clean(target, found, found.replaced, found.name, settings.keep_seconds, now)
        n_sessions, n_datasets = counts
        return Outcome(_UNCHANGED, found.name, found.date, n_sessions, n_datasets, *cleaned)


def publish_surely(out_dir: Path, settings: Publish) -> Outcome:
    """Publish as `publish` does, and try up to five times if another publisher was faster."""
    for _ in range(_TRIES - 1):
        with suppress(TargetChanged):
            return publish(out_dir, settings)
        time.sleep(random.random())  # noqa: S311 - so that two publishers do not collide again
    return publish(out_dir, settings)


def remove_old(settings: Publish, target: Target, *, now: Callable[[], datetime] = _utc_now) -> float | None:
    """Remove generations that were replaced `keep_seconds` ago; return in how many seconds the next is due, or None.

    Raises
    ------
    TargetError
        The target cannot be reached or written.
    """
    found, _, _ = _look(target)
    return _clean(target, found, found.replaced, found.name, settings.keep_seconds, now)[1]


def _look(target: Target) -> tuple[Found, dict[str, Token | None], dict[str, Any]]:
    """Return what the target holds, the tokens of its two files, and the content of its JSON."""
    # Tokens first: a file that is replaced while the rest is read then has another token, and is not overwritten.
    tokens = {key: target.token(key) for key in (ZIP, INFO)}
    info: dict[str, Any] = {}
    zipped: dict[str, Any] = {}
    if tokens[INFO] is not None:
        with target.open(INFO) as file:
            info = cache_info.parse_info(file.read(cache_info.MOST_INFO_BYTES))
    if tokens[ZIP] is not None:
        with target.open(ZIP) as file:
            zipped = archive.read_zipped_info(file)
    return cache_info.find_out(info, zipped, target.generations()), tokens, info


def _location(settings: Publish, target: Target) -> str:
    """Return the address of the target's files for clients; empty if they are not told."""
    tag = settings.subset.tag
    return settings.location + (f"/{tag}" if tag else "") if settings.location else target.location


def _zip_location(location: str, name: str) -> str | None:
    """Return the location of a generation that the JSON should tell clients; None if it should tell none."""
    return f"{location}/{cache_info.zip_key(name)}" if location else None


def _is_there(target: Target, found: Found, content: str) -> bool:
    """Tell whether the target has this content, and the zip that its JSON names."""
    return cache_info.is_published(found, content) and target.token(cache_info.zip_key(found.name)) is not None


def _write(
    ours: archive.Bundle,
    target: Target,
    found: Found,
    tokens: dict[str, Token | None],
    location: str,
    keep_seconds: float,
    now: Callable[[], datetime],
) -> Outcome:
    """Write the zip of a new generation, then the plain zip, then the JSON that names both; then tidy up."""
    local = now().astimezone().replace(tzinfo=None)
    date = next_date(local, found.date, found.zip_date)
    with ours.zipped(date, secrets.token_hex(8)) as (zipped, inner):
        sha256 = archive.digest_of(zipped)
        name = cache_info.generation_name(ours.generation, sha256)
        try:
            target.create(cache_info.zip_key(name), zipped)
            target.replace(ZIP, zipped, tokens[ZIP])
        except TargetError:
            # No JSON will ever name it. A target that refuses the second write would be filled by one zip per attempt.
            with suppress(TargetError):
                target.remove(name)
            raise
    replaced = cache_info.note_replaced(found, name, now())
    info = cache_info.outer_info(inner, name, sha256, location, replaced)
    target.replace(INFO, BytesIO(json.dumps(info, indent=1).encode()), tokens[INFO])
    cleaned = _try_to_clean(target, found, replaced, name, keep_seconds, now)
    n_sessions, n_datasets = (inner["tables"][each]["nrecs"] for each in ("sessions", "datasets"))
    return Outcome(_CHANGED, name, date, n_sessions, n_datasets, *cleaned)


def _try_to_clean(
    target: Target,
    found: Found,
    replaced: Mapping[str, str],
    named: str,
    keep_seconds: float,
    now: Callable[[], datetime],
) -> tuple[tuple[str, ...], float | None, str]:
    """Remove as `_clean` does, and return also why that failed: the publication is complete nevertheless."""
    try:
        return *_clean(target, found, replaced, named, keep_seconds, now), ""
    except TargetError as error:
        return (), _CLEAN_AGAIN_SECONDS, f"old generations could not be removed: {error}"


def _clean(
    target: Target,
    found: Found,
    replaced: Mapping[str, str],
    named: str,
    keep_seconds: float,
    now: Callable[[], datetime],
) -> tuple[tuple[str, ...], float | None]:
    """Remove the generations that the JSON at the target notes as replaced long enough ago."""
    gone, wait = cache_info.expired(replaced, named, found.generations, keep_seconds, now())
    for generation in gone:
        target.remove(generation)
    return tuple(gone), wait
