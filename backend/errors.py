"""Define the errors that the backend raises on purpose, with the HTTP status of each.

The message of each is one sentence for the reader of Label Studio or of a log. It says what is
wrong, and what to do where that is known. It never holds a token.
"""

# ruff: noqa: N818 -- the names are those of HTTP

from __future__ import annotations

from typing import ClassVar


class BackendError(Exception):
    """Root of all errors that the backend raises on purpose.

    Attributes:
        http_status: HTTP status of the answer.

    >>> ImageTooLarge("The image has 400 megapixels, more than the limit of 150.").http_status
    413
    """

    http_status: ClassVar[int] = 500


class BadRequest(BackendError):
    """The request itself is wrong, and fails again when it is repeated."""

    http_status = 400


class LabelConfigError(BadRequest):
    """The label config does not parse, or has no control on an image that we draw."""


class Unauthorized(BackendError):
    """Basic auth is on, and the request has none or a wrong one."""

    http_status = 401


class TooManyGuesses(BackendError):
    """Too many wrong passwords came from the address of the client.

    Args:
        retry_after_s: time after which the next password is checked, in seconds.
    """

    http_status = 429

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"Too many wrong passwords: try again in {retry_after_s} s.")
        self.retry_after_s = retry_after_s


class CrossSite(BackendError):
    """A browser has sent the request for a page of another site, maybe unknown to its user."""

    http_status = 403


class UnknownName(BackendError):
    """The backend was opened under a name that it does not know; another site may own the name."""

    http_status = 403


class PayloadTooLarge(BackendError):
    """The request is larger than the limit, or holds more values than its size allows."""

    http_status = 413


class ModelUnavailable(BackendError):
    """The model has failed to load, or the backend shuts down; the message says which."""

    http_status = 503


class Busy(BackendError):
    """Too much waits already: repeat the request later."""

    http_status = 429


class NotFound(BackendError):
    """There is no project, job, run or file of that number, or not for this token."""

    http_status = 404


class JobOver(BackendError):
    """A job that is over cannot be paused, resumed or cancelled."""

    http_status = 409


class WithdrawalRefused(BackendError):
    """The predictions of a job cannot be withdrawn: it has written none, or is not over."""

    http_status = 409


class LabelConfigChanged(BackendError):
    """The label config of a project is another than the one that words were measured with."""

    http_status = 409


class LearningRefused(BackendError):
    """A project's version cannot be changed: chosen by hand, or none is there to change to."""

    http_status = 409


class DatabaseInUse(BackendError):
    """A database that a backend works with cannot be restored."""

    http_status = 409


class DatabaseAway(BackendError):
    """The database cannot be used now: the message says why, as far as that is known."""

    http_status = 503


class DatabaseRefused(BackendError):
    """A version before 0.2 or a newer one has made the database: this one must not write to it."""

    http_status = 424


class DatasetError(BackendError):
    """A data set, or a part of one, cannot be read or written; the message says which and why."""

    http_status = 422


class StudioUnreachable(BackendError):
    """Label Studio's API does not answer within the time for retries."""

    http_status = 424


class StudioRefused(BackendError):
    """Label Studio's API refuses a request.

    Args:
        message: one sentence for people.
        status: HTTP status of Label Studio's answer.
    """

    http_status = 424

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class AnswerTooLarge(BadRequest):
    """An answer of Label Studio's API is larger than is read, and will be when it is repeated."""

    http_status = 424


class TaskNotServed(BadRequest):
    """Label Studio fails to hand out one task, or an annotation of it, and hands out others."""

    http_status = 424


class TaskError(BackendError):
    """One task cannot be predicted; the other tasks of its request are."""

    http_status = 422


class DataKeyError(TaskError):
    """The label config names a data key that the task does not have."""


class ImageNotFound(TaskError):
    """There is no image at the address, or the address is of a kind that is never followed."""


class ImageRefused(TaskError):
    """The server of the image cannot be reached, or refuses it."""

    http_status = 424


class HostRefused(TaskError):
    """The image is on a host without a public address, and no administrator vouches for it."""

    http_status = 403


class ImageInvalid(TaskError):
    """The file is no image, or is truncated."""


class ImageTooLarge(TaskError):
    """The image is over the limit of bytes or of pixels."""

    http_status = 413
