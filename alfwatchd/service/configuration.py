"""Reads the settings: flags win over the environment, the environment over the file, the file over the defaults."""

from __future__ import annotations

import difflib
import hashlib
import os
import pwd
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource

from alfwatchd import credentials
from alfwatchd.addresses import redact
from alfwatchd.alf.file_names import INFO, TABLES, ZIP
from alfwatchd.errors import ConfigError
from alfwatchd.service import containers
from alfwatchd.settings import ENTRY_KEYS, EXPLANATIONS, Settings, check_place, check_socket
from alfwatchd.users import this_user

ENV_PREFIX = "ALFWATCHD_"
OF_COMMANDS = ("PATH", "SESSION", "EID", "GENERATION", "CHANGE")
"""What `alfwatchd follow` sets behind the prefix for its commands: no settings. The root is one."""
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_NO_HOME = "HOME is not set, and uid {} has no entry in the list of users (passwd): set HOME, or {}"
SYSTEM_SOCKET = Path("/run/alfwatchd/alfwatchd.sock")

Flags = Mapping[str, object]
Environ = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and where each value comes from.

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
        Key of `EXPLANATIONS`, or ``config`` -> value from the command line, None if it was not given.
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
    places = _default_places(values, environ)
    if places.keys() == {"out_dir"}:
        raise ConfigError(f"state_dir: {_NO_HOME.format(os.getuid(), 'give --state-dir')}")
    for key, value in (places | values).items():
        section, _, name = key.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[name] = value
    try:
        settings = Settings(**nested)
    except ValidationError as error:
        raise ConfigError("\n".join(_invalid(error, sources))) from error
    _check_circle(settings, sources["adopt.source"])
    _check_targets(settings, sources["publish"])
    return Loaded(settings, sources)


def _check_circle(settings: Settings, source: str) -> None:
    """Refuse to adopt from our own tables: a row that was missing once would never be removed again."""
    if not settings.adopt.source or "://" in settings.adopt.source:
        return
    place = Path(os.path.realpath(settings.adopt.source))
    folders = [Path(os.path.realpath(Path(each.target, each.subset.tag))) for each in settings.publish]
    circle = settings.out_dir if place == settings.out_dir else None
    circle = next((folder for folder in folders if folder in (place, place.parent)), circle)
    if circle is not None:
        raise ConfigError(
            f"adopt.source ({source}): {settings.adopt.source} is what this program writes to {circle}: name the "
            "tables that the database makes"
        )


def _check_targets(settings: Settings, source: str) -> None:
    """Refuse to publish into the data, or over the tables that are published."""
    for target in (entry.target for entry in settings.publish if "://" not in entry.target):
        for name, folder in (("root", settings.root), ("out_dir", settings.out_dir)):
            if Path(os.path.realpath(target)) == folder:
                raise ConfigError(
                    f"publish ({source}): {target} is the {name}, and would get {ZIP}, {INFO} and the folder "
                    f"{TABLES}: give a folder of its own"
                )


@dataclass(frozen=True, slots=True)
class Address:
    """Where a command may find its daemon.

    Parameters
    ----------
    sockets : tuple of Path
        At least one, the most likely first. Several only if the command names none.
    is_named : bool
        Whether a `socket` is set, by flag, environment or file.
    root : Path or None
        The root that is set, links resolved; None if the command does not say which root it means.
    """

    sockets: tuple[Path, ...]
    is_named: bool
    root: Path | None


def find_address(flags: Flags, environ: Environ = os.environ) -> Address:
    """Return where to look for the daemon of the root that is set; otherwise as `find_socket`.

    Raises
    ------
    ConfigError
        As `find_socket`, or `root` is set to something that is not a path: a command never asks another root's daemon.
    """
    values, sources = _read_all(flags, environ)
    try:
        root = check_place(values["root"]) if "root" in values else None
    except ValueError as error:
        raise ConfigError(f"root = {values['root']!r} ({sources['root']}): {error}") from error
    return Address(_sockets(values, sources, environ), "socket" in values, root)


def find_socket(flags: Flags, environ: Environ = os.environ) -> Path:
    """Return the path of the control socket, for a command that may not know a root.

    A `socket` that is set wins. Else it is the first that exists in ``$RUNTIME_DIRECTORY``, ``$XDG_RUNTIME_DIR``,
    ``/run/alfwatchd`` and, where the root is known, its state folder; if none exists, the first of these.
    Other settings are not validated. But an unknown key is an error: a typing error must not lead to another daemon.

    Parameters
    ----------
    flags, environ
        As for `load`.

    Raises
    ------
    ConfigError
        An unknown key, an unusable path or TOML file.
    """
    return _sockets(*_read_all(flags, environ), environ)[0]


