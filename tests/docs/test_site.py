"""The built site in headless Chromium: `make docs-check` builds it and runs this.

Screenshots of every page, light and dark, are left in build/screenshots.
"""

import base64
import functools
import http.server
import json
import os
import shutil
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlparse

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

pytestmark = pytest.mark.site

SITE = Path(os.environ["RSKERNELS_SITE"]).resolve()
SHOTS = SITE.parent / "screenshots"
PAGES = sorted(str(page.relative_to(SITE)) for page in SITE.rglob("*.html"))
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def address():
    """Serve the site on this machine alone, and return its address."""
    handler = functools.partial(Quiet, directory=str(SITE))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome")
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


def show(browser, url, scheme="light"):
    """Load a page in a colour scheme and return its console's lines and its requests."""
    wishes = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
    media = {"features": [{"name": name, "value": value} for name, value in wishes.items()]}
    browser.get("about:blank")  # where no script stores what changes now
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    # An earlier page's colours are remembered there.
    stored = {"origin": url[: url.index("/", 8)], "storageTypes": "local_storage"}
    browser.execute_cdp_cmd("Storage.clearDataForOrigin", stored)
    browser.get_log("browser"), browser.get_log("performance")  # of what came before
    browser.get(url)
    WebDriverWait(browser, 30).until(
        lambda b: b.execute_script("return [...document.images].every(i => i.complete)")
    )
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests, failed = {}, []
    for method, sent in ((event["method"], event["params"]) for event in events):
        if method == "Network.requestWillBeSent":
            requests[sent["requestId"]] = sent["request"]["url"]
        elif method == "Network.loadingFailed":
            failed.append((requests.get(sent["requestId"]), sent["errorText"]))
        elif method == "Network.responseReceived" and sent["response"]["status"] >= 400:
            failed.append((sent["response"]["url"], sent["response"]["status"]))
    return browser.get_log("browser"), list(requests.values()), failed


def take_picture(browser, path):
    size = browser.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
    clip = {"x": 0, "y": 0, "width": 1280, "height": min(size["height"], 8000), "scale": 1}
    picture = browser.execute_cdp_cmd(
        "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(base64.b64decode(picture["data"]))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_everything_without_an_error_or_a_request_elsewhere(
    browser, address, page, scheme
):
    console, requests, failed = show(browser, address + page, scheme)
    take_picture(browser, SHOTS / scheme / (page.replace("/", "-")[:-5] + ".png"))
    assert console == []
    assert failed == []
    assert [url for url in requests if not url.startswith((address, "data:", "blob:"))] == []
    unseen = "return [...document.images].filter(i => !i.naturalWidth).map(i => i.src)"
    assert browser.execute_script(unseen) == []
    colour = "return document.body.getAttribute('data-md-color-scheme')"
    assert browser.execute_script(colour) == {"light": "default", "dark": "slate"}[scheme]
    # What is wider than the window scrolls in a box of its own.
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 1280


class Anchors(HTMLParser):
    """The links of a page and the ids that it can be entered at."""

    def __init__(self, page):
        super().__init__()
        self.links, self.ids = [], set()
        self.feed((SITE / page).read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        by_name = dict(attributes)
        self.ids.update(value for name, value in attributes if name in ("id", "name"))
        if tag == "a" and by_name.get("href"):
            self.links.append(by_name["href"])


def test_no_link_or_anchor_is_broken():
    anchors = {page: Anchors(page) for page in PAGES}
    broken = []
    for page, parsed in anchors.items():
        for link in parsed.links:
            url, fragment = urldefrag(urljoin("http://site/" + page, link))
            if urlparse(url).netloc != "site":
                continue
            to = unquote(urlparse(url).path).lstrip("/")
            to += "index.html" if not to or to.endswith("/") else ""
            has_anchor = not fragment or to not in anchors or unquote(fragment) in anchors[to].ids
            if not (SITE / to).is_file() or not has_anchor:
                broken.append((page, link))
    assert broken == []


def test_every_figure_is_on_a_page():
    pages = "".join((SITE / page).read_text(encoding="utf-8") for page in PAGES)
    figures = [path.name for path in (SITE / "figures").iterdir()]
    assert len(figures) >= 5
    assert [name for name in figures if f"figures/{name}" not in pages] == []


def test_the_search_finds_without_a_network(browser, address):
    show(browser, address + "index.html")
    browser.find_element(By.CSS_SELECTOR, "input.md-search__input").send_keys("violation")
    results = WebDriverWait(browser, 30).until(
        lambda b: b.find_elements(By.CSS_SELECTOR, ".md-search-result__item")
    )
    assert results


def test_mathematics_needs_no_script():
    page = (SITE / "theory" / "rejection.html").read_text(encoding="utf-8")
    assert page.count("<math") >= 4
    assert "arithmatex" not in page
