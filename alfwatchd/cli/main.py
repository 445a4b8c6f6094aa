"""The command line: arguments, commands, exit codes. Heavy modules are imported by the commands that need them."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from alfwatchd import addresses
from alfwatchd.api import RecomputeReply
from alfwatchd.cli import addressing, output, prune
from alfwatchd.cli import serve as serve_command
from alfwatchd.errors import AlfwatchdError, UsageError
from alfwatchd.service import configuration, logs
from alfwatchd.settings import EXPLANATIONS, Settings
from alfwatchd.version import find_version
from alfwatchd.web.client import Client

_EPILOG = """\
examples:
  alfwatchd --root /data/one                 keep the tables of /data/one right until stopped
  alfwatchd --root /data/one --once          bring them up to date and end
  alfwatchd status                           ask the running daemon
  alfwatchd sync && python analysis.py       go on when all changes so far are in the tables
  alfwatchd serve --root /data/one           give the tables to ONE(base_url="http://localhost:8310", ...)
  alfwatchd demo ./demo                      write a small tree to try all this on

exit codes: 0 done, 1 failed, 2 usage, 3 no daemon, 75 busy or locked, 78 bad configuration
"""
_FLAGS = (
    "root",
    "out_dir",
    "state_dir",
    "socket",
    "config",
    "lab",
    "hash_files",
    "exclude",
    "scan_workers",
    "watch",
    "log_level",
)


def run() -> NoReturn:
    """Run the command line and end the process."""
    code = main()
    with suppress(OSError, ValueError):  # closed by whoever was to read it
        sys.stdout.flush()
        sys.stderr.flush()
    # Not `sys.exit`, after which Python would take a million rows apart one by one, for a second.
    os._exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = _parser().parse_args(argv)
    logs.set_up(getattr(arguments, "log_level", None) or "warning")
    try:
        return int(arguments.run(arguments))
    except AlfwatchdError as error:
        logs.complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1


def _parser() -> argparse.ArgumentParser:
    common = _common_flags()
    parser = argparse.ArgumentParser(
        "alfwatchd",
        parents=[common],
        description="Keep the ONE cache tables of a folder of ALF datasets right.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"alfwatchd {find_version()}")
    parser.add_argument("--once", action="store_true", help="bring the tables up to date, print a summary and end")
    parser.add_argument(
        "--accept-root",
        action="store_true",
        help="with --once: accept the current root even if it is a different disk or folder than last time",
    )
    parser.set_defaults(run=_serve, json=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, parents=[common], help=text, description=text, allow_abbrev=False)
        command.set_defaults(run=run)
        if run not in (_demo, _serve_tables):
            command.add_argument("--json", action="store_true", help="print the whole answer as JSON")
        return command

    add("status", _status, "show what the running daemon knows")
    add("sync", _sync, "wait until every change made so far is in the tables on disk")
    add("flush", _flush, "write the tables to disk now")
    rescan = add("rescan", _rescan, "scan the root, or one folder of it, again")
    rescan.add_argument("path", nargs="?", default="", metavar="PATH", help="folder, relative to the root")
    rescan.add_argument("--accept-root", action="store_true", help="take root and mounts as they are now")
    ids = add("ids", _ids, "find what became of an id, or make all ids anew")
    ids.add_argument("old", metavar="OLD", nargs="?", help="eid or dataset id, as tables once held it")
    ids.add_argument("--recompute", action="store_true", help="make all ids anew from the paths or the database")
    prune.add_flags(
        add(
            "prune",
            lambda given: prune.run(given, _flags(given)),
            "list or delete datasets that are not in reference tables",
        )
    )
    serve_command.add_flags(add("serve", _serve_tables, "give the tables to ONE clients on other machines, over HTTP"))
    add("config", _config, "show the settings in force and where each comes from")
    demo = add("demo", _demo, "write a small realistic ALF tree to try things on")
    demo.add_argument("folder", metavar="DIR", help="folder to make; must not exist or be empty")
    demo.add_argument("--sessions", type=int, default=6, metavar="N", help="number of sessions (default 6)")
    return parser


def _common_flags() -> argparse.ArgumentParser:
    """Make the flags that all commands share; they may stand before or after the command."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS, allow_abbrev=False)
    group = common.add_argument_group("settings", "over the environment (ALFWATCHD_ROOT, ...) over the --config file")
    group.add_argument("--root", metavar="DIR", help="folder that is indexed")
    group.add_argument("--out-dir", metavar="DIR", help="folder of the two tables (default: the root)")
    group.add_argument("--state-dir", metavar="DIR", help="folder of what must outlive a restart: notes, changed ids")
    group.add_argument("--socket", metavar="PATH", help="control socket of the daemon")
    group.add_argument("--config", metavar="FILE", help="settings in TOML; see config.example.toml")
    group.add_argument("--lab", metavar="NAME", help="lab of a tree without lab folders")
    group.add_argument("--hash-files", action="store_true", help="compute the md5 of each dataset")
    group.add_argument("--exclude", action="append", metavar="PATTERN", help=".gitignore pattern; may be repeated")
    group.add_argument(
        "--scan-workers", type=int, metavar="N", help="processes for full scans (default: one per core, at most 4)"
    )
    group.add_argument("--watch", choices=["auto", "inotify", "poll"], help="how changes are noticed")
    group.add_argument("--log-level", choices=["debug", "info", "warning", "error"], help="least level to log")
    return common


