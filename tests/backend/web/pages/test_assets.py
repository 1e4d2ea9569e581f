"""The style sheet and the script: files of all pages, kept by browsers, and open."""

import re

import pytest

from tests.backend.web.browser import PEOPLE, Dashboard

FILES = pytest.mark.parametrize("name", ["page.css", "page.js"])


def address(dashboard: Dashboard, name: str) -> str:
    page = dashboard.client.get("/", headers=PEOPLE).text
    (found,) = re.findall(rf'="(/{name}[^"]+)" nonce="[^"]+">', page)
    return found


def test_pages_name_the_style_sheet_and_have_none_of_their_own() -> None:
    dashboard = Dashboard()
    style = dashboard.client.get(address(dashboard, "page.css"))

    assert style.mimetype == "text/css"
    assert "prefers-color-scheme: dark" in style.text
    assert "<style" not in dashboard.client.get("/", headers=PEOPLE).text


def test_browsers_run_the_script_as_such() -> None:
    dashboard = Dashboard()
    assert dashboard.client.get(address(dashboard, "page.js")).mimetype == "text/javascript"


@FILES
def test_browsers_keep_the_files(name: str) -> None:
    dashboard = Dashboard()

    kept = dashboard.client.get(address(dashboard, name)).headers["Cache-Control"]

    assert kept == "public, max-age=31536000, immutable"


@FILES
def test_the_files_need_no_password(name: str) -> None:
    dashboard = Dashboard(basic_auth_user="lead", basic_auth_pass="secret")

    assert dashboard.client.get("/", headers=PEOPLE).status_code == 401
    assert dashboard.client.get(f"/{name}").status_code == 200
