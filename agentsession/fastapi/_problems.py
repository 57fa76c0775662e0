"""What goes wrong, as problem details (RFC 9457), and the route that answers with them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, cast

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field

from agentsession import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from starlette.responses import Response
    from starlette.types import Message, Receive

__all__ = [
    "LARGEST_BODY",
    "Problem",
    "RefusedError",
    "SessionRoute",
    "answer",
    "problem_of",
    "responses",
    "wrong_of",
]

LARGEST_BODY: Final = 1 << 20
"""The largest body of a request, in bytes: 1 MiB, as the largest event by default."""

MEDIA_TYPE: Final = "application/problem+json"

# Of what is wrong with a request so much is told; the rest is wrong in the same way, mostly.
_MOST_ERRORS: Final = 20
_LONGEST_WORD: Final = 200


class Problem(BaseModel):
    """What went wrong, as RFC 9457 has it: ``type`` is for programs, ``detail`` for people."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:agentsession:session-not-found"])
    title: str
    status: int
    detail: str


class _Kind(NamedTuple):
    status: int
    name: str
    detail: str
    # Attributes of the error that clients are told.
    told: tuple[str, ...] = ()


_LATER: Final = "Nothing was stored. Repeat the request in a moment."

# The first that fits, so an error stands before its base.
_KINDS: Final[Mapping[type[Exception], _Kind]] = {
    errors.SessionNotFoundError: _Kind(
        404, "session-not-found", "There is no such session.", ("replaced",)
    ),
    errors.SessionExistsError: _Kind(409, "session-exists", "There is a session with this id."),
    errors.EventNotFoundError: _Kind(404, "event-not-found", "The log has no such event."),
    errors.RevisionConflictError: _Kind(
        409, "revision-conflict", "The session has changed since it was read.", ("actual",)
    ),
    errors.SessionBusyError: _Kind(
        409, "session-busy", "Another run has the session.", ("run_id", "problem", "waits")
    ),
    errors.LeaseLostError: _Kind(409, "run-replaced", "Another run has taken the session over."),
    errors.EventGoneError: _Kind(
        409,
        "message-gone",
        "This message was stored before, and was taken back since. Send it with a new id.",
    ),
    errors.EventExistsError: _Kind(
        409, "message-id-taken", "Another event has this id. Send the message with a new one."
    ),
    errors.RewindError: _Kind(
        409, "rewind-refused", "The session cannot go back to there.", ("seq", "problem")
    ),
    errors.RunNotFoundError: _Kind(404, "run-not-found", "This run is over, or never began."),
    errors.CallNotOpenError: _Kind(
        409, "call-not-open", "No run waits for this result.", ("call_id", "answered")
    ),
    errors.EventTooLargeError: _Kind(
        413, "event-too-large", "The message is too large.", ("size", "limit")
    ),
    errors.ReadTooLargeError: _Kind(
        422, "read-too-large", "These are too many events for one answer; ask for fewer."
    ),
    errors.StateValueTooLargeError: _Kind(
        413, "value-too-large", "A value of state is too large.", ("path",)
    ),
    errors.StateValueError: _Kind(422, "invalid-value", "A value cannot be stored.", ("path",)),
    errors.OutcomeUnknownError: _Kind(
        503,
        "outcome-unknown",
        "It is not known whether this took effect. Look, before it is repeated.",
    ),
    errors.BackendError: _Kind(503, "store-unavailable", _LATER),
    errors.ClosedError: _Kind(503, "stopping", "This server stops. " + _LATER),
}


class RefusedError(HTTPException):
    """A request that is refused before it reaches the service.

    It is an ``HTTPException``, since FastAPI takes all else that a body raises for a body that is
    no JSON.

    Attributes:
        problem: What is wrong.
    """

    def __init__(self, status: int, name: str, detail: str, /, **more: object) -> None:
        super().__init__(status, detail)
        self.problem = _problem(status, name, detail, more)


