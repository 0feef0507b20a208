import inspect

import orjson
import pytest

from niruhybrid import errors
from niruhybrid.errors import DeadlineUnreachableError, EncoderFailedError, NiruError, QueueFullError, StoreCorruptError
from niruhybrid.server import problems
from niruhybrid.server.problems import PROBLEMS, RequestError, details, response

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, NiruError)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_has_a_status(kind: type[NiruError]) -> None:
    assert kind.code in PROBLEMS
    assert details(kind("what happened: what to do"))["code"] == kind.code


def test_only_known_codes_have_a_status() -> None:
    of_http = {code for code in PROBLEMS if code not in {kind.code for kind in CLASSES}}
    assert of_http == {
        "malformed_request",
        "malformed_json",
        "unauthorized",
        "forbidden",
        "misdirected_request",
        "rate_limited",
        "line_too_long",
        "not_found",
        "method_not_allowed",
        "request_timeout",
        "body_too_large",
        "head_too_large",
        "unsupported_media_type",
        "http_error",
        "starting",
        "start_failed",
        "shutting_down",
    }


def test_a_problem_has_the_members_of_the_standard() -> None:
    assert details(errors.InvalidTextError("query is empty: give some text")) == {
        "type": "/docs#invalid_text",
        "title": "A text can't be used",
        "status": 422,
        "detail": "query is empty: give some text",
        "code": "invalid_text",
    }


@pytest.mark.parametrize("error", [EncoderFailedError("in /home: x"), StoreCorruptError("/db: x"), ValueError("/p: x")])
def test_faults_of_the_server_keep_their_message_to_themselves(error: Exception) -> None:
    assert "x" not in details(error)["detail"].split()
    assert "/" not in details(error)["detail"]


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2"), (30.0, "30")])
@pytest.mark.parametrize(("kind", "status"), [(QueueFullError, 429), (DeadlineUnreachableError, 503)])
def test_an_overload_says_when_to_come_back_in_whole_seconds(
    kind: type[errors.OverloadedError], status: int, seconds: float, header: str
) -> None:
    answer = response(kind("full: retry later", retry_after=seconds))
    assert answer.status_code == status
    assert answer.headers["retry-after"] == header
    assert orjson.loads(bytes(answer.body))["retry_after"] == int(header)


def test_an_error_of_a_users_own_class_is_that_of_its_nearest_base() -> None:
    class GpuLostError(EncoderFailedError):
        code = "gpu_lost"

    assert details(GpuLostError("gone: restart"))["code"] == "encoder_failed"


def test_an_unknown_error_is_internal() -> None:
    assert details(KeyError("secret"))["code"] == "internal"
    assert details(RequestError("no_such_code", "secret"))["code"] == "internal"


def test_an_event_with_an_unknown_code_is_internal() -> None:
    assert problems.wire_error({"code": "nonsense", "detail": "secret"})["code"] == "internal"
    assert "secret" not in problems.wire_error({"code": "nonsense", "detail": "secret"})["detail"]


@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (errors.DeadlineExceededError("not finished within 1 s: try again later"), False),
        (errors.OverloadedError("busy: retry later", retry_after=1), False),
        (errors.ClosedError("closed: open a new one"), False),
        (RequestError("starting", "not yet: try again"), False),
        (errors.InvalidTextError("empty: give some"), False),
        (EncoderFailedError("it raised: see the cause"), True),
        (KeyError("a fault"), True),
    ],
)
def test_faults_are_logged_and_what_a_busy_server_answers_is_not(
    error: Exception, logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    response(error)
    assert bool(caplog.records) == logged