def _sockets(values: dict[str, object], sources: Mapping[str, str], environ: Environ) -> tuple[Path, ...]:
    """Return the socket that is set; else all usual ones that exist; else the first of the usual ones."""
    try:
        if "socket" in values:
            return (check_socket(check_place(values["socket"])),)
        candidates = [*_runtime_sockets(environ), SYSTEM_SOCKET]
        state_dir = (_default_places(values, environ) | values).get("state_dir")
        if state_dir is not None:
            candidates.append(check_place(state_dir) / SYSTEM_SOCKET.name)
        # In a folder without permission, `os.access` finds nothing, and `Path.exists` would raise.
        found = [path for path in candidates if os.access(path, os.F_OK)] or candidates[:1]
        check_socket(found[0])
        return tuple(found)
    except ValueError as error:
        raise ConfigError(f"socket ({sources.get('socket', 'default')}): {error}") from error


def _read_all(flags: Flags, environ: Environ) -> tuple[dict[str, object], dict[str, str]]:
    """Return key -> value that is set, with paths made absolute, and key -> source of the value."""
    values, sources, unknown = {}, {}, []
    for key, value, folder, source in _entries(flags, environ):
        if key not in EXPLANATIONS:
            unknown.append(_unknown(key, source))
        values[key], sources[key] = _place(key, value, folder, environ), source
    if unknown:
        raise ConfigError("\n".join(unknown))
    return values, sources


