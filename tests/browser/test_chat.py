"""The page of examples/chat, in a real browser against its real server."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, Page, Route, expect

from browser.site import (
    CHAT,
    LONG,
    Site,
    send,
    session_of,
    shown,
    stop_button,
    wait_for_end,
    wait_for_words,
)
from documents.markdown import DOCS

Window = Callable[[str], Page]
NOT_CONNECTED = re.compile("Not connected")


def test_an_answer_streams_and_its_tool_is_shown(site: Site, window: Window) -> None:
    """Thoughts, call and result, then words, one after the other; at the end what is stored."""
    page = window(site.url)
    send(page, "How is the weather in Lisbon?")
    tool = page.locator("details.tool")
    expect(tool).to_contain_text('weather {"city":"Lisbon"}')
    expect(tool.locator("pre")).to_have_text('{"sky":"clear","degrees":16}')
    first = wait_for_words(page)
    wait_for_end(page)
    question, answer = shown(page)
    assert answer.startswith(first)
    assert len(first) < len(answer)
    assert [question, answer] == site.words(session_of(page))
    page.get_by_text("Thoughts").click()
    expect(page.get_by_text("This is about Lisbon")).to_be_visible()


def test_stop_ends_an_answer(site: Site, window: Window) -> None:
    """What was said by then stays, in the page and in the log."""
    page = window(site.url)
    send(page, LONG)
    wait_for_words(page)
    stop_button(page).click()
    expect(page.get_by_text("Stopped.")).to_be_visible()
    expect(stop_button(page)).to_be_hidden()
    log = site.log(session_of(page))
    assert log[-1]["outcome"] == "cancelled"
    _, answer = shown(page)
    assert site.words(session_of(page)) == [LONG, answer]
    assert len(answer) < len(LONG)


# Notes all that is to be seen of an answer while it streams.
WATCHING = """
  window.seen = new Set();
  new MutationObserver(() => {
    const words = document.querySelector("article[aria-busy=true] [data-type=text]");
    if (words) seen.add(words.textContent);
  }).observe(document, {childList: true, subtree: true});
"""


def assert_it_grew(page: Page, answer: str) -> None:
    """See that an answer that was watched came bit by bit, with nothing left out or there twice."""
    seen = page.evaluate("[...seen]")
    assert [words for words in seen if not answer.startswith(words)] == []
    assert sorted(seen, key=len) == seen
    assert len(seen) > 10


def test_a_reload_in_the_middle_of_an_answer_goes_on(site: Site, window: Window) -> None:
    """The page is empty, and then shows what it had; more and more of it, up to that of the log."""
    page = window(site.url)
    send(page, f"And {'so on ' * 30} in Bergen")
    wait_for_words(page)
    page.add_init_script(WATCHING)
    page.reload()
    wait_for_end(page)
    assert shown(page) == site.words(session_of(page))
    assert_it_grew(page, shown(page)[-1])


def test_a_second_window_follows(site: Site, window: Window) -> None:
    """It shows the answer while it streams, and may stop it; both show the same."""
    page = window(site.url)
    send(page, "Weather in Rome")
    wait_for_end(page)
    second = window(page.url)
    expect(second.locator("article")).to_have_count(3)
    send(page, LONG)
    wait_for_words(second)
    stop_button(second).click()
    for each in (page, second):
        expect(each.get_by_text("Stopped.")).to_be_visible()
        assert shown(each) == site.words(session_of(page))


def test_the_list_of_chats_follows(site: Site, window: Window) -> None:
    """What one window begins and deletes, the list of another one shows and loses."""
    other, page = window(site.url), window(site.url)
    send(page, "Weather in Utrecht")
    link = other.get_by_role("link", name="Weather in Utrecht")
    expect(link).to_be_visible()
    link.click()
    expect(other.locator("article.user")).to_have_text("Weather in Utrecht")
    expect(link).to_have_attribute("aria-current", "page")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete Weather in Utrecht").click()
    for each in (page, other):
        expect(each.get_by_role("link", name="Weather in Utrecht")).to_have_count(0)
        expect(each.get_by_role("status")).to_have_text("This chat is gone.")
        expect(each.locator("article")).to_have_count(0)


# Notes which streams a page opens, and the positions of what comes by them.
NOTING = """
  window.opened = [], window.came = [];
  window.EventSource = class extends EventSource {
    constructor(url) {
      super(url);
      if (!url.includes("events/stream")) return;
      opened.push(url);
      this.addEventListener("message", ({data}) => {
        const {partial, seq} = JSON.parse(data);
        if (!partial) came.push(seq);
      });
    }
  };
