"""Who gets to see the page."""

import re
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.dashboard.conftest import KEY, OTHER_KEY, Browsing, Gateway, Seen
from tests.processes import GATEWAY, environment

EVERYTHING = """JSON.stringify(
    [document.documentElement.outerHTML, {...localStorage}, {...sessionStorage}, document.cookie]
)"""


def test_a_key_signs_in_and_a_wrong_one_does_not(browsing: Browsing, gateway: Gateway, seen: Seen) -> None:
    gateway.post({"model": "mine"})
    page = browsing.open("/?where=model%3Dmine", key=None)
    expect(page).to_have_url(re.compile(r"/login\?next="))
    page.get_by_label("Key").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    # The browser tells of the status.
    assert len(seen.told) == 1 and "401" in seen.told.pop()
    page.get_by_label("Key").fill(KEY)
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{gateway.url}/?where=model%3Dmine")
    expect(page.get_by_role("link", name="mine", exact=True)).to_be_visible()
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
    assert KEY not in cookie["value"]
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(re.compile(r"/login"))
    assert page.context.cookies() == []
    page.goto(f"{gateway.url}/")
    expect(page).to_have_url(re.compile(r"/login"))


@pytest.mark.parametrize(("of_system", "chosen"), [("light", "dark"), ("dark", "light")])
def test_the_form_is_as_light_as_the_dashboard_was(browsing: Browsing, of_system: str, chosen: str) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    found = {}
    for theme in (of_system, chosen):
        page = browsing.open("/login", theme=theme, key=None)
        found[theme] = page.evaluate(ground)
    assert found[of_system] != found[chosen]
    page = browsing.open("/login", theme=of_system, key=None)
    page.evaluate("(theme) => localStorage.setItem('theme', theme)", chosen)
    page.reload()
    assert page.evaluate(ground) == found[chosen]


def test_the_link_of_the_demo_signs_in_once(browser: Browser, tmp_path: Path) -> None:
    command = [*GATEWAY, "demo", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        told = ""
        while "listening on " not in told:
            told += demo.stdout.readline()
        found = re.search(r"http://\S+/login#link=\S+", told)
        assert found is not None, told
        first, second = browser.new_page(), browser.new_page()
        first.goto(found[0])
        expect(first.locator(".spans .rows .row")).to_have_count(7)
        assert "#" not in first.url
        second.goto(found[0])
        expect(second.get_by_role("alert")).to_be_visible()
        for page in (first, second):
            page.context.close()
        demo.terminate()


def test_each_organization_sees_its_own(browsing: Browsing, gateway: Gateway) -> None:
    gateway.post({"model": "of-a"})
    gateway.api.post("/api/request-logs/", json={"model": "of-b"}, headers={"Authorization": OTHER_KEY})
    for key, own, organization in ((KEY, "of-a", "org-a"), (OTHER_KEY, "of-b", "org-b")):
        page = browsing.open(key=key)
        expect(page.locator(".rows .row")).to_have_count(1)
        expect(page.locator(".rows")).to_contain_text(own)
        expect(page.locator(".who")).to_contain_text(organization)


def test_who_is_signed_out_meanwhile_signs_in_again_and_comes_back(browsing: Browsing, seen: Seen) -> None:
    page = browsing.open("/?view=charts")
    expect(page.locator(".charts")).to_have_text("No span fits.")
    page.context.clear_cookies()
    page.get_by_role("link", name="Traces", exact=True).click()
    expect(page).to_have_url(re.compile(r"/login\?next="))
    page.get_by_label("Key").fill(KEY)
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"view=traces"))
    seen.told[:] = [told for told in seen.told if "401" not in told]


def test_keys_are_nowhere_on_it(browsing: Browsing, gateway: Gateway) -> None:
    told = gateway.chat("Hi")
    page = browsing.open(f"/?span={told}")
    expect(page.locator("#panel")).to_contain_text("Conversation")
    page.get_by_text("Whole span").click()
    for view in ("", "?view=traces", "?view=charts", "?view=playground"):
        kept = page.evaluate(EVERYTHING)
        assert KEY not in kept and OTHER_KEY not in kept
        page.goto(f"{gateway.url}/{view}")
    assert page.evaluate("document.cookie") == ""
