"""What is asked reaches the engine, its answers come back, and mistakes are explained.

If one of these fails, a command gets a wrong answer, or a mistake in a request has an effect.
"""

import json
import re
from dataclasses import asdict, fields

import pytest

from alfwatchd import api, changes, errors
from alfwatchd.api import (
    FlushRequest,
    RescanRequest,
    StatusRequest,
    SyncRequest,
)
from alfwatchd.errors import AlfwatchdError
from alfwatchd.web import (
    control_api,
    request_bodies,
)
from kit.control import STATUS, Box, control_box

pytestmark = pytest.mark.usefixtures("no_readers")


ENDPOINTS = [
    ("GET", "/v1/status", None, StatusRequest, {}, asdict(STATUS)),
    ("POST", "/v1/sync", None, SyncRequest, {"flushed": True},
     {"generation": 3, "exactness": "exact", "seconds": 0.25}),
    ("POST", "/v1/flush", None, FlushRequest, {}, {"generation": 3, "seconds": 0.5}),
    ("POST", "/v1/rescan", None, RescanRequest, {"path": "", "accept_root": False},
     {"generation": 4, "added": 1, "changed": 2, "removed": 3, "seconds": 0.75}),
    ("POST", "/v1/rescan", {"path": "lab/é", "accept_root": True}, RescanRequest,
     {"path": "lab/é", "accept_root": True},
     {"generation": 4, "added": 1, "changed": 2, "removed": 3, "seconds": 0.75}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "kind", "asked", "answer"), ENDPOINTS)
def test_endpoints(box: Box, method, path, body, kind, asked, answer):
    assert box.ask(method, path, body) == (200, answer)
    (message,) = box.engine.taken
    assert type(message) is kind
    assert {field.name: getattr(message, field.name) for field in fields(message) if field.name != "reply"} == asked


def test_a_body_is_json_whatever_the_client_says(box: Box):
    # `curl -d` says that it sends a form.
    status, _ = box.ask("POST", "/v1/rescan", {"path": "lab"}, **{"Content-Type": "application/x-www-form-urlencoded"})
    assert (status, box.engine.taken[0].path) == (200, "lab")


ERRORS = [
    (errors.UsageError, 400),
    (errors.NotAllowed, 403),
    (errors.PruneRefused, 409),
    (errors.WrongRoot, 409),
    (errors.Busy, 409),
    (errors.RootOffline, 503),
    (errors.TablesError, 503),
    (errors.AlfwatchdError, 500),
]


@pytest.mark.parametrize(("kind", "status"), ERRORS, ids=lambda value: getattr(value, "__name__", value))
def test_errors_of_the_engine(kind, status):
    with control_box({SyncRequest: kind("what, where, what to do")}) as box:
        assert box.ask("POST", "/v1/sync") == (
            status,
            {"error": kind.__name__, "message": "what, where, what to do"},
        )


BAD_REQUESTS = [
    ("GET", "/", None, 404, "GET /: Not Found; GET /openapi.json lists all paths"),
    ("GET", "/v1/status/", None, 404, "Not Found"),
    ("GET", "/v2/status", None, 404, "Not Found"),
    ("GET", "/v1/%00status", None, 404, "Not Found"),
    ("GET", "/../../etc/passwd", None, 404, "Not Found"),
    ("GET", "/v1/sync", None, 405, "Method Not Allowed"),
    ("PUT", "/v1/rescan", {}, 405, "Method Not Allowed"),
    ("BREW", "/v1/status", None, 405, "Method Not Allowed"),
    ("POST", "/v1/rescan?path=lab", {}, 400, "parameters belong into the body"),
    ("GET", "/v1/status?since=1", None, 400, "parameters belong into the body"),
    ("GET", "/v1/changes/?since=1", None, 400, "parameters belong into the body"),
    ("GET", "/nope?since=1", None, 400, "parameters belong into the body"),
    ("POST", "/v1/rescan", "{path", 400, "the body should be a JSON object: Expecting property name"),
    ("POST", "/v1/sync", "now", 400, "the body should be a JSON object: Expecting value"),
    ("POST", "/v1/rescan", b'{"path": "\xff"}', 400, "the body should be a JSON object: 'utf-8' codec can't decode"),
    ("POST", "/v1/rescan", "[" * 60000, 400, "nested too deeply"),
    ("POST", "/v1/rescan", '{"path": "a", "path": "b"}', 400, "a name is given twice"),
    ("POST", "/v1/rescan", '{"path": {"a": 1, "a": 2}}', 400, "a name is given twice"),
    ("POST", "/v1/rescan", '{"path": ' + "9" * 60000 + "}", 400, "the body should be a JSON object: "),
    ("POST", "/v1/rescan", [], 422, "body: "),
    ("POST", "/v1/rescan", '"lab"', 422, "body: "),
    ("POST", "/v1/rescan", {"path": None}, 422, "body.path: "),
    ("POST", "/v1/rescan", {"accept_root": "no"}, 422, "body.accept_root: Input should be a valid boolean"),
    ("POST", "/v1/rescan", {"accept_root": 0}, 422, "body.accept_root: Input should be a valid boolean"),
    ("POST", "/v1/prune/plan", {"max_fraction": True}, 422, "body.max_fraction: Input should be a valid number"),
    ("POST", "/v1/prune/plan", {"max_fraction": "1"}, 422, "body.max_fraction: Input should be a valid number"),
    ("POST", "/v1/rescan", {"path": "lab", "deep": True}, 422, "body.deep: Extra inputs are not permitted"),
    ("POST", "/v1/rescan", '{"\\udcff": 1}', 422, "body: "),
    ("POST", "/v1/rescan", '{"path": "\\udcff"}', 422, "body.path: "),
    ("POST", "/v1/rescan", {"path": "x" * 4097}, 422, "body.path: String should have at most 4096 characters"),
    ("POST", "/v1/prune/plan", {"max_fraction": 1.5}, 422, "body.max_fraction: "),
    ("POST", "/v1/prune/plan", '{"max_fraction": NaN}', 400, "NaN is no number in JSON"),
    ("POST", "/v1/prune/plan", '{"max_fraction": -Infinity}', 400, "-Infinity is no number in JSON"),
    ("POST", "/v1/prune/plan", '{"max_fraction": 1e999}', 422, "body.max_fraction: "),
    ("POST", "/v1/prune/plan", {"reference": "tables"}, 400, "reference = 'tables': should be an absolute path"),
    ("POST", "/v1/prune/plan", {"reference": ""}, 400, "reference = '': should be an absolute path"),
    ("POST", "/v1/prune/plan", {"reference": "/data\0/x"}, 400, "should be an absolute path"),
    ("POST", "/v1/prune/undo", None, 422, "body: Field required"),
    ("POST", "/v1/prune/undo", {"plan_id": "x" * 65}, 422, "body.plan_id: "),
    ("POST", "/v1/prune/empty", {"plan_id": 1}, 422, "body.plan_id: "),
    ("POST", "/v1/prune/empty", {"all": True}, 422, "body.all: "),
    ("POST", "/v1/prune/apply", None, 422, "body: Field required"),
    ("POST", "/v1/prune/apply", {}, 422, "body.plan_id: Field required"),
    ("POST", "/v1/prune/apply", {"plan_id": "x" * 65}, 422, "body.plan_id: "),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "status", "text"), BAD_REQUESTS)
