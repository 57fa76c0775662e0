"""The application whose streams are measured: the router alone."""

from __future__ import annotations

import os

from fastapi import FastAPI, Header

from agentsession import UserKey, open_service
from agentsession.fastapi import session_router
from benchmarks.following.writer import APP


def _user(x_user: str = Header()) -> UserKey:
    return UserKey(APP, x_user)


app = FastAPI()
app.include_router(session_router(open_service(os.environ["STORE"]), user=_user))
