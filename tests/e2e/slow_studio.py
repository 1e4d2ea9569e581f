"""A proxy before Label Studio: one that is busy, or fails at one call, for the backend alone."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import requests

from tests.backend.fakes.local_server import Answer, Asked

_HANDED_ON = ("Content-Type", "Location")


@dataclass
class SlowStudio:
    """The route of a `LocalServer` that hands calls on; its fields may change at any time."""

    url: str
    delay_s: float = 0.0
    broken: str = ""  # the path whose calls by POST it answers itself, with an error; "" for none
    error: int = 500  # the status of that answer
    #: Part of a path, and what somebody else does just before the first call with it.
    meanwhile: tuple[str, Callable[[], None]] | None = None

    def route(self, asked: Asked) -> Answer:
        """Hand a call on after the delay, which no client of Label Studio's can tell from work."""
        time.sleep(self.delay_s)
        if self.meanwhile is not None and self.meanwhile[0] in asked.path:
            (_, act), self.meanwhile = self.meanwhile, None
            act()
        if asked.method == "POST" and asked.path == self.broken:
            return Answer(self.error, b'{"detail": "It is broken."}')
        headers = {"Content-Type": "application/json", "Authorization": asked.authorization or ""}
        try:
            answer = requests.request(
                asked.method,
                self.url + asked.path,
                data=asked.body,
                headers=headers,
                allow_redirects=False,
                timeout=300,
            )
        except requests.ConnectionError:  # Label Studio is stopped: nobody answers
            return Answer(status=0)
        kept = {name: answer.headers[name] for name in _HANDED_ON if name in answer.headers}
        return Answer(answer.status_code, answer.content, kept)
