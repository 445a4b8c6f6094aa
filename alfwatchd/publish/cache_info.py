"""What a publication says about itself: dates, names, ``cache_info.json``; and which earlier ones may be removed.

The keys of ``cache_info.json`` are those that Alyx's ``one_cache --compress`` writes and ``OneAlyx.load_cache`` reads.
One more, `OWN_KEY`, is ours: it says which content this is, and when earlier generations were replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from alfwatchd.alf.file_names import TABLES, ZIP
from alfwatchd.bounded_json import parse as parse_json

OWN_KEY = "alfwatchd"
MIN_API_VERSION = "1.13.0"
"""The first ONE with `projects`; Alyx writes the same. ONE adds a missing `qc` to tables with this version."""
MOST_INFO_BYTES = 1 << 22
"""Largest number of bytes that are read of a ``cache_info.json``, which any program may have put there."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What clients are told about one table: number of rows, and bytes of its Parquet footer."""

    nrecs: int
    size: int


@dataclass(frozen=True, slots=True)
class Found:
    """What a target holds.

    Parameters
    ----------
    date : str
        Date in its JSON, as ONE writes it; empty if there is none.
    zip_date : str
        Date in ``cache.zip``, likewise.
    content, zip_content : str
        Digest of the content that the JSON and ``cache.zip`` stand for; empty if they do not say it.
    name : str
        The generation that its JSON names; empty for none.
    replaced : mapping of str to str
        Generation -> since when no JSON names it (UTC, ISO 8601).
    generations : frozenset of str
        Names of all generations that are there.
    """

    date: str = ""
    zip_date: str = ""
    content: str = ""
    zip_content: str = ""
    name: str = ""
    replaced: Mapping[str, str] = field(default_factory=dict)
    generations: frozenset[str] = frozenset()


def one_metadata(date: str, origin: object, tag: str) -> dict[str, Any]:
    """Return the metadata that each table has, as Alyx writes it; an empty tag stands for none."""
    tags = {"database_tags": [tag]} if tag else {}
    return {"date_created": date, "origin": origin, "min_api_version": MIN_API_VERSION, **tags}


def inner_info(described: Mapping[str, Any], tables: Mapping[str, Rows], content: str, nonce: str) -> dict[str, Any]:
    """Return the JSON that goes into the zip; it cannot say yet where the zip will be.

    Parameters
    ----------
    described : dict
        Result of `one_metadata`.
    tables : dict of str to Rows
    content : str
        Digest of the rows, without dates.
    nonce : str
        Random text that makes each zip different, so that no name occurs twice.
    """
    rows = {name: {"nrecs": each.nrecs, "size": each.size} for name, each in tables.items()}
    return {**described, "tables": rows, OWN_KEY: {"content": content, "nonce": nonce}}


def outer_info(
    inner: Mapping[str, Any], name: str, sha256: str, location: str, replaced: Mapping[str, str]
) -> dict[str, Any]:
    """Return the JSON beside the zip.

    Parameters
    ----------
    inner : dict
        Result of `inner_info`.
    name : str
        Generation that it names.
    sha256 : str
        Digest of that generation's zip.
    location : str
        Address of the target for clients; empty if they are not told any.
    replaced : dict of str to str
        See `Found`.
    """
    own = {**inner[OWN_KEY], "name": name, "sha256": sha256, "replaced": dict(sorted(replaced.items()))}
    where = {"location": f"{location}/{zip_key(name)}"} if location else {}
    return {**inner, OWN_KEY: own, **where}


def zip_key(name: str) -> str:
    """Return the key of a generation's zip at a target."""
    return f"{TABLES}/{name}/{ZIP}"


def generation_name(generation: int, sha256: str) -> str:
    """Return the name of a generation. It follows from the content, so that it always means the same zip."""
    return f"{generation}-{sha256[:16]}"


def parse_info(text: bytes) -> dict[str, Any]:
    """Return what a ``cache_info.json`` holds; empty if it is not one."""
    try:
        loaded = parse_json(text, MOST_INFO_BYTES)
    except ValueError:
        return {}
    return loaded if isinstance(loaded, dict) else {}


def counts(info: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the numbers of sessions and datasets in a ``cache_info.json``; None if they are missing or invalid."""
    try:
        n_sessions, n_datasets = (info["tables"][name]["nrecs"] for name in ("sessions", "datasets"))
        return int(n_sessions), int(n_datasets)
    except (LookupError, TypeError, ValueError, OverflowError):
        return None


def own_info(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return our own part of a ``cache_info.json``; empty if another program wrote it."""
    own = info.get(OWN_KEY)
    return own if isinstance(own, dict) else {}


def find_out(info: Mapping[str, Any], zipped: Mapping[str, Any], generations: Iterable[str]) -> Found:
    """Return what a target holds, from the JSON beside the zip and the one in it."""
    own = own_info(info)
    replaced = own.get("replaced")
    return Found(
        date=_text(info.get("date_created")),
        zip_date=_text(zipped.get("date_created")),
        content=_text(own.get("content")),
        zip_content=_text(own_info(zipped).get("content")),
        name=_text(own.get("name")),
        replaced={str(name): _text(when) for name, when in replaced.items()} if isinstance(replaced, dict) else {},
        generations=frozenset(generations),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def is_published(found: Found, content: str) -> bool:
    """Tell whether clients get this content already, from the JSON as well as from ``cache.zip``."""
    return found.content == found.zip_content == content and found.name in found.generations


def note_replaced(found: Found, name: str, now: datetime) -> dict[str, str]:
    """Return, for each generation at a target except the named one, since when no JSON names it.

    A generation that is there and not noted was left by a publisher that died, or another publisher is making it now.
    In the second case, the JSON with this note makes the other publisher's JSON fail, and it starts again under another
    name. So no generation in a note will ever be named again.

    Parameters
    ----------
    found : Found
    name : str
        Generation that is named from now on.
    now : datetime
        With a zone.

    Returns
    -------
    dict of str to str
        As `Found.replaced`.
    """
    moment = now.astimezone(UTC).isoformat(timespec="seconds")
    # A time in the future would keep its generation for ever.
    known = {each for each, age in _ages(found.replaced, found.generations, now) if age >= 0}
    return {each: found.replaced[each] if each in known else moment for each in found.generations if each != name}


def expired(
    replaced: Mapping[str, str], named: str, generations: Iterable[str], keep_seconds: float, now: datetime
) -> tuple[list[str], float | None]:
    """Return the generations to remove, and in how many seconds the next one is due (None: none is).

    Parameters
    ----------
    replaced : dict of str to str
        From a JSON that is at the target.
    named : str
        Generation that this JSON names; it always stays.
    generations : iterable of str
        Generations that are there. One that is not in `replaced` stays, whatever its age.
    keep_seconds : float
        How long a generation can still be fetched after it was replaced.
    now : datetime
        With a zone.
    """
    gone: list[str] = []
    waits: list[float] = []
    for name, age in _ages(replaced, generations, now):
        if name == named:
            continue
        if age >= keep_seconds:
            gone.append(name)
        else:
            waits.append(keep_seconds - max(0.0, age))
    return sorted(gone), min(waits, default=None)


def _ages(replaced: Mapping[str, str], generations: Iterable[str], now: datetime) -> Iterator[tuple[str, float]]:
    for name in generations:
        try:
            since = datetime.fromisoformat(replaced[name])
        except (KeyError, ValueError):
            continue
        if since.tzinfo is not None:
            yield name, (now - since).total_seconds()
