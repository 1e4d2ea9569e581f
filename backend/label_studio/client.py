"""Projects on Label Studio, through its SDK: what is there to predict, and where it is written.

Label Studio may be down for a while, or busy: each call is tried again, with growing pauses, for
`retry_for_s`. What it refuses for good is an error at once.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

import httpx
from label_studio_sdk.client import LabelStudio
from label_studio_sdk.core.api_error import ApiError
from label_studio_sdk.core.request_options import RequestOptions
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_delay,
    stop_any,
    stop_when_event_set,
    wait_exponential_jitter,
)

from backend.errors import StudioRefused, StudioUnreachable
from backend.label_studio.records import (
    Annotation,
    PredictionRegions,
    StoredPrediction,
    read_annotation,
)
from backend.label_studio.requests import Task
from backend.label_studio.task_filter import TaskFilter
from backend.label_studio.tokens import token_kind
from backend.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Tasks of one request for them; each carries its data.
PAGE: Final = 100

#: Ids of one request, which go into its address.
_IDS_AT_ONCE: Final = 400

_LONGEST_PAUSE_S: Final = 30.0
_NO_RETRIES: Final[RequestOptions] = {"max_retries": 0}  # we try again ourselves

_AGAIN: Final = (408, 425, 429, 500, 502, 503, 504)


class LabelStudioClient:
    """The projects of one Label Studio.

    Args:
        url: its address.
        api_key: a legacy or a personal token for it.
        patience_s: how long a call is tried again, in seconds.
        timeout_s: longest wait for one answer.
        first_pause_s: before the second try; each pause is about twice the last, 30 s at most.
        stopping: once it is set, nothing is tried again.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        retry_for_s: float = 600.0,
        timeout_s: float = 120.0,
        first_pause_s: float = 0.5,
        stopping: threading.Event | None = None,
    ) -> None:
        self.url = url
        self._api_key = api_key
        self._patience_s = retry_for_s
        self._timeout_s = timeout_s
        self._first_pause_s = first_pause_s
        self._stopping = stopping or threading.Event()
        self._made: LabelStudio | None = None

    @classmethod
    def from_settings(cls, settings: Settings, **options: Any) -> LabelStudioClient | None:
        """Those of the Label Studio that settings name; None where they hold no token for one."""
        if settings.label_studio_url is None or settings.label_studio_api_key is None:
            return None
        key = settings.label_studio_api_key.get_secret_value()
        return cls(settings.label_studio_url, key, **options)

    def label_config(self, project: int) -> str:
        """The labeling config of a project, as it is now.

        Raises:
            StudioRefused: there is no such project for this token.
            StudioUnreachable: Label Studio does not answer.
        """
        return str(
            self._ask(
                lambda client: client.projects.get(id=project, request_options=_NO_RETRIES)
            ).label_config
        )

    def count(self, project: int, wanted: TaskFilter) -> int:
        """How many tasks there are.

        Raises:
            StudioRefused: there is no such project for this token.
            StudioUnreachable: Label Studio does not answer.
        """
        if wanted.ids is None:
            return self._page(project, 1, query=wanted.query())[1]
        return sum(
            self._page(project, 1, query=replace(wanted, ids=some).query())[1]
            for some in _some(wanted.ids)
        )

    def tasks(self, project: int, wanted: TaskFilter, size: int = PAGE) -> list[Task]:
        """The first tasks, in the order of their ids.

        Raises:
            StudioRefused: there is no such project for this token.
            StudioUnreachable: Label Studio does not answer.
        """
        if wanted.ids is not None and not wanted.ids:
            return []  # Label Studio would take none for all
        return self._page(project, size, query=wanted.query())[0]

    def ids(
        self, project: int, wanted: TaskFilter, among: Sequence[int] | None = None
    ) -> Iterator[int]:
        """The ids of all tasks that are wanted, in ascending order, asked for as they are taken.

        Args:
            project: its id.
            wanted: which tasks.
            among: only these, in ascending order; None for all.
        """
        for some in _some(among) if among is not None else [None]:
            after = wanted.after_id
            while tasks := self.tasks(project, replace(wanted, ids=some, after_id=after)):
                yield from (int(task.id or 0) for task in tasks)
                after = int(tasks[-1].id or 0)

    def possible_duplicates(
        self, project: int, version: str, among: Sequence[int] | None = None
    ) -> Iterator[list[int]]:
        """Tasks that may have several predictions of one version, as far as a list of tasks tells.

        Args:
            project: its id.
            version: the ``model_version``.
            among: only these, in ascending order; None for all.

        Returns:
            Ids in ascending order, page by page; a page may have none.
        """
        for some in _some(among) if among is not None else [None]:
            wanted: TaskFilter | None = TaskFilter(
                with_version=version, min_predictions=2, ids=some
            )
            while wanted is not None:
                rows, _ = self._rows(project, PAGE, query=wanted.query())
                yield [int(row.id) for row in rows if _is_crowded(row)]
                wanted = replace(wanted, after_id=int(rows[-1].id)) if rows else None

    def view_ids(self, project: int, view: int) -> list[int]:
        """The ids of the tasks that a view of the data manager shows, in ascending order.

        Raises:
            StudioRefused: there is no such view in the project.
            StudioUnreachable: Label Studio does not answer.
        """
        found: list[int] = []
        total, page = 1, 1
        while len(found) < total:
            tasks, total = self._page(project, PAGE, view=view, page=page)
            if not tasks:
                break
            found += [task.id for task in tasks if isinstance(task.id, int)]
            page += 1
        return sorted(set(found))

    def write(
        self, project: int, version: str, entries: Mapping[int, Mapping[str, Any]]
    ) -> dict[int, str]:
        """Store predictions, in one request; those of tasks that have one of that version are not.

        Where an answer was lost, Label Studio is asked what it has stored before all is sent again.

        Args:
            project: its id.
            version: their ``model_version``.
            entries: task id -> prediction.

        Returns:
            The tasks whose prediction Label Studio does not take, and why.

        Raises:
            StudioRefused: the token may not write there.
            StudioUnreachable: Label Studio does not answer.
        """

        def attempt() -> bool:
            missing = self._lacking(project, version, entries)
            return not missing or self._import(project, entries, missing) == len(missing)

        if self._patiently(attempt):
            return {}
        missing = self._lacking(project, version, entries)  # something is wrong with some of them
        refused = {task: self._create(task, entries[task]) for task in missing}
        return {task: reason for task, reason in refused.items() if reason}

    def stored(self, task: int) -> list[StoredPrediction]:
        """The predictions that a task has, the oldest first.

        Raises:
            StudioUnreachable: Label Studio does not answer.
        """
        found = self._ask(
            lambda client: client.predictions.list(task=task, request_options=_NO_RETRIES)
        )
        all_ = (
            StoredPrediction(each.id, task, each.model_version or "", each.created_at.timestamp())
            for each in found
        )
        return sorted(all_, key=lambda each: each.id)

    def task(self, project: int, task: int) -> Task | None:
        """One task; None where it is gone.

        Raises:
            StudioRefused: there is no such project for this token.
            StudioUnreachable: Label Studio does not answer.
        """
        return next(iter(self.tasks(project, TaskFilter(ids=(task,)), size=1)), None)

    def annotation(self, annotation: int) -> Annotation | None:
        """One annotation; None where it is gone.

        Raises:
            StudioRefused: the token may not see it.
            StudioUnreachable: Label Studio does not answer.
        """
        found = self._find(
            lambda client: client.annotations.get(id=annotation, request_options=_NO_RETRIES)
        )
        return None if found is None else read_annotation(found)

    def annotation_ids(self, task: int) -> list[int]:
        """The ids of a task's annotations; none where it is gone.

        Raises:
            StudioRefused: the token may not see it.
            StudioUnreachable: Label Studio does not answer.
        """
        found = self._find(
            lambda client: client.annotations.list(id=task, request_options=_NO_RETRIES)
        )
        return sorted(int(each.id) for each in found or () if each.id is not None)

    def prediction(self, prediction: int) -> PredictionRegions | None:
        """One prediction; None where it is gone.

        Raises:
            StudioRefused: the token may not see it.
            StudioUnreachable: Label Studio does not answer.
        """
        found = self._find(
            lambda client: client.predictions.get(id=prediction, request_options=_NO_RETRIES)
        )
        return (
            None
            if found is None
            else PredictionRegions(found.model_version or "", found.result or ())
        )

    def delete(self, prediction: int) -> None:
        """Remove a prediction; one that is gone already is no error.

        Raises:
            StudioRefused: the token may not remove it.
            StudioUnreachable: Label Studio does not answer.
        """
        self._find(
            lambda client: client.predictions.delete(id=prediction, request_options=_NO_RETRIES)
        )

    # ---- inside ------------------------------------------------------------------------------

    def _page(self, project: int, size: int, page: int = 1, **which: Any) -> tuple[list[Task], int]:
        """One page of tasks, and how many there are in all."""
        rows, total = self._rows(project, size, page, **which)
        return [Task(row.id, project, row.data or {}) for row in rows], total

    def _rows(self, project: int, size: int, page: int = 1, **which: Any) -> tuple[list[Any], int]:
        """The same as the SDK has read it."""

        def ask(client: LabelStudio) -> Any:
            return client.tasks.list(
                project=project,
                fields="task_only",
                resolve_uri=False,
                page=page,
                page_size=size,
                request_options=_NO_RETRIES,
                **which,
            )

        answer = self._ask(ask)
        return list(answer.items or ()), int(answer.response.total)

    def _lacking(self, project: int, version: str, ids: Iterable[int]) -> list[int]:
        """Those of the tasks that are there, and have no prediction of that version."""
        wanted = TaskFilter(without_version=version, ids=tuple(ids))
        found = self.tasks(project, wanted, size=max(1, len(wanted.ids or ())))
        return [task.id for task in found if isinstance(task.id, int)]

    def _import(
        self, project: int, entries: Mapping[int, Mapping[str, Any]], tasks: Sequence[int]
    ) -> int:
        """Send predictions, in parts where they are too large; how many Label Studio has stored."""
        body = [{"task": task, **entries[task]} for task in tasks]
        try:
            answer = self._client().projects.import_predictions(
                project, request=body, request_options=_NO_RETRIES
            )
        except ApiError as error:
            if error.status_code == 413 and len(tasks) > 1:
                half = len(tasks) // 2
                return sum(self._import(project, entries, t) for t in (tasks[:half], tasks[half:]))
            if error.status_code in (400, 413):  # it names one of them only, and has stored none
                return 0
            raise
        return int(answer.created or 0)

    def _create(self, task: int, entry: Mapping[str, Any]) -> str:
        """Send one prediction; why Label Studio does not take it, or nothing where it does."""
        try:
            self._ask(
                lambda client: client.predictions.create(
                    task=task, request_options=_NO_RETRIES, **entry
                )
            )
        except StudioRefused as error:
            return str(error)
        return ""

    def _client(self) -> LabelStudio:
        made = self._made  # another thread may drop it meanwhile
        if made is None:
            made = self._made = connect(self.url, self._api_key, self._timeout_s)
        return made

    def _ask(self, ask: Callable[[LabelStudio], T]) -> T:
        """What Label Studio answers to a question that may be put more than once."""
        return self._patiently(lambda: ask(self._client()))

    def _find(self, ask: Callable[[LabelStudio], T]) -> T | None:
        """Likewise; None where there is no such thing."""
        try:
            return self._ask(ask)
        except StudioRefused as error:
            if error.status != 404:
                raise
            return None

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """Try until it succeeds, is refused for good, or patience ends."""
        tries = Retrying(
            retry=retry_if_exception(_may_pass),
            wait=wait_exponential_jitter(
                self._first_pause_s, max=_LONGEST_PAUSE_S, jitter=self._first_pause_s
            ),
            stop=stop_any(stop_after_delay(self._patience_s), stop_when_event_set(self._stopping)),
            sleep=sleep_using_event(self._stopping),
            before_sleep=self._tell,
            reraise=True,
        )
        try:
            return tries(lambda: self._renewing(attempt))
        except ApiError as error:
            if _may_pass(error):
                raise self._unreachable(f"answers HTTP {error.status_code}") from None
            raise StudioRefused(_sentence(self.url, error), error.status_code or 0) from None
        except httpx.TransportError as error:
            raise self._unreachable(f"cannot be reached ({type(error).__name__})") from None
        except json.JSONDecodeError:
            raise self._unreachable("answers what is no JSON") from None

    def _renewing(self, attempt: Callable[[], T]) -> T:
        """Try once more with a new access token, where the last one may just have ended."""
        try:
            return attempt()
        except ApiError as error:
            if error.status_code != 401 or token_kind(self._api_key) != "personal":
                raise
            self._made = None
            return attempt()

    def _unreachable(self, what: str) -> StudioUnreachable:
        return StudioUnreachable(f"Label Studio at {self.url} {what}.")

    def _tell(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        told = f"HTTP {error.status_code}" if isinstance(error, ApiError) else type(error).__name__
        pause_s = state.next_action.sleep if state.next_action else 0
        log.warning("Label Studio at %s: %s; next try in %.1f s", self.url, told, pause_s)


def connect(url: str, api_key: str, timeout_s: float) -> LabelStudio:
    """The SDK's client; a redirect is refused by it, which would take the token along.

    Args:
        url: address of Label Studio.
        api_key: a legacy or a personal token for it.
        timeout_s: longest wait for one answer.
    """

    def refuse_redirects(response: httpx.Response) -> None:
        if response.has_redirect_location:
            place = response.headers["Location"].partition("?")[0]
            raise StudioRefused(
                f"Label Studio at {url} redirects to {place[:200]}: set LABEL_STUDIO_URL to the "
                "address at which it answers itself.",
                response.status_code,
            )

    hooks = {"response": [refuse_redirects]}
    client = httpx.Client(timeout=timeout_s, follow_redirects=False, event_hooks=hooks)
    return LabelStudio(base_url=url, api_key=api_key, httpx_client=client)


def _some(ids: Sequence[int]) -> list[tuple[int, ...]]:
    """Ids in lists that one address can hold."""
    return [tuple(ids[start : start + _IDS_AT_ONCE]) for start in range(0, len(ids), _IDS_AT_ONCE)]


def _is_crowded(row: Any) -> bool:
    """Whether a task has more predictions than versions of them, or nobody can say."""
    versions = [each for each in (row.predictions_model_versions or "").split(",") if each]
    return int(row.total_predictions or 0) > len(versions)


def _may_pass(error: BaseException) -> bool:
    """Whether the same call may succeed later."""
    if isinstance(error, ApiError):
        return error.status_code in _AGAIN
    # A proxy may answer in HTML where a token is renewed, which the SDK takes for JSON.
    return isinstance(error, httpx.TransportError | json.JSONDecodeError)


def _sentence(url: str, error: ApiError) -> str:
    """What Label Studio has refused, as it says so itself; never longer than a line or two."""
    body = error.body if isinstance(error.body, dict) else {}
    detail = body.get("validation_errors") or body.get("detail") or ""
    if error.status_code in (401, 403):
        detail = "check LABEL_STUDIO_API_KEY"
    elif error.status_code == 404:
        detail = "there is no such project, view or task for this token"
    elif error.status_code == 413:
        detail = "larger than it takes, or a proxy before it (nginx: client_max_body_size)"
    return f"Label Studio at {url} answers HTTP {error.status_code}: {detail}"[:400]
