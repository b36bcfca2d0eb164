"""A real browser, and pages in it that meet no error and are no wider than their screen."""

import json
import re
import shutil
from contextlib import contextmanager

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DESK, PHONE = (1280, 900), (390, 844)


@contextmanager
def chromium():
    """Yield a browser; skips where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser, address, size=DESK, **options):
    """Yield a page at an address."""
    page = browser.new_page(viewport=dict(zip(("width", "height"), size, strict=True)), **options)
    page.set_default_timeout(60_000)
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.goto(address)
    yield page
    assert faults == []
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    page.close()


def data_of(page, name):
    """The JSON that the text of a page holds under a name."""
    (data,) = re.findall(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.DOTALL)
    return json.loads(data)


def require_pictures(page):
    """Wait until every picture of an open page is there, as before it is printed."""
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