"""


def test_event_source_goes_on_by_itself_after_a_kill(site: Site, window: Window) -> None:
    """Nothing is missing and nothing is there twice, though more was stored meanwhile."""
    page = window("about:blank")
    page.add_init_script(NOTING)
    page.goto(site.url)
    send(page, "Weather in Porto")
    wait_for_end(page)
    chat = session_of(page)
    send(page, LONG)
    wait_for_words(page)
    site.kill()
    expect(page.get_by_role("status")).to_have_text(NOT_CONNECTED)
    site.append(chat, "one", "two", "three")
    site.start()
    expect(page.locator("article").last).to_have_text("three")
    assert shown(page) == site.words(chat)
    assert shown(page)[-3:] == ["one", "two", "three"]
    assert page.evaluate("came") == [event["seq"] for event in site.log(chat)]
    assert len(page.evaluate("opened")) == 1


def test_a_message_whose_answer_was_lost_is_sent_again(site: Site, window: Window) -> None:
    """The page sends it with the same id, so it is stored and answered once."""
    page = window(site.url)

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/run", lose, times=1)
    send(page, "Weather in Turin")
    again = page.get_by_role("button", name="Send again")
    expect(again).to_be_visible()
    again.click()
    expect(again).to_have_count(0)
    expect(page.locator("article:has-text('It is')")).to_be_visible()
    assert shown(page) == site.words(session_of(page))
    assert len(shown(page)) == 2


def test_what_was_taken_back_is_gone(site: Site, window: Window) -> None:
    """A rewind takes it out of the page, and a run that was going on with it."""
    page = window(site.url)
    send(page, "Weather in Nice")
    wait_for_end(page)
    before = shown(page)
    last_seq = site.log(session_of(page))[-1]["seq"]
    send(page, LONG)
    wait_for_words(page)
    site.post(f"/sessions/{session_of(page)}/rewind", {"to_seq": last_seq})
    expect(stop_button(page)).to_be_hidden()
    assert page.locator("article").count() == 3
    assert shown(page) == before


HIDE = """(hidden) => {
  Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});
  document.dispatchEvent(new Event('visibilitychange'));
}"""


def test_a_window_that_is_not_seen_catches_up(site: Site, window: Window) -> None:
    """It follows nothing, and takes up no connection; seen again it has all, and each once."""
    page = window("about:blank")
    page.add_init_script(WATCHING)
    page.goto(site.url)
    send(page, f"And {'so on ' * 30} in Malmö")
    wait_for_words(page)
    page.evaluate(HIDE, True)
    page.evaluate(HIDE, False)
    wait_for_end(page)
    assert_it_grew(page, shown(page)[-1])
    page.evaluate(HIDE, True)
    site.append(session_of(page), "meanwhile")
    expect(page.locator("article")).to_have_count(3)
    page.evaluate(HIDE, False)
    expect(page.locator("article").last).to_have_text("meanwhile")
    assert shown(page) == site.words(session_of(page))


def test_what_is_said_is_never_html(site: Site, window: Window) -> None:
    """Not in a message, nor in an answer, a tool's arguments or the list."""
    page = window(site.url)
    attack = "<b>x</b><img src=x onerror=\"document.title='taken'\">"
    send(page, attack)
    wait_for_end(page)
    assert shown(page)[0] == attack
    assert attack in shown(page)[1]
    expect(page.get_by_role("link", name=attack[:20])).to_be_visible()
    assert page.locator("b, img").count() == 0
    assert page.title() == "Chat"
    source = (CHAT / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write", source)


def test_nothing_comes_from_elsewhere(site: Site, window: Window) -> None:
    """The page asks its own server only, and for nothing but itself and the router's routes."""
    page = window("about:blank")
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url.partition("?")[0]))
    page.goto(site.url)
    send(page, "Weather in Oslo")
    wait_for_end(page)
    chat = session_of(page)
    chats = f"{site.url}/sessions"
    assert {url for url in asked if not url.startswith("data:")} == {
        f"{site.url}/",
        f"{site.url}/user/stream",
        chats,
        f"{chats}/{chat}/run",
        f"{chats}/{chat}/events/stream",
    }


def test_the_keyboard_is_enough(small_site: Site, window: Window) -> None:
    """One comes to everything with Tab, and everything has a name."""
    page = window(small_site.url)
    # The field has the focus, from when the page is first drawn, which may be after it has loaded.
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.keyboard.type("Weather in")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("Graz")
    page.keyboard.press("Enter")
    expect(page.locator("article.user")).to_have_text("Weather in\nGraz")
    wait_for_end(page)
    names: list[str] = []
    page.get_by_role("link", name="New chat").focus()
    for _ in range(7):
        name = page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.innerText")
        names.append(" ".join(name.split()))
        page.keyboard.press("Tab")
    assert names == [
        "New chat",
        "Weather in Graz",
        "Delete Weather in Graz",
        "Messages",
        "Thoughts",
        'weather {"city":"Graz"}',
        "Message",
    ]


def test_it_fits_on_a_phone(site: Site, window: Window) -> None:
    """Nothing sticks out to the side, by day and by night."""
    page = window(site.url)
    width, height = 360, 640
    page.set_viewport_size({"width": width, "height": height})
    send(page, "Weather in " + "Llanfairpwllgwyngyll" * 5)
    wait_for_end(page)
    for node in ("documentElement", "querySelector('#log')"):
        assert page.evaluate(f"document.{node}.scrollWidth") <= width
    box = page.get_by_role("button", name="Send").bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < height
    for scheme, color in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(23, 24, 28)")):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # it is one of two
        behind = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert behind == color


def test_the_picture_of_it(small_site: Site, browser: Browser, tmp_path: Path) -> None:
    """``nox -s picture`` puts it into the documentation, where it takes less than 150 kB."""
    target = Path(os.environ.get("AGENTSESSION_TEST_PICTURE", tmp_path / "chat.png"))
    with browser.new_context(viewport={"width": 960, "height": 600}) as context:
        page = context.new_page()
        page.goto(small_site.url)
        for question in ("What is it like in Reykjavik?", "How is the weather in Lisbon?"):
            page.get_by_role("link", name="New chat").click()
            send(page, question)
            wait_for_end(page)
        send(page, "And is it any better, for a long walk along the water, in Oslo?")
        expect(page.locator("article[aria-busy=true]")).to_contain_text("You asked: And is it any")
        page.screenshot(path=target)
    for picture in (target, DOCS / "_static" / "chat.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size < 150_000