def _unknown(key: str, source: str) -> str:
    nearest = difflib.get_close_matches(key.lower().replace("-", "_"), (*EXPLANATIONS, *ENTRY_KEYS), n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else "config.example.toml lists all keys"
    return f"{source}: unknown key {key!r}; {hint}"


def _entries(flags: Flags, environ: Environ) -> Iterator[tuple[str, object, Path, str]]:
    """Yield (key, value, folder of relative paths, source) of each value that is set, the weakest source first."""
    try:
        cwd = Path.cwd()
    except OSError as error:
        raise ConfigError(f"the current folder cannot be used ({error.strerror}): change to another one") from error
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
            # `prune.reference` is the flag `--reference`: the command's name stands for the section.
            yield key, value, cwd, f"flag --{key.rpartition('.')[2].replace('_', '-')}"


def _read_toml(file: Path) -> dict[str, Any]:
    text = ""
    try:
        text = file.read_text(encoding="utf-8-sig")  # Notepad and PowerShell begin a file with a mark
        return tomllib.loads(text)
    except OSError as error:
        what_to_do = "check its path"
        if isinstance(error, PermissionError):
            what_to_do = f"let {this_user()} read it: check its owner and mode, and those of the folders above"
        raise ConfigError(f"{file}: cannot read the configuration: {error.strerror}; {what_to_do}") from error
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line, column = str(before.count(b"\n") + 1), str(error.start - before.rfind(b"\n"))
        encoding = "UTF-16" if error.object.startswith(_UTF16_MARKS) else "another encoding than UTF-8"
        raise ConfigError(f"{file}:{line}:{column}: not valid TOML: saved as {encoding}; save it as UTF-8") from error
    except ValueError as error:
        found = re.search(r"at line (\d+), column (\d+)\)$", str(error))
        at_end = str(text.count("\n") + 1), str(len(text) - text.rfind("\n"))
        line, column = found.groups() if found else at_end
        raise ConfigError(f"{file}:{line}:{column}: not valid TOML: {error}") from error


def _from_environment(environ: Environ) -> Iterator[tuple[str, object]]:
    names = {name for name in environ if name.startswith(ENV_PREFIX) and not name.startswith(credentials.PREFIX)}
    names -= {ENV_PREFIX + name for name in OF_COMMANDS}
    names -= {_env_name("config"), *containers.set_variables(environ, ENV_PREFIX)}
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
    """Make a path absolute. A value that is not a path stays as it is, and `Settings` refuses it."""
    if key == "publish" and isinstance(value, list | tuple):
        return [_with_place(entry, folder, environ) for entry in value]
    if key == "adopt.source":
        return _path_or_address(value, folder, environ)
    is_place = key in ("root", "out_dir", "state_dir", "socket", "prune.reference")
    if not is_place or not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        return value
    path = folder / _expand_home(str(value), environ)
    # A link to the reference tables may lead to newer ones later. The root stays one folder as long as we run.
    return Path(os.path.realpath(path)) if key in ("root", "out_dir") else path


def _with_place(entry: object, folder: Path, environ: Environ) -> object:
    if not isinstance(entry, Mapping) or "target" not in entry:
        return entry
    return {**entry, "target": _path_or_address(entry["target"], folder, environ)}


def _path_or_address(value: object, folder: Path, environ: Environ) -> object:
    if not isinstance(value, str) or not value or "://" in value or "\0" in value:
        return value
    return str(folder / _expand_home(value, environ))


def _expand_home(text: str, environ: Environ) -> str:
    if text != "~" and not text.startswith("~/"):
        return text
    if (home := _find_home(environ)) is None:
        raise ConfigError(f"{text}: {_NO_HOME.format(os.getuid(), 'write the whole path')}")
    return home + text[1:]


def _find_home(environ: Environ) -> str | None:
    """Return the home folder; None for a user without one, as containers have them."""
    try:
        return environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return None


def _default_places(values: Mapping[str, object], environ: Environ) -> dict[str, object]:
    """Return the default places, which follow from the root; empty if that is not known or cannot be used.

    Those in the home folder are left out where there is none.
    """
    out_dir = values.get("out_dir", values.get("root"))
    if not isinstance(out_dir, Path):
        return {}
    above = _state_above(environ)
    if "state_dir" not in values and above is None:
        return {"out_dir": out_dir}
    # Two output folders never share a state folder. Their names are cut, as they may be as long as NAME_MAX.
    name = f"{out_dir.name[:24]}-{hashlib.sha256(os.fsencode(out_dir)).hexdigest()[:8]}"
    state_dir = values["state_dir"] if above is None else values.get("state_dir", above / name)
    if not isinstance(state_dir, Path):
        return {}
    sockets = [*_runtime_sockets(environ), state_dir / SYSTEM_SOCKET.name]
    return {"out_dir": out_dir, "state_dir": state_dir, "socket": sockets[0]}


def _state_above(environ: Environ) -> Path | None:
    """Return the folder in which each output folder has its state folder; None without a home for it."""
    for folder in _folders(environ, "STATE_DIRECTORY"):
        return folder
    for folder in _folders(environ, "XDG_STATE_HOME"):
        return folder / "alfwatchd"
    home = _find_home(environ)
    return Path(home, ".local/state/alfwatchd") if home is not None else None


def _runtime_sockets(environ: Environ) -> list[Path]:
    return [folder / SYSTEM_SOCKET.name for folder in _folders(environ, "RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR")]


def _folders(environ: Environ, *names: str) -> Iterator[Path]:
    # systemd.exec(5): a list with colons. XDG Base Directory Specification: a relative folder is to be ignored.
    firsts = (environ.get(name, "").partition(":")[0] for name in names)
    return (Path(first) for first in firsts if first.startswith("/"))


_SHOULD = {
    "float_parsing": "should be a number",
    "float_type": "should be a number",
    "int_parsing": "should be a whole number",
    "int_type": "should be a whole number",
    "int_from_float": "should be a whole number",
    "bool_parsing": "should be true or false",
    "bool_type": "should be true or false",
}
"""Type of an error -> what to say, where pydantic speaks of its own parsing."""


def _is_time(key: str) -> bool:
    return key.endswith("_seconds")


def _invalid(error: ValidationError, sources: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each invalid value: key, value, source, and what would be valid."""
    for item in error.errors(include_url=False):
        key = ".".join(part for part in item["loc"] if isinstance(part, str))
        if item["type"] == "extra_forbidden":
            yield _unknown(key, sources["publish"])
        elif item["type"] != "missing":
            value = str(item["input"]) if isinstance(item["input"], Path) else repr(item["input"])
            value = redact(value)
            what = _SHOULD.get(item["type"]) or item["msg"].removeprefix("Value error, ").removeprefix("Input ")
            what = what.replace("tuple", "list") + (" of seconds" if what in _SHOULD.values() and _is_time(key) else "")
            source = sources[next(each for each in (key, key.partition(".")[0]) if each in sources)]
            yield f"{key} = {value} ({source}): {what}"
        elif key == "publish.target":
            yield f"publish ({sources['publish']}): an entry has no target: give a folder or s3://bucket/prefix"
        elif key == "root":  # the other places follow from it
            yield "root is not set: give --root DIR, ALFWATCHD_ROOT=DIR, or root = 'DIR' in the --config file"
