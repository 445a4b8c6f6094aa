"""All settings: one validated, frozen `Settings`, and what each key means. `service.configuration` reads them."""

from __future__ import annotations

import json
import math
import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

import pathspec
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource

from alfwatchd.alf import grammar, ids
from alfwatchd.alf.file_names import INFO, TABLES, ZIP
from alfwatchd.alf.patterns import DatasetPattern

SOCKET_PATH_LIMIT = 107
"""Largest length of a socket's path in bytes: ``sun_path`` in unix(7) has 108, with the closing zero."""


def check_place(value: object) -> Path:
    """Return `value` if it is an absolute path; raise `ValueError` for anything else."""
    # `configuration` has made absolute whatever can be; an empty path must not become the current folder.
    if not isinstance(value, Path) or not value.is_absolute() or "\0" in str(value):
        raise ValueError("should be a path, not empty")
    return value


def check_socket(path: Path) -> Path:
    """Return `path` if a socket can have it; raise `ValueError` if it is too long."""
    if (length := len(os.fsencode(path))) > SOCKET_PATH_LIMIT:
        raise ValueError(
            f"should have at most {SOCKET_PATH_LIMIT} bytes, and {path} has {length}: set a shorter socket"
        )
    return path


def _check_lab(lab: str) -> str:
    if lab and grammar.child_kind(grammar.Kind.TOP, lab, "Subjects") is None:
        raise ValueError("should hold letters, digits and '_' only, or be empty")
    return lab


def _check_longest_wait(seconds: float, info: ValidationInfo) -> float:
    if seconds < (settle := info.data.get("settle_seconds", 0)):
        raise ValueError(f"should be at least settle_seconds, which is {settle}")
    return seconds


def _check_pattern(pattern: str) -> str:
    # For Git, comments and unclosed brackets match nothing. Here they are mistakes: `#2021-07-06#` is a revision.
    if all(part.include is None for part in pathspec.GitIgnoreSpec.from_lines([pattern]).patterns):
        raise ValueError(r"should be a .gitignore pattern, but matches nothing; a leading '#' is written '\#'")
    return pattern


def _split_patterns(value: object) -> object:
    if not isinstance(value, str):
        return value
    if re.match(r'\s*\[\s*("|\]\s*$)', value):  # a pattern may begin with a bracket, too
        return json.loads(value)
    return [part.strip() for part in re.split(r"[,\n]", value) if part.strip()]


