"""People beside the demo's user: each signs up by invitation, and has a browser of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import requests

from backend.cli.demo_servers import LabelStudioProcess
from tests.e2e.servers import get

_PASSWORD = "as-long-as-it-has-to-be"


@dataclass(frozen=True, eq=False)
class Person:
    """Somebody who is logged in to Label Studio, and calls its API as their browser does."""

    name: str
    studio_url: str
    browser: requests.Session = field(default_factory=requests.Session)

    @classmethod
    def sign_up(cls, name: str, studio: LabelStudioProcess) -> Person:
        """Make a user with this first name, by the invitation that the demo's user has."""
        invitation = get(studio, "/api/invite").json()["invite_url"]
        person = cls(name, studio.url)
        person.browser.headers["Referer"] = studio.url
        page = studio.url + invitation
        person.browser.get(page, timeout=60).raise_for_status()
        login = {"email": f"{name.lower()}@example.com", "password": _PASSWORD}
        login["csrfmiddlewaretoken"] = person.browser.cookies["csrftoken"]
        person.browser.post(page, data=login, timeout=60).raise_for_status()
        person.ask("PATCH", f"/api/users/{person.id}/", json={"first_name": name})
        return person

    @property
    def id(self) -> int:
        """The number of the user."""
        return int(self.ask("GET", "/api/current-user/whoami")["id"])

    def make_token(self) -> str:
        """Make the personal access token that *Account & Settings* shows; there is one a user."""
        return str(self.ask("POST", "/api/token/")["token"])

    def ask(self, method: str, path: str, **request: Any) -> Any:
        """Call Label Studio's API, and return its JSON, None where it answers nothing."""
        headers = {"X-CSRFToken": self.browser.cookies["csrftoken"]}
        url = self.studio_url + path
        answer = self.browser.request(method, url, headers=headers, timeout=300, **request)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text[:300]}"
        return answer.json() if answer.content else None

    def annotate(self, task: int, result: list[dict[str, Any]], **more: Any) -> int:
        """Submit an annotation, and return its number."""
        body = {"result": result, "lead_time": 30.0} | more
        return int(self.ask("POST", f"/api/tasks/{task}/annotations/", json=body)["id"])
