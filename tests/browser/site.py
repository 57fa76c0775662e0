"""The example's server, and what a test does with its page."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
from playwright.sync_api import Locator, Page, expect

from agentsession import Event, SessionKey, open_service
from harness.servers import LOOPBACK, eventually, free_ports

CHAT = Path(__file__).parent.parent.parent / "examples" / "chat"
# So many words that their answer takes longer than whatever a test does meanwhile.
LONG = "Please take your time " * 30 + "in Oslo"


class Site:
    """The server of the example, in processes that a test may kill and start again.

    Args:
        folder: An empty one, for a copy of the example.
        store: Where its sessions are.
        workers: How many processes serve it.
    """

    def __init__(self, folder: Path, store: str, workers: int) -> None:
        self.folder = folder / "chat"
        shutil.copytree(CHAT, self.folder)
        self.store = store
        (self._port,) = free_ports(1)
        self.url = f"http://{LOOPBACK}:{self._port}"
        self._options = ["--port", str(self._port), "--workers", str(workers)]
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx2.Client(base_url=self.url, timeout=60)

    def start(self) -> None:
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "uvicorn", "server:app", *self._options],
                cwd=self.folder,
                env=os.environ | {"STORE": self.store},
                stdout=output,
                stderr=output,
                start_new_session=True,  # so that all its processes are killed at once
            )
        eventually(self._answers, seconds=60)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.output()
        with suppress(httpx2.TransportError):
            return self._client.get("/").status_code == 200
        return False

    def kill(self) -> None:
        """Kill all its processes, as a machine does that loses its power."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        """Have it stopped in good order, and see that it had nothing to complain of."""
        self._client.close()
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
        output = self.output()
        assert "Exception in ASGI" not in output, output
        assert "a stream failed" not in output, output

    def output(self) -> str:
        return (self.folder / "output").read_text(encoding="utf-8")

    def post(self, path: str, body: object) -> None:
        self._client.post(path, json=body).raise_for_status()

    def log(self, session_id: str) -> list[dict[str, Any]]:
        response = self._client.get(f"/sessions/{session_id}/events", params={"limit": 1000})
        return list(response.raise_for_status().json()["events"])

    def words(self, session_id: str) -> list[str]:
        """Return the words of all events, as they are in the log."""
        contents = [event.get("content", "") for event in self.log(session_id)]
        parts = [
            [{"type": "text", "text": content}] if isinstance(content, str) else content
            for content in contents
        ]
        texts = ["".join(part["text"] for part in each if part["type"] == "text") for each in parts]
        return [text for text in texts if text]

    def append(self, session_id: str, *words: str) -> None:
        """Store events past the server, as another program does."""

        async def append_all() -> None:
            async with open_service(self.store) as service:
                key = SessionKey("chat", "ada", session_id)
                events = [Event(author="assistant", content=each) for each in words]
                await service.append_events(key, events)

        # Playwright has a loop in this thread.
        with ThreadPoolExecutor(1) as threads:
            threads.submit(asyncio.run, append_all()).result()


def send(page: Page, words: str) -> None:
    """Type a message, and send it; the page shows it at once."""
    page.get_by_label("Message", exact=True).fill(words)
    page.keyboard.press("Enter")
    expect(page.locator("article.user").last).to_contain_text(words)


def session_of(page: Page) -> str:
    return page.url.partition("#")[2]


def stop_button(page: Page) -> Locator:
    return page.get_by_role("button", name="Stop", exact=True)


def wait_for_words(page: Page) -> str:
    """Wait until the answer has begun, and return what is there of it."""
    words = page.locator("article[aria-busy=true] [data-type=text]")
    expect(words).not_to_be_empty()
    return words.text_content() or ""


def wait_for_end(page: Page) -> None:
    """Wait until a run that was seen to run is over."""
    expect(stop_button(page)).to_be_visible()
    expect(stop_button(page)).to_be_hidden()


def shown(page: Page) -> list[str]:
    """Return all words that a page shows, but for an answer that has not ended."""
    return page.locator("article:not([aria-busy=true]) [data-type=text]").all_text_contents()