def _flags(arguments: argparse.Namespace) -> dict[str, object]:
    return {name: getattr(arguments, name) for name in _FLAGS if hasattr(arguments, name)}


# The daemon and its stand-in.


def _serve(arguments: argparse.Namespace) -> int:
    if arguments.accept_root and not arguments.once:
        raise UsageError("--accept-root goes with --once; for a running daemon: alfwatchd rescan --accept-root")
    flags = _flags(arguments)
    loaded = configuration.load(flags).settings
    if arguments.once:
        return _once(arguments, loaded)
    from alfwatchd.service import daemon

    logs.set_up(loaded.log_level)
    daemon.run(loaded, lambda: configuration.load(flags).settings)
    return 0


def _once(arguments: argparse.Namespace, loaded: Settings) -> int:
    from alfwatchd.cli.progress import ScanProgress
    from alfwatchd.service.locks import hold_out_dir
    from alfwatchd.service.once import run_once
    from alfwatchd.store.writer import check_out_dir, use_system_memory

    use_system_memory()
    gc.disable()  # for good, as the process ends with this; see `once.no_garbage_collection`
    check_out_dir(loaded.out_dir)
    with hold_out_dir(loaded.out_dir), ScanProgress() as progress:
        summary = run_once(loaded, accept_root=arguments.accept_root, progress=progress.update)
        if not summary.held:  # else it may be the trash of another disk
            prune.empty_due(loaded)
    for problem in summary.problems:
        if problem.kind == "held":
            continue  # said last of all, as that is why this fails
        print(f"problem: {problem.path or '.'}: {problem.message}", file=sys.stderr)
    if (known := summary.adopted) is not None:
        print(
            f"the database knows {known.n_sessions} of the sessions and {known.n_datasets} of the datasets; "
            f"{known.n_changes} ids changed" + (": alfwatchd ids OLD finds the new ones" if known.n_changes else "")
        )
    print(
        f"{summary.n_sessions} sessions, {summary.n_datasets} datasets, {output.show_bytes(summary.n_bytes)}; "
        f"{summary.added} added, {summary.changed} changed, {summary.removed} removed; "
        f"{len(summary.problems)} problem{'s' * (len(summary.problems) != 1)}; {summary.seconds:.2f} seconds"
    )
    code = _publish_all(loaded)
    if summary.held:
        logs.complain(summary.held)
    return code or bool(summary.held)


def _publish_all(loaded: Settings) -> int:
    """Publish to each target, though others fail; return the exit code."""
    from alfwatchd.publish.publication import publish_surely

    code = 0
    for entry in loaded.publish:
        try:
            done = publish_surely(loaded.out_dir, entry)
            name, tag = entry.target, entry.subset.tag
            print(output.published_line(name, tag, done.name, done.date, is_new=done.published))
            if done.removal_error:
                logs.complain(done.removal_error)
        except AlfwatchdError as error:
            logs.complain(f"the tables are written, but not published to {entry.target}: {error}")
            code = 1
    return code


def _serve_tables(arguments: argparse.Namespace) -> int:
    loaded = configuration.load(_flags(arguments) | serve_command.read_flags(arguments)).settings
    from alfwatchd.service import serve

    logs.set_up(loaded.log_level)
    serve.run(loaded)
    return 0


# Commands to a running daemon.


def _status(arguments: argparse.Namespace) -> int:
    status = addressing.find_daemon(_flags(arguments)).status()
    _print(status, arguments, "\n".join(output.status_lines(status)))
    return 0


def _sync(arguments: argparse.Namespace) -> int:
    client = addressing.find_daemon(_flags(arguments))
    reply = client.sync()
    _print(reply, arguments, f"{reply.exactness}: generation {reply.generation} is on disk ({reply.seconds:.3f} s)")
    if reply.exactness == "held":
        logs.complain(client.status().detail)
        return 1
    return 0


