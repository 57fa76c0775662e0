"""Sessions over HTTP: a router for FastAPI, and its parts for handlers of one's own.

::

    app = FastAPI(lifespan=lifespan)
    app.include_router(session_router(service, runner=runner, user=current_user))

It needs an extra: ``pip install 'agentsession[fastapi]'``.
"""

from __future__ import annotations

from agentsession._extras import what_to_install

try:
    import fastapi as _fastapi
    import sse_starlette as _sse_starlette
except ImportError as _cause:
    raise ImportError(what_to_install("this module", "fastapi", _cause)) from _cause
else:
    del _fastapi, _sse_starlette  # Only their absence is told here.

from agentsession.fastapi._dependencies import SessionDependencies
from agentsession.fastapi._problems import Problem, SessionRoute
from agentsession.fastapi._router import session_router

__all__ = ["Problem", "SessionDependencies", "SessionRoute", "session_router"]
