"""A real Prometheus, with the alerts and the dashboard of `monitoring/`, watches real daemons.

If one of these fails, nobody is woken when a disk is lost, or the dashboard is empty on the day it is needed.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from kit.database import copy_fixture, make_tree
from kit.program import Program, make_small_tree, program, write_dataset
from kit.prometheus import ALERTS, expressions, needs_prometheus, node_exporter, prometheus
from kit.serve import served

pytestmark = [pytest.mark.heavy, needs_prometheus]

TOKEN = "correct-horse-battery"  # noqa: S105 - nobody else's
SUBJECTS = [f"s{number}" for number in range(10)]


def promtool(*words: str | Path, stdin: str | None = None) -> str:
    ended = subprocess.run(["promtool", *words], input=stdin, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def test_promtool_accepts_the_rules_and_the_metrics(tmp_path):
    """Its linter knows the conventions of names and units."""
    assert "15 rules found" in promtool("check", "rules", ALERTS)
    with program(make_small_tree(tmp_path / "root")) as made:
        made.start()
        assert promtool("check", "metrics", stdin=made.run("metrics").stdout) == ""


def test_the_settings_in_the_guide_are_those_of_prometheus(tmp_path):
    """A person pastes them."""
    guide = (ALERTS.parents[1] / "docs/guide/monitor.md").read_text()
    (settings,) = re.findall(r"(?s)```yaml\n(.*?)```", guide)
    (tmp_path / "prometheus.yml").write_text(settings)
    assert "is valid" in promtool("check", "config", "--syntax-only", tmp_path / "prometheus.yml")


# alert, series, values of each minute, at which minute it is still silent, and at which it fires
STORIES = [
    ("AlfwatchdDown", "alfwatchd_up", "1x5 0x20", 9, 12),
    ("AlfwatchdOffline", 'alfwatchd_state{state="offline"}', "0x5 1x20", 9, 12),
    ("AlfwatchdHeld", 'alfwatchd_state{state="held"}', "0x5 1x20", 9, 12),
    ("AlfwatchdBehind", "alfwatchd_behind_seconds", "0+60x60", 14, 18),
    ("AlfwatchdNotSaved", "alfwatchd_unsaved_seconds", "0+60x60", 5, 9),
    ("AlfwatchdPolledLate", "alfwatchd_polled_late", "1x100", 58, 62),
    ("AlfwatchdStartsLong", 'alfwatchd_state{state="starting"}', "1x100", 58, 62),
    ("AlfwatchdLosesEvents", "alfwatchd_events_lost_total", "0x30 0+1x30", 31, 40),
    ("AlfwatchdNotWatched", "alfwatchd_unwatched_folders", "3x100", 58, 62),
    ("AlfwatchdPublishFails", 'alfwatchd_publish_failed{target="/t"}', "1x100", 28, 32),
    ("AlfwatchdPublishLags", 'alfwatchd_publish_lag_seconds{target="/t"}', "0+60x100", 68, 74),
    ("AlfwatchdAdoptFails", "alfwatchd_adopt_failed", "1x100", 58, 62),
    ("AlfwatchdProblems", 'alfwatchd_problems{kind="twin"}', "2x2000", 1400, 1450),
    ("AlfwatchdTextfileOld", 'node_textfile_mtime_seconds{file="/var/alfwatchd.prom"}', "0x100", 12, 18),
]


def test_each_alert_waits_as_long_as_it_says(tmp_path):
    """Nobody is woken for a restart, and everybody for a disk that is away: with the file as it is."""
    rules = set(re.findall(r"- alert: (\w+)", ALERTS.read_text()))
    assert rules == {alert for alert, *_ in STORIES} | {"AlfwatchdAbsent"}
    tests = []
    for alert, series, values, silent, fires in [*STORIES, ("AlfwatchdAbsent", "other", "1x100", 13, 17)]:
        name, _, labels = series.partition("{")
        added = 'instance="i",job="j"' + (f",{labels.rstrip('}')}" if labels else "")
        checked = [
            {"expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})', "eval_time": f"{minute}m",
             "exp_samples": [{"labels": "{}", "value": 1}] * is_firing}
            for minute, is_firing in ((silent, False), (fires, True))
        ]  # fmt: skip
        tests.append(
            {
                "interval": "1m",
                "input_series": [{"series": f"{name}{{{added}}}", "values": values}],
                "promql_expr_test": checked,
            }
        )
    file = tmp_path / "tests.yml"
    file.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}))
    promtool("test", "rules", file)


def quick_rules() -> str:
    """Return the alert rules without their patience, which a test does not have."""
    text, n_changed = re.subn(r"(?m)^( +)for: \w+$", r"\1for: 0s", ALERTS.read_text())
    assert n_changed > 10
    assert "alfwatchd_behind_seconds > 600" in text
    return text.replace("alfwatchd_behind_seconds > 600", "alfwatchd_behind_seconds > 2")


def start_behind(stack: ExitStack, folder: Path) -> Program:
    """Start a daemon that uses everything which has metrics, and flushes only if a client asks."""
    folder.mkdir()
    (folder / "tables").mkdir()
    (folder / "target").mkdir()
    made = stack.enter_context(program(make_tree(folder / "root"), folder / "tables"))
    config = made.home / "config.toml"
    config.write_text(
        f'flush_interval_seconds = 100000\n[adopt]\nsource = "{copy_fixture(folder / "database")}"\n'
        f'[[publish]]\ntarget = "{folder / "target"}"\n'
    )
    session = next(made.root.glob("*/Subjects/*/*/*"))
    (session / "a folder").mkdir()
    (session / "a folder/spikes.times.npy").touch()
    made.start(f"--config={config}")
    made.wait(lambda: made.client.status().adopt.n_matched_datasets is not None)
    made.client.sync()
    write_dataset(session / "new.times.npy", 1)
    return made


def start_held(stack: ExitStack, folder: Path) -> Program:
    """Start a daemon whose tree lost most sessions while no daemon ran."""
    folder.mkdir()
    (folder / "tables").mkdir()
    made = stack.enter_context(program(make_small_tree(folder / "root", subjects=SUBJECTS), folder / "tables"))
    made.run_once()
    for subject in SUBJECTS[:8]:
        shutil.rmtree(made.root / "lab/Subjects" / subject)
    make_small_tree(made.root, subjects=["new"])
    made.start(wait=False)
    made.wait(lambda: made.state == "held")
    return made


def start_offline(stack: ExitStack, folder: Path) -> Program:
    """Start a daemon, and take its root away."""
    folder.mkdir()
    (folder / "tables").mkdir()
    made = stack.enter_context(program(make_small_tree(folder / "root"), folder / "tables"))
    made.start()
    made.root.rename(folder / "elsewhere")
    made.wait(lambda: made.state == "offline")
    return made


def test_a_real_prometheus(tmp_path):
    """Behind, held, offline and down are each told of the daemon that is; each expression of the dashboard has series.

    The metrics come over the network, with the token of one server, and through a file of node_exporter.
    """
    textfiles = tmp_path / "textfiles"
    textfiles.mkdir()
    with ExitStack() as stack:
        daemons = {
            "behind": start_behind(stack, tmp_path / "behind"),
            "held": start_held(stack, tmp_path / "held"),
            "offline": start_offline(stack, tmp_path / "offline"),
        }
        sites = {
            name: stack.enter_context(
                served(
                    made, f"--socket={made.socket}", wait=False, **({"serve_token": TOKEN} if name == "behind" else {})
                )
            )
            for name, made in daemons.items()
        }
        daemons["behind"].run("metrics", f"--textfile={textfiles / 'alfwatchd.prom'}")
        daemons["held"].run("metrics", f"--textfile={textfiles / 'alfwatchd-held.prom'}", "--label=daemon=held")
        jobs = [
            {
                "job_name": name,
                "static_configs": [{"targets": [f"127.0.0.1:{site.port}"], "labels": {"instance": name}}],
            }
            for name, site in sites.items()
        ]
        jobs[0]["authorization"] = {"type": "Token", "credentials": TOKEN}
        port = stack.enter_context(node_exporter(tmp_path, textfiles))
        jobs.append(
            {"job_name": "node", "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": {"instance": "node"}}]}
        )
        monitor = stack.enter_context(prometheus(tmp_path, quick_rules(), jobs))

        monitor.wait(lambda: len(monitor.query("up == 1")) == 4, "not all targets are up")
        wanted = {("AlfwatchdBehind", "behind"), ("AlfwatchdHeld", "held"), ("AlfwatchdOffline", "offline")}
        wanted.add(("AlfwatchdHeld", "node"))  # through the file
        monitor.wait(lambda: wanted <= monitor.firing(), wanted)
        kinds = {"AlfwatchdHeld", "AlfwatchdOffline", "AlfwatchdDown", "AlfwatchdAbsent"}
        assert {each for each in monitor.firing() if each[0] in kinds} == wanted - {("AlfwatchdBehind", "behind")}

        for expression in expressions():
            monitor.wait(lambda expression=expression: monitor.query(expression), f"no series: {expression}")

        in_file = 'alfwatchd_datasets{job="node",daemon=""} > 0'
        monitor.wait(lambda: monitor.query(in_file), "nothing comes through node_exporter")
        assert monitor.query("node_textfile_scrape_error == 0")
        assert monitor.query('alfwatchd_state{job="node",daemon="held",state="held"} == 1')
        assert len(monitor.query('node_textfile_mtime_seconds{file=~".*alfwatchd[^/]*[.]prom"}')) == 2

        daemons["behind"].stop()
        daemons["behind"].run("metrics", f"--textfile={textfiles / 'alfwatchd.prom'}", code=3)
        down = {("AlfwatchdDown", "behind"), ("AlfwatchdDown", "node")}
        monitor.wait(lambda: down <= monitor.firing(), down)
        assert not monitor.query(in_file)
        assert monitor.query('alfwatchd_up{job="held"} == 1')


def n_bytes_written(pid: int) -> int:
    """Return how many bytes a process has had written to disks so far (proc(5))."""
    return int(re.search(r"(?m)^write_bytes: (\d+)", Path(f"/proc/{pid}/io").read_text())[1])


def test_questions_write_nothing_to_disk(tmp_path):
    """The disk of an idle lab server may sleep, although somebody asks every 15 seconds."""
    with program(make_small_tree(tmp_path / "root")) as made:
        made.start()
        made.wait((made.home / "state/eids.parquet").exists)  # it is saved after the first flush
        before, files = n_bytes_written(made.pid), sorted(made.home.rglob("*"))
        texts = {made.client.metrics().partition(b"alfwatchd_events_total ")[2].split()[0] for _ in range(50)}
        assert n_bytes_written(made.pid) == before
        assert sorted(made.home.rglob("*")) == files
        assert len(texts) == 1  # no question causes an event in the tree
