"""Somebody at the review page, who asks for it and presses its buttons without Chromium."""

from __future__ import annotations

import re
from typing import Any

import requests

from backend.review.verdicts import Reviewed


class Reviewer:
    """Somebody at the review page, in a browser that keeps what it is given."""

    def __init__(self, page: str, name: str) -> None:
        self.url = f"{page}/review"
        self.browser = requests.Session()
        self.browser.headers["Accept"] = "text/html"
        self.html = ""
        self.opens(name)

    def opens(self, name: str = "") -> str:
        """Open the page, with the name in its form or without."""
        asked = {"person": name} if name else {}
        self.html = self.browser.get(self.url, params=asked, timeout=60).text
        return self.html

    @property
    def cards(self) -> list[dict[str, Any]]:
        """The predictions that are shown, as verdicts name them."""
        names = r'data-task="(\d+)" data-prediction="(\d+)" data-version="([^"]*)"'
        return [
            {"task": int(task), "prediction": int(prediction), "version": version}
            for task, prediction, version in re.findall(names, self.html)
        ]

    def says(self, verdict: str, cards: list[dict[str, Any]]) -> dict[str, Any]:
        """Send verdicts of some cards, and leave the others of the page."""
        said = [card | {"verdict": verdict, "seconds": 2.0} for card in cards]
        seat = self.browser.cookies["seat"]
        since = float(re.findall(r'data-since="([\d.]+)"', self.html)[0])
        body = {"seat": seat, "since": since, "verdicts": said, "next": []}
        answer = self.browser.post(
            self.url, json=body, headers={"Accept": "application/json"}, timeout=60
        )
        told: dict[str, Any] = answer.json()
        return told

    def undoes(self) -> None:
        """Press *Undo the last page*."""
        seat = self.browser.cookies["seat"]
        self.browser.post(f"{self.url}/undo", params={"seat": seat}, timeout=60)


def accepted(cards: list[dict[str, Any]]) -> list[int]:
    """Return the tasks of good ones that get an annotation: those that are not checked."""
    verdicts = [Reviewed(verdict="good", **card) for card in cards]
    return [each.task for each in verdicts if not each.is_checked]
