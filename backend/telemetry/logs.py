"""Logs: one line an event, as text or JSON, without secrets; facts and times of the work in hand.

The formatter cuts out whatever looks like a secret or an image: messages of this code have none,
those of libraries and texts from outside may. Facts and times are in context variables, which
``contextvars.copy_context().run`` carries over to another thread.
"""

import base64
import json
import logging
import re
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

from pydantic import SecretStr

from backend.settings import Settings

Fact = str | int | float | None

_NOTHING: Mapping[str, Fact] = MappingProxyType({})

_facts: ContextVar[Mapping[str, Fact]] = ContextVar("facts", default=_NOTHING)


class Stages:
    """Measures one piece of work by stage, in seconds; a stage pauses the one around it.

    Written by the thread that works, read by any thread.

    >>> with timed() as stages:
    ...     with stage("draw"), stage("fetch"):
    ...         stages.now
    'fetch'
    >>> sorted(stages.seconds)
    ['draw', 'fetch']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.now = ""
        self._since = 0.0

    def switch(self, name: str) -> str:
        """Begin or continue a stage, and return the one that ends here; "" is none."""
        before, at = self.now, time.perf_counter()
        if before:
            # A new dict each time: a reader in another thread has one that does not change.
            spent = self.seconds.get(before, 0.0) + at - self._since
            self.seconds = {**self.seconds, before: spent}
        self.now, self._since = name, at
        return before


_stages: ContextVar[Stages | None] = ContextVar("stages", default=None)


@contextmanager
def about(**facts: Fact) -> Iterator[None]:
    """Add facts to the log lines of the block, beside those of the blocks around it.

    >>> with about(request="a1"), about(task=7):
    ...     dict(_facts.get())
    {'request': 'a1', 'task': 7}
    """
    token = _facts.set(MappingProxyType({**_facts.get(), **facts}))
    try:
        yield
    finally:
        _facts.reset(token)


@contextmanager
def timed() -> Iterator[Stages]:
    """Measure the stages of the block, in this thread."""
    stages = Stages()
    token = _stages.set(stages)
    try:
        yield stages
    finally:
        _stages.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Measure a stage within `timed`; do nothing elsewhere. Also a decorator."""
    stages = _stages.get()
    if stages is None:
        yield
        return
    outer = stages.switch(name)
    try:
        yield
    finally:
        stages.switch(outer)


_MESSAGE_LENGTH = 2000  # most letters of a message; longer ones come from outside
_FACT_LENGTH = 100  # and of a fact

_CHAIN = 3  # most errors in a chain of causes that are logged
_CALLS = 12  # and most calls of each

_CUT = "…"

#: Patterns of secrets, and their replacements. They run on texts from outside: none may take
#: quadratic time, by a search for its end from each letter of a long word.
_SECRETS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"""data:[\w/+.-]*[;,][^\s'"]*""", re.I), f"data:{_CUT}"),
    (re.compile(r"""//[^\s/'"]*@"""), f"//{_CUT}@"),
    (re.compile(r"""[?#](?!d=)[\w%.~-]+=[^\s'"]*"""), f"?{_CUT}"),
    (
        re.compile(r"""([?#]d=[^\s&'"]*)(&[^\s'"]*)?"""),
        lambda found: found[1] + (f"&{_CUT}" if found[2] else ""),
    ),
    (re.compile(r"""\b(Token|Bearer|Basic)\s+(?=\S*[\d=+/])[\w+/=.~-]{8,}""", re.I), rf"\1 {_CUT}"),
    (
        re.compile(
            r"""((?:token|secret|password|api_?key|signature|authorization|cookie)"""
            r"""["']?\s*[=:]\s*["']?)(?!Token|Bearer|Basic)[^\s'",}]+""",
            re.I,
        ),
        rf"\1{_CUT}",
    ),
    (re.compile(r"\beyJ[\w-]+(?:\.[\w-]+){0,2}"), _CUT),
    (re.compile(r"\b[0-9a-f]{40}\b", re.I), _CUT),
    (re.compile(r"[\w+/=-]{200,}"), _CUT),
)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PASSWORD = re.compile("[^:/@]+://[^:/@]*:([^@]*)@")
_PLAIN = re.compile(r"[\w.:/+-]+")


