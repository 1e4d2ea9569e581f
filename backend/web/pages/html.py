"""Render pages: their headers, filters that format numbers for people, and answers to forms."""

import secrets
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

from flask import Flask, Response, render_template, request

from backend.errors import BackendError
from backend.feedback.report.hours_left import hours
from backend.feedback.report.statistics import in_percent
from backend.views.text import ago, count_with_noun, duration, pace, size
from backend.web.middleware.errors import json_response
from backend.web.middleware.guards import BodyReader
from backend.web.pages.forms import FORM_TYPE, MAX_FORM_BYTES, read_form
from clearclip_core.quantities import grouped

_T = TypeVar("_T")

#: Content-Security-Policy: a page runs its own script and style, and asks only this server.
_POLICY = (
    "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


def add_filters(app: Flask) -> None:
    """Let templates use the functions that write figures for people, without their indentation."""
    app.jinja_env.lstrip_blocks = True
    for text_filter in (duration, ago, size, hours, pace):
        app.add_template_filter(text_filter)
    app.add_template_filter(grouped, "count")
    app.add_template_filter(count_with_noun, "quantity")
    app.add_template_filter(in_percent, "percent")


def is_for_people() -> bool:
    """Tell whether a browser asks: Label Studio and other programs do not name ``text/html``."""
    return "text/html" in request.headers.get("Accept", "")


def html_page(template: str, refusal: BackendError | None = None, **values: Any) -> Response:
    """Render a template, with headers that keep content of other sites off the page.

    A `refusal`, why what a form has asked for was not done, sets the response's status.
    """
    nonce = secrets.token_urlsafe(16)
    text = render_template(template, nonce=nonce, refusal=refusal, **values)
    response = Response(text, mimetype="text/html")
    if refusal is not None:
        response.status_code = refusal.http_status
    response.headers["Content-Security-Policy"] = _POLICY.format(nonce=nonce)
    response.headers["Referrer-Policy"] = "same-origin"
    return response


def error_response(sentence: str, status: int) -> Response:
    """Answer with an error: a browser with a page, and a program with ``{"error": sentence}``."""
    if is_for_people():
        page = html_page("error.html", sentence=sentence, is_missing=status == HTTPStatus.NOT_FOUND)
        page.status_code = status
        return page
    return json_response({"error": sentence}, status)


def answer_action(
    act: Callable[[bool], _T],
    shown: Callable[[_T], Response],
    described: Callable[[_T], Response],
    refused: Callable[[BackendError], Response],
) -> Response:
    """Do what a form or a program asks for, and answer each in its own way.

    Args:
        act: does it; its argument tells whether the body is a form, else it is JSON.
        shown: what was done -> the answer to a form.
        described: what was done -> the answer to a program.
        refused: makes the page that says why a form was refused.

    Raises:
        BackendError: from `act`, where a program has asked.
    """
    is_form = request.mimetype == FORM_TYPE
    try:
        done = act(is_form)
    except BackendError as error:
        if not is_form:
            raise
        return refused(error)
    return shown(done) if is_form else described(done)


def answer_form(
    body: BodyReader,
    act: Callable[[bytes, bool], _T],
    shown: Callable[[_T], Response],
    described: Callable[[_T], Response],
    refused: Callable[[BackendError, Mapping[str, list[str]]], Response],
) -> Response:
    """Do what a body asks for, as `answer_action`; a form that is refused keeps what was typed.

    Args:
        act: takes the body, too.
        refused: takes the values of each field, too; none where the form cannot be read.
    """
    typed: dict[str, list[str]] = {}

    def act_on_body(is_form: bool) -> _T:
        content = body.read(MAX_FORM_BYTES)
        if is_form:
            typed.update(read_form(content))
        return act(content, is_form)

    return answer_action(act_on_body, shown, described, lambda error: refused(error, typed))
