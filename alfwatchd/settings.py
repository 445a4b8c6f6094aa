"""Flags over environment over TOML over defaults -> one validated, frozen `Settings`, and the source of each value."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import pwd
import re
import tomllib
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pathspec
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError, ValidationInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, PydanticBaseSettingsSource

from alfwatchd.core import alf, ids
from alfwatchd.errors import ConfigError

ENV_PREFIX = "ALFWATCHD_"
SYSTEM_SOCKET = Path("/run/alfwatchd/alfwatchd.sock")
SOCKET_PATH_LIMIT = 107
"""Bytes; ``sun_path`` of ``unix(7)`` has 108, the closing zero included."""

Flags = Mapping[str, object]
Environ = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings in force.

    Parameters
    ----------
    settings : Settings
    sources : mapping of str to str
        Key of `EXPLANATIONS` -> ``flag --root``, ``environment ALFWATCHD_ROOT``, path of the TOML file, ``default``.
    """

    settings: Settings
    sources: Mapping[str, str]


def load(flags: Flags, environ: Environ = os.environ) -> Loaded:
    """Read, merge and validate the settings.

    Parameters
    ----------
    flags : mapping of str to object
        Key of `EXPLANATIONS`, or ``config`` -> value from the command line, None where it was not given.
    environ : mapping of str to str
        The environment, from which the default places come too. An empty variable counts as not set.

    Raises
    ------
    ConfigError
        One line for each unknown key, else for each invalid value; or the TOML file cannot be read.
    """
    values, sources = _read_all(flags, environ)
    sources = {key: sources.get(key, "default") for key in EXPLANATIONS}
    nested: dict[str, Any] = {}
    for key, value in (_default_places(values, environ) | values).items():
        section, _, name = key.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[name] = value
    try:
        return Loaded(Settings(**nested), sources)
    except ValidationError as error:
        raise ConfigError("\n".join(_invalid(error, sources))) from error


def find_socket(flags: Flags, environ: Environ = os.environ) -> Path:
    """Return the control socket for a command that may know no root.

    A `socket` that is set wins. Else it is the first that exists in ``$RUNTIME_DIRECTORY``, ``$XDG_RUNTIME_DIR``,
    ``/run/alfwatchd`` and, where the root is known, its state folder; if none exists, the first of these.
    Other settings are not validated, but an unknown key is an error: a typing error must not lead to another daemon.

    Parameters
    ----------
    flags, environ
        As for `load`.

    Raises
    ------
    ConfigError
        An unknown key, an unusable path or TOML file.
    """
    values, sources = _read_all(flags, environ)
    try:
        if "socket" in values:
            return _check_socket(_check_place(values["socket"]))
        candidates = [*_runtime_sockets(environ), SYSTEM_SOCKET]
        state_dir = (_default_places(values, environ) | values).get("state_dir")
        if state_dir is not None:
            candidates.append(_check_place(state_dir) / SYSTEM_SOCKET.name)
        # For `os.access`, what lies in a folder without permission is absent; `Path.exists` raises.
        return _check_socket(next((path for path in candidates if os.access(path, os.F_OK)), candidates[0]))
    except ValueError as error:
        raise ConfigError(f"socket ({sources.get('socket', 'default')}): {error}") from error


def _check_place(value: object) -> Path:
    # `_place` has made absolute whatever can be; an empty path must not become the current folder.
    if not isinstance(value, Path) or not value.is_absolute() or "\0" in str(value):
        raise ValueError("should be a path, not empty")
    return value


def _check_socket(path: Path) -> Path:
    if (length := len(os.fsencode(path))) > SOCKET_PATH_LIMIT:
        raise ValueError(
            f"should have at most {SOCKET_PATH_LIMIT} bytes, and {path} has {length}: set a shorter socket"
        )
    return path


def _check_lab(lab: str) -> str:
    if lab and alf.child_kind(alf.Kind.TOP, lab, "Subjects") is None:
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


_MOST_WORKERS = 4
"""By default, as the disk serves others, too."""

Place = Annotated[Path, BeforeValidator(_check_place)]
OptionalPlace = Annotated[Place | None, BeforeValidator(lambda value: value or None)]
Seconds = Annotated[float, Field(gt=0)]
Pattern = Annotated[str, AfterValidator(_check_pattern)]
Patterns = Annotated[tuple[Pattern, ...], NoDecode, BeforeValidator(_split_patterns)]