def test_bad_requests(box: Box, method, path, body, status, text):
    found, answer = box.ask(method, path, body)
    assert (found, answer.keys(), answer["error"]) == (status, {"error", "message"}, "UsageError")
    assert text in answer["message"]
    assert box.engine.taken == []


def test_an_error_with_a_name_that_is_not_utf8():
    with control_box({SyncRequest: AlfwatchdError("caf\udce9: cannot be read")}) as box:
        assert box.ask("POST", "/v1/sync")[1]["message"] == "caf\\udce9: cannot be read"


BUGS = [ValueError("boom"), None, KeyError("x")]


@pytest.mark.parametrize("answer", BUGS, ids=repr)
def test_a_bug_is_answered_and_logged_and_the_server_continues(answer, caplog):
    with control_box({FlushRequest: answer}) as box:
        status, body = box.ask("POST", "/v1/flush")
        assert (status, body["error"]) == (500, "RequestFailed")
        assert "its log has the details" in body["message"]
        assert box.is_alive()
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"]


def test_the_description_names_all_replies(box: Box):
    status, described = box.ask("GET", "/openapi.json")
    assert status == 200
    assert described["openapi"].startswith("3.")
    assert {(method, path) for path, methods in described["paths"].items() for method in methods} == {
        ("get", "/metrics"),
        *(("get", f"/v1/{name}") for name in ("status", "ids/{old}", "prune/plans", "changes", "changes/stream")),
        *(("post", f"/v1/{name}") for name in ("sync", "flush", "rescan", "recompute_ids", "set")),
        *(("post", f"/v1/prune/{name}") for name in ("plan", "apply", "undo", "empty")),
    }
    schemas = described["components"]["schemas"]
    for kind in (
        api.Status, api.SyncReply, api.FlushReply, api.RescanReply, api.PruneReply,
        api.PruneItem, api.IdsReply, api.IdStep, api.RecomputeReply, api.SetReply, api.AdoptStatus,
        api.ProblemReply, api.RescanNote, control_api.ErrorReply,
        api.TrashReply, api.PlansReply, api.PlanRecord, changes.ChangesReply, changes.Change,
        request_bodies.RescanBody, request_bodies.SetBody, request_bodies.PlanBody, request_bodies.ApplyBody,
        request_bodies.UndoBody, request_bodies.EmptyBody,
    ):  # fmt: skip
        names = kind.model_fields if hasattr(kind, "model_fields") else [field.name for field in fields(kind)]
        assert schemas[kind.__name__]["properties"].keys() == set(names)
    for reference in set(re.findall(r'"\$ref": "([^"]*)"', json.dumps(described))):
        assert reference.removeprefix("#/components/schemas/") in schemas
    for operation in (each for methods in described["paths"].values() for each in methods.values()):
        assert operation["description"]
        for code, answer in operation["responses"].items():
            if answer["content"].keys() == {"text/plain", "application/openmetrics-text"}:
                assert code == "200"  # the metrics
                continue
            if code == "200" and "text/event-stream" in answer["content"]:
                continue
            schema = answer["content"]["application/json"]["schema"]["$ref"]
            assert (schema == "#/components/schemas/ErrorReply") == (code != "200")
