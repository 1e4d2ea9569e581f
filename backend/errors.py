"""Define the errors that the backend raises on purpose, with the HTTP status of each.

::

    BackendError                500
    ├── BadRequest              400   the request itself is wrong
    │   └── LabelConfigError    400   its label config does not parse, or has nothing that we draw
    ├── Unauthorized            401   basic auth is on, and missing or wrong
    ├── TooManyGuesses          429   too many wrong passwords came from the address of the client
    ├── CrossSite               403   a page of another site has sent it in a user's name
    ├── UnknownName             403   the backend was opened under a name that it does not know
    ├── PayloadTooLarge         413   the request is over MAX_BODY_MB
    ├── ModelUnavailable        503   the model has failed to load, or the backend shuts down
    ├── Busy                    429   too many requests for predictions wait, or the queue is full
    ├── ProjectNotFound         404   Label Studio has no project of that number for the token
    ├── JobNotFound             404   there is no job of that number
    ├── RunNotFound             404   there is no run of that number, or its file is elsewhere
    ├── PlotNotFound            404   there is nothing yet that a plot could show
    ├── JobOver                 409   a job that is over cannot be paused, resumed or cancelled
    ├── WithdrawalRefused       409   a job has written no predictions, or may still write some
    ├── LabelConfigChanged      409   the label config is another than the one that was measured
    ├── LearningRefused         409   a project is pinned, or has nothing to learn or go back to
    ├── DatabaseInUse           409   a database that a backend works with cannot be restored
    ├── DatabaseAway            503   the database cannot be used now; the message says why
    ├── DatabaseRefused         424   an unreleased or a newer version has made the database
    ├── DatasetError            422   a data set, or a part of one, cannot be read or written
    ├── StudioUnreachable       424   Label Studio's API does not answer, or another in its place
    ├── StudioRefused           424   Label Studio's API refuses a request
    └── TaskError               422   one task has no prediction; the others of its request have
        ├── DataKeyError        422   the label config names a key that the task's data lacks
        ├── ImageNotFound       422   there is no image at that address, or no way to it
        ├── ImageRefused        424   Label Studio or another server refuses the image
        ├── HostRefused         403   the image is on a host that must not be asked
        ├── ImageInvalid        422   not an image, or a truncated one
        └── ImageTooLarge       413   over MAX_IMAGE_MB or MAX_IMAGE_MEGAPIXELS

The message of each is one sentence for the reader of Label Studio or of a log. It says what is
wrong, and what to do where that is known. It never holds a token.
"""

# ruff: noqa: N818 -- the names are those of HTTP, and the tree marks them as errors

from __future__ import annotations

from typing import ClassVar


class BackendError(Exception):
    """Root of all errors that the backend raises on purpose.

    Attributes:
        http_status: HTTP status of the answer.
        code: name of the error in `/status` and metrics; stays when the class is renamed.

    >>> ImageTooLarge("The image has 400 megapixels, more than the limit of 150.").http_status
    413
    """

    http_status: ClassVar[int] = 500
    code: ClassVar[str] = "BackendError"


class BadRequest(BackendError):
    """The request itself is wrong, and fails again when it is repeated."""

    http_status = 400
    code = "BadRequest"


class LabelConfigError(BadRequest):
    """The label config does not parse, or has no control on an image that we draw."""

    code = "LabelConfigError"


class Unauthorized(BackendError):
    """Basic auth is on, and the request has none or a wrong one."""

    http_status = 401
    code = "Unauthorized"


class TooManyGuesses(BackendError):
    """Too many wrong passwords came from the address of the client, or in all.

    Args:
        retry_after_s: time after which the next password is checked, in seconds.
    """

    http_status = 429
    code = "TooManyGuesses"

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"Too many wrong passwords: the next one is checked in {retry_after_s} s.")
        self.retry_after_s = retry_after_s


class CrossSite(BackendError):
    """A browser has sent the request for a page of another site, maybe unknown to its user."""

    http_status = 403
    code = "CrossSite"