class _Section(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    pass


class Prune(_Section):
    """What may be deleted."""

    reference: OptionalPlace = Field(None, description="Folder of the reference tables; empty: the daemon's own.")
    max_fraction: float = Field(0.1, ge=0, le=1, description="Largest part of all datasets to delete, 0 to 1.")
    enabled: bool = Field(default=False, description="Whether a prune over the socket may delete.")


class Control(_Section):
    """Who may use the control socket."""

    group: str = Field("", description="Unix group that may use the socket (mode 0660) and prune; empty: none.")


class Settings(BaseSettings, frozen=True, extra="forbid", allow_inf_nan=False):
    """All settings, as `load` makes them. Paths are absolute; `root` and `out_dir` are free of symbolic links."""

    root: Place = Field(description="Folder that is indexed.")
    out_dir: Place = Field(description="Folder of the two tables; default: the root.")
    state_dir: Place = Field(description="Folder of what should outlive a restart.")
    socket: Annotated[Place, AfterValidator(_check_socket)] = Field(description="Path of the control socket.")
    lab: Annotated[str, AfterValidator(_check_lab)] = Field("", description="Lab of a tree without lab folders.")
    namespace: uuid.UUID = Field(ids.NAMESPACE, description="UUID that all ids are made from.")
    exclude: Patterns = Field((), description=".gitignore patterns on root-relative paths that are left out.")
    hash_files: bool = Field(default=False, description="Whether the md5 of each dataset is computed.")
    hash_threads: int = Field(1, ge=1, le=64, description="Threads that compute hashes, 1 to 64.")
    scan_workers: int = Field(0, ge=0, le=64, description="Processes for full scans; 0: one per core, at most 4.")
    watch: Literal["auto", "inotify", "poll"] = Field("auto", description="How changes are noticed.")
    settle_seconds: Seconds = Field(0.1, description="Seconds without a change before a folder is looked at.")
    longest_wait_seconds: Annotated[Seconds, AfterValidator(_check_longest_wait)] = Field(
        1.0, description="Seconds until a folder that keeps changing is looked at; at least settle_seconds."
    )
    flush_interval_seconds: Seconds = Field(10.0, description="Least seconds between two flushes.")
    reconcile_interval_seconds: Seconds = Field(86400.0, description="Seconds between scans of watched trees.")
    poll_interval_seconds: Seconds = Field(300.0, description="Seconds between scans of polled trees.")
    reconcile_entries_per_second: int = Field(2000, ge=0, description="Entries per second such scans read; 0: all.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level to log.")
    prune: Prune = Prune()
    control: Control = Control()

    @property
    def n_workers(self) -> int:
        """Processes that read the disk in full scans: `scan_workers`, or what fits the machine."""
        return self.scan_workers or min(_MOST_WORKERS, len(os.sched_getaffinity(0)))

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take arguments only: `load` reads the other sources itself, so as to know where each value came from."""
        return (sources["init_settings"],)


EXPLANATIONS: Mapping[str, str] = {
    prefix + name: field.description
    for prefix, model in (("", Settings), ("prune.", Prune), ("control.", Control))
    for name, field in model.model_fields.items()
    if field.description
}
"""Every key, with a dot after its section -> what it means."""


def _read_all(flags: Flags, environ: Environ) -> tuple[dict[str, object], dict[str, str]]:
    """Return the values that are set, paths made absolute, and the source of each."""
    values, sources, unknown = {}, {}, []
    for key, value, folder, source in _entries(flags, environ):
        if key not in EXPLANATIONS:
            nearest = difflib.get_close_matches(key.lower().replace("-", "_"), EXPLANATIONS, n=1, cutoff=0.5)
            hint = f"did you mean {nearest[0]!r}?" if nearest else "config.example.toml lists all keys"
            unknown.append(f"{source}: unknown key {key!r}; {hint}")
        values[key], sources[key] = _place(key, value, folder, environ), source
    if unknown:
        raise ConfigError("\n".join(unknown))
    return values, sources


def _entries(flags: Flags, environ: Environ) -> Iterator[tuple[str, object, Path, str]]:
    """Yield key, value, folder of relative paths, and source of all that is set, the weakest source first."""
    cwd = Path.cwd()
    config = flags.get("config")
    if config is None:
        config = environ.get(_env_name("config")) or None
    if config is not None:
        file = cwd / _expand_home(str(config), environ)
        for key, value in _flat(_read_toml(file)):
            yield key, value, file.parent, str(file)
    for key, value in _from_environment(environ):
        yield key, value, cwd, f"environment {_env_name(key)}"
    for key, value in flags.items():
        if key != "config" and value is not None:
            # `prune.reference` is `--reference`: the command's name stands for the section.
            yield key, value, cwd, f"flag --{key.rpartition('.')[2].replace('_', '-')}"


def _read_toml(file: Path) -> dict[str, Any]:
    text = ""
    try:
        text = file.read_text(encoding="utf-8")
        return tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{file}: cannot read the configuration: {error.strerror}; check its path") from error
    except ValueError as error:
        found = re.search(r"at line (\d+), column (\d+)\)$", str(error))
        line, column = found.groups() if found else (text.count("\n") + 1, len(text) - text.rfind("\n"))
        raise ConfigError(f"{file}:{line}:{column}: not valid TOML: {error}") from error


def _from_environment(environ: Environ) -> Iterator[tuple[str, object]]:
    names = {name for name in environ if name.startswith(ENV_PREFIX)} - {_env_name("config")}
    keys = {name: name.removeprefix(ENV_PREFIX).lower().replace("__", ".") for name in names}
    source = EnvSettingsSource(Settings, env_prefix=ENV_PREFIX, env_nested_delimiter="__")
    source.env_vars = {name.lower(): environ[name] for name in names if environ[name] and keys[name] in EXPLANATIONS}
    yield from _flat(source())
    yield from ((key, None) for key in sorted(keys.values()) if key not in EXPLANATIONS)


def _env_name(key: str) -> str:
    return ENV_PREFIX + key.upper().replace(".", "__")


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _place(key: str, value: object, folder: Path, environ: Environ) -> object:
    """Make a path absolute; what is not one stays as it is, and the model refuses it."""
    is_place = key in ("root", "out_dir", "state_dir", "socket", "prune.reference")
    if not is_place or not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        return value
    path = folder / _expand_home(str(value), environ)
    # A link to the reference tables may later point to newer ones; the root is one folder as long as we run.
    return Path(os.path.realpath(path)) if key in ("root", "out_dir") else path


def _expand_home(text: str, environ: Environ) -> str:
    if text != "~" and not text.startswith("~/"):
        return text
    return (environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir) + text[1:]


def _default_places(values: Mapping[str, object], environ: Environ) -> dict[str, object]:
    """Return the places that follow from the root; nothing where it is not known or unusable."""
    out_dir = values.get("out_dir", values.get("root"))
    if not isinstance(out_dir, Path):
        return {}
    above = next(_folders(environ, "STATE_DIRECTORY"), None)
    if above is None:
        home = Path(_expand_home("~/.local/state", environ))
        above = next(_folders(environ, "XDG_STATE_HOME"), home) / "alfwatchd"
    # Two output folders of one user or unit never share a state folder. The name is cut, as it may be up to NAME_MAX.
    own = above / f"{out_dir.name[:24]}-{hashlib.sha256(os.fsencode(out_dir)).hexdigest()[:8]}"
    state_dir = values.get("state_dir", own)
    if not isinstance(state_dir, Path):
        return {}
    sockets = [*_runtime_sockets(environ), state_dir / SYSTEM_SOCKET.name]
    return {"out_dir": out_dir, "state_dir": state_dir, "socket": sockets[0]}


def _runtime_sockets(environ: Environ) -> list[Path]:
    return [folder / SYSTEM_SOCKET.name for folder in _folders(environ, "RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR")]


def _folders(environ: Environ, *names: str) -> Iterator[Path]:
    # systemd.exec(5): a list with colons. XDG Base Directory Specification: a relative folder is to be ignored.
    firsts = (environ.get(name, "").partition(":")[0] for name in names)
    return (Path(first) for first in firsts if first.startswith("/"))


def _invalid(error: ValidationError, sources: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each invalid value: key, value, source, and what is allowed."""
    for item in error.errors(include_url=False):
        key = ".".join(part for part in item["loc"] if isinstance(part, str))
        if item["type"] != "missing":
            value = str(item["input"]) if isinstance(item["input"], Path) else repr(item["input"])
            what = item["msg"].removeprefix("Value error, ").removeprefix("Input ").replace("tuple", "list")
            yield f"{key} = {value} ({sources[key]}): {what}"
        elif key == "root":  # the other places follow from it
            yield "root is not set: give --root DIR, ALFWATCHD_ROOT=DIR, or root = 'DIR' in the --config file"