def _flush(arguments: argparse.Namespace) -> int:
    reply = addressing.find_daemon(_flags(arguments)).flush()
    _print(reply, arguments, f"generation {reply.generation} is on disk ({reply.seconds:.3f} s)")
    return 0


def _rescan(arguments: argparse.Namespace) -> int:
    client = addressing.find_daemon(_flags(arguments))
    if arguments.accept_root:
        client = addressing.with_root(client, _flags(arguments), changes=True)
    path = arguments.path
    if Path(path).is_absolute():
        path = _relative_to_root(client, path)
    reply = client.rescan(path, accept_root=arguments.accept_root)
    _print(
        reply,
        arguments,
        f"{reply.added} added, {reply.changed} changed, {reply.removed} removed; "
        f"generation {reply.generation} is on disk ({reply.seconds:.2f} s)",
    )
    for problem in client.status().problems:
        if problem.kind == "held":
            logs.complain(problem.message)
            return 1
    return 0


def _relative_to_root(client: Client, path: str) -> str:
    root, resolved = client.find_root(), Path(path).resolve()
    if not resolved.is_relative_to(root):
        raise UsageError(f"{path}: not below the root, which is {root}")
    relative = resolved.relative_to(root).as_posix()
    return "" if relative == "." else relative


# Ids.


def _ids(arguments: argparse.Namespace) -> int:
    if arguments.recompute == (arguments.old is not None):
        raise UsageError("give the id to look for, or --recompute to make all ids anew: alfwatchd ids OLD")
    if arguments.recompute:
        return _recompute_ids(arguments)
    client = addressing.find_daemon_if_any(_flags(arguments))
    if client is not None:
        reply = client.ids(arguments.old)
    else:
        from alfwatchd.store.id_history import find_id

        settings = configuration.load(_flags(arguments)).settings
        reply = find_id(settings.state_dir, settings.out_dir, arguments.old)
    lines = [f"{step.when}  {step.old} -> {step.new}  {step.path}  {step.reason}" for step in reply.steps]
    _print(reply, arguments, "\n".join([*lines, reply.new] if lines else [f"{reply.old}: no change of it is known"]))
    return 0 if reply.steps else 1


def _recompute_ids(arguments: argparse.Namespace) -> int:
    client = addressing.find_daemon_if_any(_flags(arguments))
    if client is None:
        reply = _recompute_alone(arguments)
    else:
        reply = addressing.with_root(client, _flags(arguments), changes=True).recompute_ids()
    _print(reply, arguments, f"{reply.n_changes} ids changed; alfwatchd ids OLD finds new ones ({reply.seconds:.2f} s)")
    return 0


def _recompute_alone(arguments: argparse.Namespace) -> RecomputeReply:
    from alfwatchd.service.locks import hold_out_dir
    from alfwatchd.service.once import recompute_ids

    loaded = configuration.load(_flags(arguments)).settings
    with hold_out_dir(loaded.out_dir):
        return recompute_ids(loaded)


# Without a daemon.


def _config(arguments: argparse.Namespace) -> int:
    loaded = configuration.load(_flags(arguments))
    values = {}
    for key in EXPLANATIONS:
        value: Any = loaded.settings
        for part in key.split("."):
            value = getattr(value, part)
        value = addresses.shown(value) if key == "adopt.source" else value  # it can be signed
        values[key] = [entry.model_dump() for entry in value] if key == "publish" else value
    if arguments.json:
        rows = {key: {"value": value, "source": loaded.sources[key]} for key, value in values.items()}
        print(json.dumps(rows, default=str, indent=2))
        return 0
    for key, value in values.items():
        shown = json.dumps(value, default=str) if not isinstance(value, Path) else str(value)
        print(f"{key:<30} {shown:<40} {loaded.sources[key]}")
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from alfwatchd.cli.demo_tree import write_demo

    summary = write_demo(Path(arguments.folder), arguments.sessions)
    print(
        f"{summary.n_sessions} sessions, {summary.n_datasets} datasets, {output.show_bytes(summary.n_bytes)} and "
        f"{summary.n_junk} files of junk in {summary.folder}\nnow try: alfwatchd --root {summary.folder} --once"
    )
    return 0


def _print(reply: Any, arguments: argparse.Namespace, text: str) -> None:
    """Print an answer for people, or whole for programs."""
    if arguments.json:
        _print_json(reply)
    else:
        print(text)


def _print_json(reply: Any) -> None:
    print(json.dumps(asdict(reply), indent=2))


if __name__ == "__main__":
    sys.exit(main())