def logging_config(settings: Settings, level: str | None = None) -> dict[str, Any]:
    """Return the argument of `logging.config.dictConfig`; libraries log from WARNING on.

    `level` is that of the backend's loggers, in place of the settings'.
    """
    ours = {"level": level or settings.log_level}
    server = {"level": "INFO", "handlers": [], "propagate": True}
    silent = {"level": "CRITICAL", "handlers": [], "propagate": False}  # of each request that waits
    lines = {"()": LogFormatter, "as_json": settings.log_format == "json"}

    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {**lines, "secrets": tuple(known_secrets(settings))}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {
            "backend": ours,
            "clearclip_core": ours,
            "waitress": server,
            "waitress.queue": silent,
            "urllib3.connectionpool": {"level": "ERROR"},  # each try of a connection
            # each try of a download without network; the error at the end says it once
            "huggingface_hub.utils._http": {"level": "ERROR"},
        },
    }


def known_secrets(settings: Settings) -> Iterator[str]:
    """Yield the secrets of settings, in the forms in which they are sent."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            secret = value.get_secret_value()
            yield secret
            # As SQLAlchemy reads it: a password may have signs that end the host of a web address.
            password = _PASSWORD.match(secret)
            if password:
                yield password[1]
                yield unquote(password[1])
    if settings.basic_auth_user is not None and settings.basic_auth_pass is not None:
        pair = f"{settings.basic_auth_user}:{settings.basic_auth_pass.get_secret_value()}"
        yield base64.b64encode(pair.encode()).decode()


def scrub(text: str, secrets: Collection[str] = (), length: int = _MESSAGE_LENGTH) -> str:
    """Return a text on one line, cut off at a length, without secrets and images.

    >>> scrub("GET http://ann:pw@host/a.png?X-Amz-Signature=abc: Token 0123456789")
    'GET http://…@host/a.png?… Token …'
    >>> scrub("one\\ntwo")
    'one\\\\ntwo'
    """
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) > 3:  # shorter ones are parts of words
            text = text.replace(secret, _CUT)
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    clean = _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)
    return clean if len(clean) <= length else clean[:length] + _CUT


def printable(text: str) -> str:
    """Replace the control characters of a text from outside, for a terminal, a table or a plot.

    >>> printable("a\x1b[31mb")
    'a\ufffd[31mb'
    """
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def facts_of(record: logging.LogRecord) -> Mapping[str, Fact]:
    """Return the facts of this thread's blocks, and those of a record."""
    return {**_facts.get(), **getattr(record, "facts", {})}


class LogFormatter(logging.Formatter):
    """Formats records, each as one line without secrets: a JSON object, or a text for people.

    ``2026-11-25 09:12:03 INFO backend.telemetry.task_tracker: Task 7: 5 regions (ms=84)``
    """

    def __init__(self, secrets: Collection[str] = (), as_json: bool = False) -> None:
        super().__init__()
        self._secrets = tuple(secrets)
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        message = self._scrub(record.getMessage())
        raised = record.exc_info[1] if record.exc_info else None
        error = self._scrub(_describe(raised)) if raised is not None else ""

        facts = self._facts(record)
        if self._as_json:
            return _json_line(record, message, error, facts)

        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        pairs = " ".join(f"{name}={_word(value)}" for name, value in facts.items())
        line = f"{at} {record.levelname} {record.name}: {message}"
        return line + (f" | {error}" if error else "") + (f" ({pairs})" if pairs else "")

    def _facts(self, record: logging.LogRecord) -> dict[str, Fact]:
        """Return the facts of a record that say something, texts without secrets."""
        told = {name: value for name, value in facts_of(record).items() if value not in (None, "")}
        return {
            name: self._scrub(value, _FACT_LENGTH) if isinstance(value, str) else value
            for name, value in told.items()
        }

    def _scrub(self, text: str, length: int = _MESSAGE_LENGTH) -> str:
        return scrub(text, self._secrets, length)


def _json_line(
    record: logging.LogRecord, message: str, error: str, facts: Mapping[str, object]
) -> str:
    """Return a line of JSON; an error that there is not is no key of it."""
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    event: dict[str, object] = {
        "time": f"{at}.{int(record.msecs):03d}Z",
        "level": record.levelname,
        "logger": record.name,
        "message": message,
    }
    if error:
        event["error"] = error
    return json.dumps(event | dict(facts), ensure_ascii=False, separators=(",", ":"))


def _word(value: Fact) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _describe(error: BaseException) -> str:
    """Describe an error, its calls, the last one first, and its causes; without values."""
    parts: list[str] = []
    chain: BaseException | None = error
    while chain is not None and len(parts) < _CHAIN:
        calls = traceback.extract_tb(chain.__traceback__)[-_CALLS:]
        way = " < ".join(f"{Path(c.filename).name}:{c.lineno} {c.name}" for c in reversed(calls))
        parts.append(f"{type(chain).__name__}: {chain}{f' at {way}' if way else ''}")
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    return " | because of ".join(parts)
