"""docs/reference/tables.md and control_api.md say what the program does."""

import itertools
import json
import re
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import alfwatchd
from alfwatchd import api, changes, errors
from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.api import SyncRequest
from alfwatchd.store import writer
from alfwatchd.tables import id_changes
from alfwatchd.tables.earlier import QC_CATEGORIES
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import PROBLEM_KINDS, Session
from alfwatchd.tree.sessions import Snapshot
from alfwatchd.web import change_feed, connections, http_server, request_bodies, request_guard, request_queries
from alfwatchd.web.control_rights import RULES, Right
from alfwatchd.web.sync_limit import SYNC_SECONDS
from kit.control import control_box
from kit.rows import folder_rows

pytestmark = pytest.mark.usefixtures("no_readers")

REPOSITORY = Path(__file__).parents[2]
TEXT = "\n".join((REPOSITORY / f"docs/reference/{name}.md").read_text() for name in ("tables", "control_api"))
PATH = "lab/Subjects/subject/2020-01-01/001/alf/spikes.times.npy"


def section(title):
    """Return what is below a heading, up to the next one of its level or above."""
    level, _, _ = title.partition(" ")
    return re.split(rf"^#{{1,{len(level)}}} ", TEXT.partition(f"\n{title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def rows(title):
    """Return the cells of the tables in a section, without heads."""
    lines = [line for line in section(title).splitlines() if line.startswith("| `")]
    assert lines, title
    return [re.split(r"\s*\|\s*", line)[1:-1] for line in lines]


def names(title):
    return [row[0].strip("`") for row in rows(title)]


def code_blocks(title):
    return re.findall(r"```python\n(.*?)```", section(title), re.DOTALL)


@pytest.fixture
def root(tmp_path):
    (tmp_path / PATH).parent.mkdir(parents=True)
    (tmp_path / PATH).write_text("spikes")
    alfwatchd.make_parquet_db(tmp_path)
    return tmp_path


TYPES = {
    "string": {pa.string()},
    "date32": {pa.date32()},
    "uint16": {pa.uint16()},
    "uint64": {pa.uint64()},
    "bool": {pa.bool_()},
    "null, or string": {pa.null(), pa.string()},
    "dictionary of int32 and string": {pa.dictionary(pa.int32(), pa.string())},
    "dictionary of int8 and string, ordered": {pa.dictionary(pa.int8(), pa.string(), ordered=True)},
}


@pytest.mark.parametrize("name", ["sessions", "datasets"])
@pytest.mark.parametrize("hash_files", [False, True])
def test_columns(root, name, hash_files):
    alfwatchd.make_parquet_db(root, hash_files=hash_files)
    schema = pq.read_schema(root / f"{name}.pqt")
    title = f"## `{name}.pqt`"
    assert schema.names == names(title)
    for field, row in zip(schema, rows(title), strict=True):
        assert field.type in TYPES[row[1]], field.name
    index = [row[0].strip("`") for row in rows(title) if "pandas index" in row[2]]
    assert json.loads(schema.metadata[b"pandas"])["index_columns"] == index + ["id"] * (name == "datasets")


def test_qc_is_in_the_order_of_the_page():
    (meaning,) = (row[2] for row in rows("## `datasets.pqt`") if "`qc`" in row[0])
    assert tuple(re.findall(r"`([A-Z_]+)`", meaning.partition(";")[0])) == QC_CATEGORIES


def test_ids_are_those_of_the_worked_example(root):
    (block,) = code_blocks("## Ids")
    found = {}
    exec(block, found)
    (session,), (dataset,) = (pq.read_table(root / f"{name}.pqt").to_pylist() for name in ("sessions", "datasets"))
    assert session["id"] == dataset["eid"] == str(found["eid"])
    assert dataset["id"] == str(found["dataset"])


def test_changed_ids():
    assert [(row[0].strip("`"), row[1]) for row in rows("## Changed ids")] == [
        (field.name, str(field.type)) for field in id_changes.SCHEMA
    ]


def test_metadata(root):
    for name in ("sessions", "datasets"):
        metadata = pq.read_schema(root / f"{name}.pqt").metadata
        assert sorted(key.decode() for key in metadata) == sorted(names("## Metadata"))
        for key, content in rows("## Metadata")[:2]:
            keys = re.findall(r"`(\w+)` \(", content) + re.findall(r"`(date_created)`", content)
            assert json.loads(metadata[key.strip("`").encode()]).keys() == set(keys)


def take_snapshot(generation, *subjects):
    files = {"spikes.times.npy": pack_signature(1, 2, 3, False)}
    paths = [f"{subject}/2020-01-01/001" for subject in subjects]
    return Snapshot(generation, {path: Session(path, (folder_rows("", files),)) for path in paths})


def test_a_pair_is_known_by_its_generation(tmp_path, monkeypatch):
    # The recipe must hold at every moment, so it is tried after each file that the writer replaces.
    (block,) = code_blocks("## Metadata")
    seen = []

    def write_and_look(path, table, write=writer.write_atomically, **options):
        mark = write(path, table, **options)
        if all((tmp_path / name).exists() for name in (SESSIONS, DATASETS)):
            found = {"folder": tmp_path}
            exec(block, found)
            sessions, datasets = found["tables"]
            are_whole = set(sessions["id"].to_pylist()) == set(datasets["eid"].to_pylist())
            assert are_whole or not found["belong_together"]
            assert set(sessions["id"].to_pylist()) >= set(datasets["eid"].to_pylist())
            seen.append(found["belong_together"])
        return mark

    monkeypatch.setattr(writer, "write_atomically", write_and_look)
    tables, steps = writer.TableWriter(tmp_path, "/data"), [("a",), ("a", "b"), ("b",), ("c",), ("c", "d"), ("e",)]
    for generation, subjects in zip(itertools.count(1), steps):
        tables.write(take_snapshot(generation, *subjects), TableRules())
        assert seen[-1]
    assert seen.count(False) == 7  # one for each file but the last, the very first aside


def test_endpoints():
    with control_box() as box:
        paths = box.ask("GET", "/openapi.json")[1]["paths"]
    described, queries, asked = {}, {}, {}
    for request, body, reply in rows("## Requests"):
        found = re.findall(r"`(\w+Body)`", body), re.findall(r"`(Status|\w+Reply)`", reply)
        queries[request.strip("`")] = re.findall(r"`\?(\w+Query)`", body)
        described[request.strip("`")] = found
    served = {}
    for path, methods in paths.items():
        for method, operation in methods.items():
            body, reply = (
                re.findall(r"#/components/schemas/(\w+)", json.dumps(part))
                for part in (operation.get("requestBody"), operation["responses"]["200"])
            )
            served[f"{method.upper()} {path}"] = body, reply
            asked[f"{method.upper()} {path}"] = [
                each for each in operation.get("parameters", ()) if each["in"] == "query"
            ]
    assert described == served
    for request, parameters in asked.items():
        kinds = [getattr(request_queries, kind) for kind in queries[request]]
        assert {each["name"] for each in parameters} == {name for kind in kinds for name in kind.model_fields}


KINDS = [
    api.Status, api.TargetStatus, api.AdoptStatus, api.IdsReply, api.IdStep,
    api.RecomputeReply,
    api.RescanNote, api.ProblemReply, api.SyncReply, api.FlushReply,
    api.RescanReply, api.PruneReply, api.PruneItem, api.TrashReply, api.PlansReply,
    api.PlanRecord, request_bodies.RescanBody, request_bodies.PlanBody, request_bodies.ApplyBody,
        request_bodies.UndoBody, request_bodies.EmptyBody,
    request_queries.ChangesQuery, request_queries.StreamQuery, changes.ChangesReply, changes.Change, changes.Fresh,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_fields(kind):
    found = list(kind.model_fields) if hasattr(kind, "model_fields") else [field.name for field in fields(kind)]
    described = [row[0].strip("`") for row in rows(f"### `{kind.__name__}`") if len(row) == 3]
    assert described == found


def test_states_and_exactness():
    for title, field, kind in (
        ("Status", "state", api.DaemonState),
        ("SyncReply", "exactness", api.Exactness),
        ("PlanRecord", "state", api.PlanState),
    ):
        (meaning,) = (row[2] for row in rows(f"### `{title}`") if f"`{field}`" in row[0])
        assert re.findall(r"`([a-z ]+)`:", meaning) == list(kind.__args__)


def test_problems():
    described = [row[0].strip("`") for row in rows("### `ProblemReply`") if len(row) == 2]
    sources = "".join(file.read_text() for file in (REPOSITORY / "alfwatchd").rglob("*.py"))
    assert described == sorted(set(re.findall(r'\bProblem\(\s*"(\w+)"', sources))) == list(PROBLEM_KINDS)


def test_errors():
    kinds = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
    described = {row[0].strip("`"): row[1:3] for row in rows("## Errors")}
    assert list(described) == sorted(kinds)
    with control_box() as box:
        for name, kind in kinds.items():
            box.engine.answers[SyncRequest] = kind("text")
            status, answer = box.ask("POST", "/v1/sync")
            assert answer["error"] == name
            assert described[name] == ["" if name == "NoDaemon" else str(status), str(kind.exit_code)]


def test_what_each_request_needs():
    needs = {Right.READ: "the right to read", Right.SYNC: "control rights; or the right to read, once in 10 seconds"}
    described = {row[0].strip("`"): row[1] for row in rows("## Rights") if "/" in row[0]}
    assert described.keys() == {f"{method} {path}" for method, path in RULES}
    for (method, path), rule in RULES.items():
        assert described[f"{method} {path}"].startswith(needs.get(rule.right, "control rights"))
    assert SYNC_SECONDS == 10


def test_limits():
    said = re.sub(r"\s+", " ", section("## Permissions and limits"))
    assert f"within {connections.REQUEST_SECONDS:.0f} seconds" in said
    assert (
        f"at most {http_server.MAX_HEAD_BYTES} bytes of head and {request_guard.MAX_BODY_BYTES} bytes of body" in said
    )
    assert connections.ANSWER_SECONDS == 60
    assert "within a minute" in said
    assert f"at most {connections.MOST_CONNECTIONS}." in said
    assert f"{change_feed.MOST_FOLLOWERS} clients" in said
    assert f"{change_feed.MOST_FOLLOWERS_OF_A_USER} of one user" in said
    assert f"each {change_feed.KEEP_ALIVE_SECONDS:.0f} seconds" in said