class UnknownName(BackendError):
    """The backend was opened under a name that it does not know; another site may own the name."""

    http_status = 403
    code = "UnknownName"


class PayloadTooLarge(BackendError):
    """The request is larger than the limit, or holds more values than its size allows."""

    http_status = 413
    code = "PayloadTooLarge"


class ModelUnavailable(BackendError):
    """The model has failed to load, or the backend shuts down; the message says which."""

    http_status = 503
    code = "ModelUnavailable"


class Busy(BackendError):
    """Too much waits already: repeat the request later."""

    http_status = 429
    code = "Busy"


class ProjectNotFound(BackendError):
    """Label Studio has no project of that number, or does not show it to this token."""

    http_status = 404
    code = "ProjectNotFound"


class JobNotFound(BackendError):
    """There is no job of that number."""

    http_status = 404
    code = "JobNotFound"


class RunNotFound(BackendError):
    """There is no run of that number over a project any more, or its file is elsewhere."""

    http_status = 404
    code = "RunNotFound"


class PlotNotFound(BackendError):
    """There is nothing yet that a plot could show."""

    http_status = 404
    code = "PlotNotFound"


class JobOver(BackendError):
    """A job that is over cannot be paused, resumed or cancelled."""

    http_status = 409
    code = "JobOver"


class WithdrawalRefused(BackendError):
    """The predictions of a job cannot be withdrawn: it has written none, or is not over."""

    http_status = 409
    code = "WithdrawalRefused"


class LabelConfigChanged(BackendError):
    """The label config of a project is another than the one that words were measured with."""

    http_status = 409
    code = "LabelConfigChanged"


class LearningRefused(BackendError):
    """A project's version cannot be changed: it is pinned, or there is no version to change to."""

    http_status = 409
    code = "LearningRefused"


class DatabaseInUse(BackendError):
    """A database that a backend works with cannot be restored."""

    http_status = 409
    code = "DatabaseInUse"


class DatabaseAway(BackendError):
    """The database cannot be used now: the message says why, as far as that is known."""

    http_status = 503
    code = "DatabaseAway"


class DatabaseRefused(BackendError):
    """An unreleased or a newer version has made the database: this one must not write to it."""

    http_status = 424
    code = "DatabaseRefused"


class DatasetError(BackendError):
    """A data set, or a part of one, cannot be read or written; the message says which and why."""

    http_status = 422
    code = "DatasetError"


class StudioUnreachable(BackendError):
    """Label Studio's API does not answer within the time for retries."""

    http_status = 424
    code = "StudioUnreachable"


class StudioRefused(BackendError):
    """Label Studio's API refuses a request.

    Args:
        message: one sentence for people.
        status: HTTP status of Label Studio's answer.
    """

    http_status = 424
    code = "StudioRefused"

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class TaskError(BackendError):
    """One task cannot be predicted; the other tasks of its request are."""

    http_status = 422
    code = "TaskError"


class DataKeyError(TaskError):
    """The label config names a data key that the task does not have."""

    code = "DataKeyError"


class ImageNotFound(TaskError):
    """There is no image at the address, or the address is of a kind that is never followed."""

    code = "ImageNotFound"


class ImageRefused(TaskError):
    """The server of the image cannot be reached, or refuses it."""

    http_status = 424
    code = "ImageRefused"


class HostRefused(TaskError):
    """The image is on a host without a public address, and no administrator vouches for it."""

    http_status = 403
    code = "HostRefused"


class ImageInvalid(TaskError):
    """The file is no image, or is truncated."""

    code = "ImageInvalid"


class ImageTooLarge(TaskError):
    """The image is over the limit of bytes or of pixels."""

    http_status = 413
    code = "ImageTooLarge"


def code_of(error: BaseException) -> str:
    """Return the name of an error in `/status` and metrics; that of its class for a foreign one.

    >>> code_of(ImageTooLarge("400 megapixels.")), code_of(ZeroDivisionError())
    ('ImageTooLarge', 'ZeroDivisionError')
    """
    return error.code if isinstance(error, BackendError) else type(error).__name__