def problem_of(exc: Exception) -> Problem | None:
    """Return the problem that an error is to a client; ``None`` if it is none of ours."""
    if isinstance(exc, RefusedError):
        return exc.problem
    if isinstance(exc, RequestValidationError):
        return _problem(
            422, "invalid-request", "The request is not valid.", {"errors": wrong_of(exc.errors())}
        )
    for kind, (status, name, detail, told) in _KINDS.items():
        if isinstance(exc, kind):
            return _problem(status, name, detail, {each: getattr(exc, each) for each in told})
    return None


def wrong_of(errors: Sequence[Any]) -> list[dict[str, Any]]:
    """Return what pydantic has against a request, as far as a client needs it.

    What was sent is not repeated: it may be large, or a secret. Names are, and are cut.
    """
    return [
        {"loc": [*each.get("loc", ())], "msg": str(each.get("msg", ""))}
        for each in errors[:_MOST_ERRORS]
    ]


def _problem(status: int, name: str, detail: str, more: Mapping[str, Any]) -> Problem:
    title = name.replace("-", " ").capitalize()
    problem = {"type": f"urn:agentsession:{name}", "title": title, "status": status}
    return Problem.model_validate({**problem, "detail": detail, **_tellable(more)})


def _tellable(told: Any) -> Any:
    """Cut words that came from the client, so that they are text, and not the whole request."""
    match told:
        case str():
            return told[:_LONGEST_WORD].encode(errors="replace").decode()
        case dict():
            members = cast("dict[str, Any]", told)
            return {name: _tellable(each) for name, each in members.items()}
        case list() | tuple():
            return [*map(_tellable, cast("Sequence[Any]", told))]
        case _:
            return told


def answer(problem: Problem) -> JSONResponse:
    """Return the answer that tells of a problem."""
    headers = {"Retry-After": "1"} if problem.status == 503 else None
    return JSONResponse(
        problem.model_dump(mode="json"), problem.status, headers, media_type=MEDIA_TYPE
    )


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the problems of a route, for its OpenAPI document."""
    return {
        status: {"description": _STATUSES[status], "content": {MEDIA_TYPE: _SCHEMA}}
        for status in sorted({*statuses, 413, 422, 503})
    }


_STATUSES: Final[Mapping[int, str]] = {
    403: "Not for clients to change",
    404: "Not found",
    409: "In conflict with what is stored",
    413: "Too large",
    422: "Not valid",
    503: "Not now",
}
_SCHEMA: Final = {"schema": Problem.model_json_schema()}


class SessionRoute(APIRoute):
    """A route whose errors are problem details, and whose requests have bodies of limited size.

    ``APIRouter(route_class=SessionRoute)`` makes the routes of a router such ones: errors of
    agentsession, and requests that are not valid, are answered with :class:`Problem`. All other
    errors are the application's own, ``HTTPException`` among them.
    """

    largest_body: ClassVar[int] = LARGEST_BODY

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                limited = _limited(request.receive, request.headers, self.largest_body)
                return await handle(_Request(request.scope, limited))
            except Exception as exc:
                problem = problem_of(exc)
                if problem is None:
                    raise
                return answer(problem)

        return handled


class _Request(Request):
    """A request of which a body that cannot be read is not valid, as any other that is no JSON."""

    async def json(self) -> Any:
        try:
            return await super().json()
        except json.JSONDecodeError:
            raise  # FastAPI tells where it is wrong.
        except (ValueError, RecursionError) as exc:
            # It is not UTF-8, has a number of thousands of digits, or is nested too deep.
            wrong = [{"loc": ["body"], "msg": "JSON that cannot be read"}]
            raise RefusedError(
                422, "invalid-request", "The request is not valid.", errors=wrong
            ) from exc


def _limited(receive: Receive, headers: Mapping[str, str], most: int) -> Receive:
    """Return a way to receive a body that refuses what is too large, told before or not."""
    told = headers.get("content-length", "")
    if told.isdecimal() and int(told) > most:
        raise _too_large(most)
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > most:
            raise _too_large(most)
        return message

    return counted


def _too_large(most: int) -> RefusedError:
    return RefusedError(413, "body-too-large", f"A body may have {most:,} bytes.", limit=most)
