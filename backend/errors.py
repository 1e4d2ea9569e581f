"""Define the errors that the backend raises on purpose, with the HTTP status of each.

The message of each is one sentence for the reader of Label Studio or of a log. It says what is
wrong, and what to do where that is known. It never holds a token.

The tree, with the status of an answer::

    BackendError              500
    ├ BadRequest              400
    │ ├ LabelConfigError      400
    │ ├ AnswerTooLarge        424
    │ └ TaskNotServed         424
    ├ Unauthorized            401
    ├ TooManyGuesses          429
    ├ CrossSite               403
    ├ UnknownName             403
    ├ PayloadTooLarge         413
    ├ ModelUnavailable        503
    ├ Busy                    429
    ├ NotFound                404
    ├ JobOver                 409
    ├ WithdrawalRefused       409
    ├ LabelConfigChanged      409
    ├ LearningRefused         409
    ├ DatabaseInUse           409
    ├ DatabaseAway            503
    ├ DatabaseRefused         424
    ├ DatasetError            422
    ├ StudioUnreachable       424
    │ └ StudioBusy            503
    ├ StudioRefused           424
    └ TaskError               422
      ├ TaskDeadly            422
      ├ DataKeyError          422
      ├ ImageNotFound         422
      ├ ImageRefused          424
      ├ HostRefused           403
      ├ ImageInvalid          422
      └ ImageTooLarge         413
"""

# ruff: noqa: N818 -- the names are those of HTTP

from typing import ClassVar


class BackendError(Exception):
    """Root of all errors that the backend raises on purpose.

    >>> ImageTooLarge("The image has 400 megapixels, more than the limit of 150.").http_status
    413
    """

    http_status: ClassVar[int] = 500  # of the answer

    def __init_subclass__(cls, http_status: int | None = None) -> None:
        """Give a kind of error its own status; without one, it has that of its base."""
        super().__init_subclass__()
        cls.http_status = http_status or cls.http_status


class BadRequest(BackendError, http_status=400):
    """The request itself is wrong, and fails again when it is repeated."""


class LabelConfigError(BadRequest):
    """The labeling config does not parse, or has no control on an image that we draw."""


class Unauthorized(BackendError, http_status=401):
    """Basic auth is on, and the request has none or a wrong one."""


class TooManyGuesses(BackendError, http_status=429):
    """Too many wrong passwords came from the address of the client."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"Too many wrong passwords: try again in {retry_after_s} s.")
        self.retry_after_s = retry_after_s


class CrossSite(BackendError, http_status=403):
    """A browser has sent the request for a page of another site, maybe unknown to its user."""


class UnknownName(BackendError, http_status=403):
    """The backend was opened under a name that it does not know; another site may own the name."""


class PayloadTooLarge(BackendError, http_status=413):
    """The request is larger than the limit, or holds more values than its size allows."""


class ModelUnavailable(BackendError, http_status=503):
    """The model has failed to load, or the backend shuts down; the message says which."""


class Busy(BackendError, http_status=429):
    """Too much waits already: repeat the request later."""


class NotFound(BackendError, http_status=404):
    """There is no project, job, run or file of that number, or not for this token."""


class JobOver(BackendError, http_status=409):
    """A job that is over cannot be paused, resumed or cancelled."""


class WithdrawalRefused(BackendError, http_status=409):
    """The predictions of a job cannot be withdrawn: it has written none, or is not over."""


class LabelConfigChanged(BackendError, http_status=409):
    """Somebody has changed the labeling config of a project since it was read."""


class LearningRefused(BackendError, http_status=409):
    """A project's version cannot be changed: chosen by hand, or there is no other one."""


class DatabaseInUse(BackendError, http_status=409):
    """A database that a backend works with cannot be restored."""


class DatabaseAway(BackendError, http_status=503):
    """The database cannot be used now: the message says why, where that is known."""


class DatabaseRefused(BackendError, http_status=424):
    """A version before 0.2 or a newer one has made the database: this one must not write to it."""


class DatasetError(BackendError, http_status=422):
    """A data set, or a part of one, cannot be read or written; the message says which and why."""


class StudioUnreachable(BackendError, http_status=424):
    """Label Studio's API does not answer within the time for retries."""


class StudioBusy(StudioUnreachable, http_status=503):
    """Label Studio is there, but has not answered in time, or says that it has too much to do."""


class StudioRefused(BackendError, http_status=424):
    """Label Studio's API refuses a request, with an HTTP status of its own."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class AnswerTooLarge(BadRequest, http_status=424):
    """An answer of Label Studio's API is larger than is read, and will be when it is repeated."""


class TaskNotServed(BadRequest, http_status=424):
    """Label Studio fails to hand out one task, or an annotation of it, and hands out others."""


class TaskError(BackendError, http_status=422):
    """One task cannot be predicted; the other tasks of its request are."""


class TaskDeadly(TaskError):
    """The process has ended several times while it worked on the task."""


class DataKeyError(TaskError):
    """The labeling config names a data key that the task does not have."""


class ImageNotFound(TaskError):
    """There is no image at the address, or the address is of a kind that is never followed."""


class ImageRefused(TaskError, http_status=424):
    """The server of the image cannot be reached, or refuses it."""


class HostRefused(TaskError, http_status=403):
    """The image is on a host without a public address, and no administrator vouches for it."""


class ImageInvalid(TaskError):
    """The file is no image, or is truncated."""


class ImageTooLarge(TaskError, http_status=413):
    """The image is over the limit of bytes or of pixels."""
