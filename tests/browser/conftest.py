"""A real browser, and the example's server on a real store."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

from browser.site import Site
from harness import servers

# Far longer than anything takes, since other tests run beside these.
PATIENCE = 60_000


# Of a module, since Playwright keeps a loop running in this thread, and other tests want their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, which ``AGENTSESSION_TEST_BROWSER=required`` in the environment insists on."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        missing = "there is no chromium on the PATH, which shows the page of examples/chat"
        if os.environ.get("AGENTSESSION_TEST_BROWSER") == "required":
            pytest.fail(missing)
        pytest.skip(missing)
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=program) as it:
        yield it


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two processes on one Valkey: what one stores, a window on the other follows."""
    with servers.running(servers.binaries()["valkey"]) as store:
        site = Site(tmp_path_factory.mktemp("site"), store.url, workers=2)
        site.start()
        yield site
        site.stop()


@pytest.fixture
def small_site(tmp_path: Path) -> Iterator[Site]:
    """One process with sessions in memory, and none there yet."""
    site = Site(tmp_path, "memory://", workers=1)
    site.start()
    yield site
    site.stop()


@pytest.fixture
def window(browser: Browser) -> Iterator[Callable[[str], Page]]:
    """Open windows, and see that no script fails in any."""
    failures: list[Error] = []

    def note(failure: Error) -> None:
        failures.append(failure)

    with browser.new_context() as context:
        context.set_default_timeout(PATIENCE)

        def open_window(url: str) -> Page:
            page = context.new_page()
            page.on("pageerror", note)
            page.goto(url)
            return page

        yield open_window
    assert failures == []
