"""The style sheet: one file of all pages, kept by browsers, and open."""

import re

from tests.backend.web.browser import PEOPLE, Dashboard


def address(dashboard: Dashboard) -> str:
    page = dashboard.client.get("/", headers=PEOPLE).text
    (found,) = re.findall(r'<link rel="stylesheet" href="([^"]+)" nonce="[^"]+">', page)
    return found


def test_pages_name_the_style_sheet_and_have_none_of_their_own() -> None:
    dashboard = Dashboard()
    style = dashboard.client.get(address(dashboard))

    assert style.mimetype == "text/css"
    assert "prefers-color-scheme: dark" in style.text
    assert "<style" not in dashboard.client.get("/", headers=PEOPLE).text


def test_browsers_keep_the_style_sheet() -> None:
    dashboard = Dashboard()

    kept = dashboard.client.get(address(dashboard)).headers["Cache-Control"]

    assert kept == "public, max-age=31536000, immutable"


def test_the_style_sheet_needs_no_password() -> None:
    dashboard = Dashboard(basic_auth_user="lead", basic_auth_pass="secret")

    assert dashboard.client.get("/", headers=PEOPLE).status_code == 401
    assert dashboard.client.get("/page.css").status_code == 200
