#!/usr/bin/python3
"""The status page in headless Chromium: it loads, moves while tokens flow, asks nobody else, and complains of nothing.

Skipped without Chromium (scripts/test-page installs it). THIMBLE_PAGE_PICTURES=DIR keeps pictures.
"""

import os
import socket

import chromium
import harness
from harness import MIB

PROMPT = "The old boat was very"
SIZES = {"desktop": (1280, 900), "tablet": (800, 1000), "phone": (360, 740)}
# Text that is cut off or runs out of its box, at any width: what a reader of the page would see first.
OVERFLOWING = """[...document.querySelectorAll('body *')].filter(e => e.clientWidth && e.scrollWidth > e.clientWidth + 1 &&
  getComputedStyle(e).overflowX === 'visible' && getComputedStyle(e).display !== 'inline' && !e.closest('svg'))
  .map(e => e.tagName + '#' + e.id + '.' + e.className)"""
# WCAG's contrast of an element's text with the ground behind it.
CONTRAST = """(() => {
  const parse = c => c.match(/[\\d.]+/g).map(Number), line = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const bright = c => { const [r, g, b] = parse(c).map(line); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; const p = parse(c);
    if (p.length < 4 || p[3] > 0) return c; } return 'rgb(255,255,255)'; };
  let worst = [99, ''];
  for (const e of document.querySelectorAll('h1,h2,p,b,dt,dd,th,td,a,li,button,summary,span')) {
    if (!e.textContent.trim() || !e.getClientRects().length) continue;
    const a = bright(getComputedStyle(e).color), b = bright(ground(e)), ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < worst[0]) worst = [ratio, e.tagName + '#' + e.id + ' ' + e.textContent.trim().slice(0, 30)];
  }
  return worst;
})()"""


LIVE = "document.getElementById('state')?.textContent === 'live'"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def open_page(test):
    program = chromium.find()
    if not program:
        raise harness.Skip("no Chromium (scripts/test-page installs it)")
    port = free_port()  # Chromium does not speak HTTP over Unix sockets
    group = test.group(64 * MIB) if harness.can_make_groups() else None
    options = ["--http", f"127.0.0.1:{port}"] + ([] if group else ["--enforcement", "none"])
    daemon = test.daemon(group=group, options=options).ready(120)
    browser = chromium.Browser(program)
    test.clients.append(Closing(browser))
    browser.window(*SIZES["desktop"])
    origin = f"http://127.0.0.1:{port}/"
    browser.call("Page.navigate", url=origin)
    return daemon, browser, origin


class Closing:
    """Ends the browser where the harness ends clients."""

    def __init__(self, browser):
        self.browser = browser

    def end(self):
        if self.browser:
            self.browser.close()
            self.browser = None


def until(browser, expression, seconds, what):
    harness.wait_until(lambda: browser.watch(0.2) or browser.evaluate(expression), seconds, what)


def number(browser, name):
    return int("".join(c for c in browser.evaluate(f"document.getElementById('{name}').textContent") if c.isdigit()) or 0)


def picture(browser, name):
    directory = os.environ.get("THIMBLE_PAGE_PICTURES")
    if directory:
        os.makedirs(directory, exist_ok=True)
        browser.picture(os.path.join(directory, name + ".png"))


def page_moves_while_tokens_flow(test):
    daemon, browser, origin = open_page(test)
    until(browser, LIVE, 30, "the page is live")
    client = daemon.start_generate(PROMPT, "--max-tokens", 480, "--ignore-eos", "--seed", 1)
    client.wait_for_tokens(1)
    first = number(browser, "tokens")
    until(browser, f"Number(document.getElementById('tokens').textContent.replace(/\\D/g, '')) > {first}", 60,
          "the number of tokens grows")
    picture(browser, "busy")
    client.finish(300).require()
    until(browser, "document.getElementById('tokens').textContent.replace(/\\D/g, '') === '480'", 30, "all 480 are told")
    until(browser, "document.getElementById('rate-spark').querySelector('.line').hasAttribute('d')", 10, "a line of rates")
    widths = browser.evaluate("[...document.querySelectorAll('#gauge i')].map(e => parseFloat(e.style.width))")
    assert len(widths) == 5 and 0 < sum(widths) <= 100.5, widths
    cells, stages = browser.evaluate("[document.querySelectorAll('#plan .cell').length, plan.stages]")
    assert 0 < cells <= stages, (cells, stages)
    assert browser.evaluate("document.getElementById('current').textContent").endswith("MiB")
    # Paused, it has no connection; going on, it has one again.
    browser.evaluate("document.getElementById('pause').click()")
    assert browser.evaluate("source") is None
    browser.evaluate("document.getElementById('pause').click()")
    until(browser, LIVE, 30, "the page is live again")
    assert not browser.errors, browser.errors
    assert not browser.console, browser.console
    outside = [url for url in browser.requests if not url.startswith((origin, "data:", "about:"))]
    assert origin in browser.requests and origin + "events" in browser.requests, browser.requests
    assert not outside, outside
    browser.close()
    test.clients.clear()
    daemon.stop()


def page_is_readable_at_every_size(test):
    _, browser, _ = open_page(test)
    until(browser, LIVE, 30, "the page is live")
    for name, (width, height) in SIZES.items():
        for dark in (False, True):
            browser.window(width, height, dark)
            browser.watch(0.8)  # widths move for half a second
            assert browser.evaluate("document.documentElement.scrollWidth") <= width, f"{name}: wider than its window"
            assert browser.evaluate(OVERFLOWING) == [], f"{name}: {browser.evaluate(OVERFLOWING)}"
            ratio, where = browser.evaluate(CONTRAST)
            assert ratio >= 4.5, f"{name}, dark {dark}: contrast {ratio:.2f} of {where}"
            picture(browser, f"{name}-{'dark' if dark else 'light'}")
    small = browser.evaluate("[...document.querySelectorAll('button, summary, nav a')].map(e => e.getBoundingClientRect().height)")
    assert min(small) >= 16, small
    # Every picture has words, every heading's section its name, and the keyboard reaches what can be used.
    assert browser.evaluate("[...document.querySelectorAll('[role=img]')].every(e => e.getAttribute('aria-label').length > 3)")
    assert browser.evaluate("[...document.querySelectorAll('button, summary, a')].every(e => e.tabIndex >= 0)")
    assert not browser.errors and not browser.console, browser.errors + browser.console


def page_says_when_the_daemon_has_gone(test):
    daemon, browser, _ = open_page(test)
    until(browser, LIVE, 30, "the page is live")
    daemon.stop()
    until(browser, "document.getElementById('state')?.className === 'bad'", 30, "the page says that it is alone")


if __name__ == "__main__":
    harness.main(page_moves_while_tokens_flow, page_is_readable_at_every_size, page_says_when_the_daemon_has_gone)