def _check_address(address: str, *schemes: str) -> str:
    """Return an address that names a host and holds no credentials: every user may read the settings file."""
    parts = urlsplit(address)
    if parts.scheme not in schemes or not parts.hostname or not _has_port(parts):
        raise ValueError(f"should begin with {' or '.join(f'{scheme}://' for scheme in schemes)} and name a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("should hold no user and password: see docs/guide/install.md, Credentials")
    return address


def _has_port(parts: SplitResult) -> bool:
    """Tell whether the part for the port is a port, or empty. A password with a slash in it would stand there, too."""
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def _check_source(source: str) -> str:
    if "://" in source:
        return _check_address(source, "http", "https", "alyx+http", "alyx+https")
    if source:
        check_place(Path(source))
    return source


def _check_target(target: str) -> str:
    if "://" not in target:
        return str(check_place(Path(target)))
    target = _check_base(target, "s3")
    if {"", ".", ".."} & set(target.partition("://")[2].split("/")):
        raise ValueError("should hold no '//' and no part '.' or '..': many S3 servers cannot keep such names")
    return target


def _check_base(address: str, *schemes: str) -> str:
    """Return an address to which a path can be added; an empty one stays empty."""
    if "?" in address or "#" in address:
        raise ValueError("should hold no '?' and no '#': what follows them would not be part of the path")
    return _check_address(address, *(schemes or ("http", "https"))).rstrip("/") if address else ""


def _check_tag(tag: str) -> str:
    if tag and (not re.fullmatch(r"(?!\.)[\w.-]+", tag) or tag in (TABLES, INFO, ZIP)):
        raise ValueError(
            "should hold letters, digits, '_', '.' and '-' only, not begin with a dot, and not be the name of a file "
            "or folder that each target has: it becomes the name of a folder"
        )
    return tag


def _check_required(text: str) -> str:
    return DatasetPattern.parse(text).text


def _check_project(name: str) -> str:
    if "," in name:
        raise ValueError("should be one name: a comma separates the projects of a session")
    return name.strip()


def check_fraction(value: float) -> float:
    """Return `value` if it is from 0 to 1; else raise `ValueError`, and say what was probably meant."""
    if 0 <= value <= 1:  # not so for NaN
        return value
    meant = f"for {value:g} % write {value / 100:g}" if 1 < value <= 100 else "write a number from 0 to 1"
    raise ValueError(f"{value:g} is no fraction: {meant}" if math.isfinite(value) else f"{value} is no number: {meant}")


_MOST_WORKERS = 4
"""Largest number of scan workers by default: other programs use the disk, too."""

AbsolutePath = Annotated[Path, BeforeValidator(check_place)]
OptionalPath = Annotated[AbsolutePath | None, BeforeValidator(lambda value: value or None)]
Fraction = Annotated[float, AfterValidator(check_fraction)]
Seconds = Annotated[float, Field(gt=0)]
Pattern = Annotated[str, AfterValidator(_check_pattern)]
Patterns = Annotated[tuple[Pattern, ...], NoDecode, BeforeValidator(_split_patterns)]
Address = Annotated[str, AfterValidator(_check_base)]
Required = Annotated[str, AfterValidator(_check_required)]
Project = Annotated[str, AfterValidator(_check_project)]
LEAST_PUBLISH_SECONDS = 60.0
"""Least time between two publications: clients tell tables apart by the minute in which they were made."""


class _Section(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    pass


class Prune(_Section):
    """What `prune` may delete."""

    reference: OptionalPath = Field(None, description="Folder of the reference tables; empty: the daemon's own.")
    max_fraction: Fraction = Field(0.1, description="Largest part of all datasets, and bytes, to delete, 0 to 1.")
    margin_seconds: float = Field(
        172800.0, ge=0, description="Files at most this many seconds older than the reference count as newer, and stay."
    )
    enabled: bool = Field(default=False, description="Whether a prune over the socket may delete.")
    trash_seconds: float = Field(
        604800.0, ge=0, description="Seconds that pruned files lie in the trash; 0: deleted at once."
    )


class Guard(_Section):
    """How much may be gone before the daemon holds the rows until a person decides."""

    max_lost_fraction: float = Field(
        0.2, ge=0, le=1, description="Largest part of all sessions that may be gone without any event, 0 to 1."
    )


class Journal(_Section):
    """How much is kept of what changed, for programs that ask later."""

    keep_seconds: Seconds = Field(2592000.0, description="Seconds that changes of sessions are kept: 30 days.")
    max_bytes: int = Field(256_000_000, ge=1_000_000, description="Most bytes of the journal in the state folder.")


class Control(_Section):
    """Which users may use the control socket."""

    group: str = Field("", description="Unix group with control rights: flush, rescan, set, prune; empty: none.")
    read: Literal["tables", "group", "owner"] = Field(
        "tables", description="Which users may ask for status, changes, ids: table readers, the group, or the owner."
    )


class Adopt(_Section):
    """A database from which the tables take ids and columns."""

    source: Annotated[str, AfterValidator(_check_source)] = Field(
        "", description="Tables made by Alyx: folder, cache.zip, http(s) or alyx+https address; empty: none."
    )
    interval_seconds: Seconds = Field(300.0, description="Seconds between looks whether the source has changed.")
    keep_missing: bool = Field(
        default=False, description="Whether rows of the database without a file here are kept, as exists = False."
    )


class Subset(_Section):
    """Which rows a target gets: those that match every list that is not empty."""

    projects: tuple[Project, ...] = Field((), description="Names of projects; empty: all.")
    subjects: tuple[str, ...] = Field((), description="Subjects; empty: all.")
    labs: tuple[str, ...] = Field((), description="Labs; empty: all.")
    tag: Annotated[str, AfterValidator(_check_tag)] = Field(
        "", description="Name by which clients ask for these tables, and folder in the target; empty: none."
    )


class Publish(_Section):
    """A target: a folder or bucket that gets the tables whenever they have changed."""

    target: Annotated[str, AfterValidator(_check_target)] = Field(description="Folder, or s3://bucket/prefix.")
    interval_seconds: float = Field(300.0, ge=LEAST_PUBLISH_SECONDS, description="Least seconds between publications.")
    keep_seconds: float = Field(86400.0, ge=0, description="Seconds for which replaced tables can still be fetched.")
    location: Address = Field("", description="Address at which clients reach the target; empty: none is published.")
    endpoint: Address = Field("", description="Address of an S3 server that is not Amazon's.")
    region: str = Field("", description="Region of the S3 bucket; empty: the server's default.")
    subset: Subset = Subset()


class Serve(_Section):
    """Where clients reach `alfwatchd serve`."""

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen at; 0.0.0.0 for all networks.")
    port: int = Field(8310, ge=0, le=65535, description="TCP port; 0: any that is free.")
    base_url: Address = Field("", description="Address that clients use if it is another one, as behind a proxy.")


class Report(_Section):
    """What `alfwatchd report` asks of each session."""

    required: Annotated[tuple[Required, ...], NoDecode, BeforeValidator(_split_patterns)] = Field(
        (), description="Datasets that each session should have, as object.attribute or glob."
    )


def _check_targets(targets: tuple[Publish, ...]) -> tuple[Publish, ...]:
    places = [f"{each.target}/{each.subset.tag}".rstrip("/") for each in targets]
    if twice := next((place for place in places if places.count(place) > 1), None):
        raise ValueError(f"names {twice} twice; give one of them another target, or a subset.tag")
    return targets


class Settings(BaseSettings, frozen=True, extra="forbid", allow_inf_nan=False):
    """All settings, as `configuration.load` makes them.

    Paths are absolute; `root` and `out_dir` contain no symbolic links.
    """

    root: AbsolutePath = Field(description="Folder that is indexed.")
    out_dir: AbsolutePath = Field(description="Folder of the two tables; default: the root.")
    state_dir: AbsolutePath = Field(
        description="Where the daemon keeps its state: identity of the disk, inodes, hashes, changed ids, notes."
    )
    socket: Annotated[AbsolutePath, AfterValidator(check_socket)] = Field(description="Path of the control socket.")
    lab: Annotated[str, AfterValidator(_check_lab)] = Field("", description="Lab of a tree without lab folders.")
    namespace: uuid.UUID = Field(ids.NAMESPACE, description="UUID from which all ids are made.")
    exclude: Patterns = Field((), description=".gitignore patterns, relative to the root, of what is not indexed.")
    follow_links: bool = Field(default=False, description="Whether links to folders outside the root are followed.")
    hash_files: bool = Field(default=False, description="Whether the md5 of each dataset is computed.")
    hash_threads: int = Field(1, ge=1, le=64, description="Threads that compute hashes, 1 to 64.")
    hash_recheck: Literal["now", "later"] = Field(
        "now", description="When --once reads files again whose hash is not confirmed: before it ends, or not."
    )
    scan_workers: int = Field(0, ge=0, le=64, description="Processes for full scans; 0: one per core, at most 4.")
    watch: Literal["auto", "inotify", "poll"] = Field("auto", description="How changes are noticed.")
    settle_seconds: Seconds = Field(0.1, description="Seconds without a change before a folder is looked at.")
    longest_wait_seconds: Annotated[Seconds, AfterValidator(_check_longest_wait)] = Field(
        1.0, description="Seconds until a folder that keeps changing is looked at; at least settle_seconds."
    )
    flush_interval_seconds: Seconds = Field(10.0, description="Least seconds between two flushes.")
    reconcile_interval_seconds: Seconds = Field(86400.0, description="Seconds between scans of watched trees.")
    poll_interval_seconds: Seconds = Field(300.0, description="Seconds between scans of polled trees.")
    reconcile_entries_per_second: int = Field(
        2000, ge=0, description="Entries per second that such scans read; 0: no limit."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged.")
    prune: Prune = Prune()
    guard: Guard = Guard()
    journal: Journal = Journal()
    control: Control = Control()
    adopt: Adopt = Adopt()
    publish: Annotated[tuple[Publish, ...], AfterValidator(_check_targets)] = Field(
        (), description="Targets that get the tables; see the entries below [[publish]]."
    )
    serve: Serve = Serve()
    report: Report = Report()

    @property
    def n_workers(self) -> int:
        """Number of processes that read the disk in full scans: `scan_workers`, or what suits the machine."""
        return self.scan_workers or min(_MOST_WORKERS, len(os.sched_getaffinity(0)))

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take arguments only: `configuration` reads the other sources, to know where each value comes from."""
        return (sources["init_settings"],)


EXPLANATIONS: Mapping[str, str] = {
    prefix + name: field.description
    for prefix, model in (
        ("", Settings),
        ("prune.", Prune),
        ("guard.", Guard),
        ("journal.", Journal),
        ("control.", Control),
        ("adopt.", Adopt),
        ("serve.", Serve),
        ("report.", Report),
    )
    for name, field in model.model_fields.items()
    if field.description
}
"""Each key, with a dot after its section -> what it means."""
ENTRY_KEYS = tuple(
    f"publish.{name}" for name in (*Publish.model_fields, *(f"subset.{name}" for name in Subset.model_fields))
)
"""Keys that an entry of `publish` may have."""
