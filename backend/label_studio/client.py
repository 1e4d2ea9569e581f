"""The projects of a Label Studio, through its API: tasks, annotations and predictions.

Label Studio may be down for a while, or busy: each call is repeated, with growing pauses, for
`retry_for_s`. A call that Label Studio refuses is an error at once.
"""

import itertools
import threading
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final, Generic, TypeVar

from backend.errors import (
    BadRequest,
    LabelConfigChanged,
    StudioRefused,
    StudioUnreachable,
    TaskNotServed,
)
from backend.label_studio.connection import Connection, RefusalError
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.records import (
    Annotation,
    BackendRow,
    IdRow,
    ImportAnswer,
    PredictionRegions,
    PredictionRow,
    ProjectRow,
    SummaryRow,
    TaskContents,
    TaskPage,
    TaskRow,
    TitlePage,
    UserRow,
    ViewRow,
    WholeTask,
)
from backend.label_studio.requests import Task
from backend.label_studio.task_filter import TaskFilter, is_any_of
from backend.settings import Settings

_T = TypeVar("_T")
_Row = TypeVar("_Row", bound=TaskRow)
_Whole = TypeVar("_Whole", TaskContents, WholeTask)
_Asking = Callable[[Sequence[int]], list[_Whole]]

#: Names annotations that an import has made: Label Studio refuses to store one of a name twice.
_NAMESPACE: Final = uuid.UUID("6d1b6c52-3d0f-5b6e-9a53-0c5b9d3c6f1e")

PAGE: Final = 100  # tasks of one request for them; each carries its data
TOGETHER: Final = 32  # of one request for all that they hold: their masks are in memory at once

#: How long a call in the background is tried again, in seconds: it outlasts a restart of Label
#: Studio. Rounds of work, and commands that are given again, go on from there.
RETRY_FOR_S: Final = 120.0

MOST_TITLES: Final = 1000  # projects whose titles are read

#: Projects of one answer: Label Studio gives no more, whatever is asked for.
_PROJECTS_AT_ONCE: Final = 100

#: How often what belongs to one task is asked for, before and after a call that succeeds.
_TASK_TRIES: Final = 3

_IDS_AT_ONCE: Final = 400  # ids of one request, which go into its address


class LabelStudioClient:
    """Reads tasks and annotations of one Label Studio, and writes its predictions.

    Any number of threads may share it. All methods raise `StudioRefused` where there is no such
    project for this token, and `StudioUnreachable` where Label Studio does not answer.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        retry_for_s: float = RETRY_FOR_S,
        timeout_s: float = 300.0,
        settings: Settings | None = None,  # for `parse_label_config`
        **options: Any,  # of the `Connection`
    ) -> None:
        self.url = url
        self._settings = settings
        self._connection = Connection(
            url, api_key, retry_for_s=retry_for_s, timeout_s=timeout_s, **options
        )
        self._writing = threading.Lock()  # or two jobs at once both find a task without one

    @classmethod
    def from_settings(cls, settings: Settings, **options: Any) -> "LabelStudioClient | None":
        """Make a client of the Label Studio that settings name; None without a token for it."""
        if settings.label_studio_url is None or settings.label_studio_api_key is None:
            return None
        key = settings.label_studio_api_key.get_secret_value()
        return cls(settings.label_studio_url, key, settings=settings, **options)

    def me(self) -> UserRow:
        """Return the user whose token this is."""
        return self._connection.get("/api/current-user/whoami", UserRow)

    def user(self) -> str:
        """Return the e-mail address of the user whose token this is."""
        return self.me().email or ""

    def has_project(self, project: int) -> bool:
        """Return whether there is such a project for this token."""
        return self._connection.find(f"/api/projects/{project}/", IdRow, include="id") is not None

    def project(self, project: int) -> ProjectRow:
        # Without their names, Label Studio counts annotations and predictions as well.
        wanted = ",".join(ProjectRow.__struct_fields__)
        return self._connection.get(f"/api/projects/{project}/", ProjectRow, include=wanted)

    def region_counts(self, project: int) -> SummaryRow:
        """Count the regions of all annotations; nothing where Label Studio cannot say."""
        with suppress(TaskNotServed):  # as of a label with half a letter
            found = self._find_of_task(f"/api/projects/{project}/summary/", SummaryRow)
            return found or SummaryRow()
        return SummaryRow()

    def label_config(self, project: int) -> str:
        """Return the labeling config of a project as XML, as it is now."""
        return self.project(project).label_config

    def config(self, project: int) -> LabelConfig:
        """Return the labeling config of a project, parsed, as it is now.

        Raises:
            LabelConfigError: it has nothing to draw.
        """
        return parse_label_config(self.label_config(project), self._settings)

    def replace_label_config(self, project: int, before: str, after: str, conflict: str) -> None:
        """Replace the labeling config of a project, unless somebody has changed it.

        Between the look and the change lies one call: Label Studio's API has no condition for it.

        Args:
            project: number of the project.
            before: the config that it should have.
            after: the one that it gets.
            conflict: sentence for people where it has another one: what happened, what to do.

        Raises:
            LabelConfigChanged: the project has another config.
        """
        if self.label_config(project) != before:
            raise LabelConfigChanged(conflict)
        self.change_project(project, {"label_config": after})

    def change_project(self, project: int, fields: Mapping[str, Any]) -> None:
        self._connection.call("PATCH", f"/api/projects/{project}/", IdRow, fields)

    def project_titles(self) -> dict[int, str]:
        """Return the titles of the newest projects, at most `MOST_TITLES`: id -> title."""
        titles: dict[int, str] = {}
        for page in range(1, MOST_TITLES // _PROJECTS_AT_ONCE + 1):
            which = {"include": "id,title", "page": page, "page_size": _PROJECTS_AT_ONCE}
            found = self._connection.get("/api/projects/", TitlePage, **which)
            titles |= {each.id: each.title or "" for each in found.results}
            if not found.results or len(titles) >= found.count:
                break
        return titles

    def user_names(self) -> dict[int, str]:
        """Return the names of people, or e-mail addresses of those without a name: id -> name."""
        return {each.id: each.name for each in self._connection.get("/api/users/", list[UserRow])}

    def backends(self, project: int) -> list[BackendRow]:
        """List the backends of a project; Label Studio calls each of them meanwhile."""
        return self._connection.get("/api/ml/", list[BackendRow], project=project)

    def save_backend(self, backend: int | None, fields: Mapping[str, Any]) -> None:
        """Connect a backend to a project; or change a connection, which has that number."""
        if backend is None:
            self._connection.call("POST", "/api/ml/", IdRow, fields)
        else:
            self._connection.call("PATCH", f"/api/ml/{backend}", IdRow, fields)  # no slash: 404

    def count(self, project: int, wanted: TaskFilter) -> int:
        """Count the tasks of a project that pass a filter."""
        return sum(
            self._page(project, 1, query=replace(wanted, ids=some).query())[1]
            for some in _split(wanted.ids)
        )

    def tasks(self, project: int, wanted: TaskFilter, size: int = PAGE) -> list[Task]:
        """List the first tasks of a project that pass a filter, at most `size`, by ascending id."""
        if wanted.ids is not None and not wanted.ids:
            return []  # Label Studio takes an empty list of ids for all tasks
        return self._page(project, size, query=wanted.query())[0]

    def ids(self, project: int, wanted: TaskFilter) -> Iterator[int]:
        """Iterate over the ids of all tasks that pass a filter, see `all_tasks`."""
        for task in self.all_tasks(project, wanted):
            yield int(task.id or 0)

    def all_tasks(self, project: int, wanted: TaskFilter) -> Iterator[Task]:
        """Iterate over all tasks that pass a filter, by ascending id, as its own ids have to be.

        Each page is asked for when the tasks of the one before it are taken.
        """
        for some in _split(wanted.ids):
            for rows in self.pages(project, replace(wanted, ids=some)):
                yield from (Task(row.id, project, row.data) for row in rows)

    def pages(self, project: int, wanted: TaskFilter) -> Iterator[list[TaskRow]]:
        """List the tasks that pass a filter page by page, in the order of their ids.

        Label Studio takes 4 ms for each, however large the project is: it loads what they hold.
        """
        while rows := self._list(project, PAGE, query=wanted.query()).tasks:
            yield rows
            if len(rows) < PAGE:
                return
            wanted = replace(wanted, after_id=rows[-1].id)

    def versioned(self, project: int, version: str, tasks: tuple[int, ...]) -> dict[int, bool]:
        """Find tasks with a version, or with one whose name holds it: whether they have the first.

        Label Studio looks for parts of names, and cuts a long list of versions.
        """
        found: dict[int, bool] = {}
        for some in _split(tasks):
            for rows in self.pages(project, TaskFilter(ids=some, with_version=version)):
                found |= {row.id: version in row.versions for row in rows}
        for task in [task for task, has_it in found.items() if not has_it]:
            found[task] = any(each.version == version for each in self.stored(task))
        return found

    def possible_doubles(self, project: int) -> Iterator[list[int]]:
        """Yield pages of tasks without a draft that may have several predictions of one version.

        Label Studio lists the number of a task's predictions and their versions, but not how many
        there are of each. It names the versions where the query does: the empty one is in all.
        """
        wanted = TaskFilter(with_version="", min_predictions=2, drafted=False)
        for rows in self.pages(project, wanted):
            yield [row.id for row in rows if (row.total_predictions or 0) > len(row.versions)]

    def view_rows(self, project: int, view: int) -> list[TaskRow]:
        """List the tasks in a view of the data manager, in the order of their ids."""
        found: dict[int, TaskRow] = {}
        for page in itertools.count(1):
            rows, total = self.listed(project, page, view, TaskFilter(), kind=TaskRow)
            found |= {row.id: row for row in rows}
            if not rows or page * PAGE >= total:
                break
        return [found[id_] for id_ in sorted(found)]

    def listed(
        self,
        project: int,
        page: int,
        view: int | None,
        wanted: TaskFilter,
        *,
        kind: type[_Row],
        size: int = PAGE,
    ) -> tuple[list[_Row], int]:
        """List a page of the tasks that pass a filter or are in a view, in the order of either.

        Returns:
            At most `size` tasks, and how many there are on all pages; pages count from 1.
        """
        which = {"query": wanted.query()} if view is None else {"view": view}
        found = self._list_as(kind, project, size, page, **which)
        return found.tasks, found.total

    def show_tasks(
        self, project: int, title: str, tasks: Collection[int], order: str = "tasks:id"
    ) -> int:
        """List tasks in a view of the data manager, in place of one of that title; return its id.

        Ids that follow each other take one condition together; of more than 500 the first are
        shown.
        """
        filters = {"conjunction": "or", "items": is_any_of(tasks)}
        data = {"title": title, "type": "list", "target": "tasks", "ordering": [order]}
        body = {"project": project, "data": {**data, "filters": filters}}

        def attempt() -> int:
            """List first, so that a view whose answer was lost is not made twice."""
            send, place = self._connection.send, "/api/dm/views/"
            for each in send("GET", place, list[ViewRow], project=project):
                if (each.data or {}).get("title") == title:
                    return send("PATCH", f"{place}{each.id}/", ViewRow, body).id
            return send("POST", place, ViewRow, body).id

        return self._connection.repeat(attempt)

    def stored(self, task: int) -> list[PredictionRow]:
        """List the predictions of a task, the oldest first; none where the task is gone."""
        # A choice that its filter does not know, such as a task that is gone, is HTTP 400 there.
        place, kind = "/api/predictions/", list[PredictionRow]
        found = self._find_of_task(place, kind, gone=(400, 404), task=task)
        return sorted(found or (), key=lambda each: each.id)

    def task(self, project: int, task: int) -> Task | None:
        """Return one task; None where it is gone."""
        return next(iter(self.tasks(project, TaskFilter(ids=(task,)), size=1)), None)

    def annotation(self, annotation: int) -> Annotation | None:
        """Return one annotation; None where it is gone."""
        return self._find_of_task(f"/api/annotations/{annotation}/", Annotation)

    def annotations(self, task: int) -> list[Annotation]:
        """Return the annotations of a task with their regions; none of a deleted task."""
        return self._find_of_task(f"/api/tasks/{task}/annotations/", list[Annotation]) or []

    def contents(self, task: int) -> TaskContents | None:
        """Return what a task holds, skips included; None where it is gone."""
        return self._find_of_task(f"/api/tasks/{task}/", TaskContents)

    def whole_tasks(self, project: int, ids: Sequence[int], kind: type[_T]) -> list[_T]:
        """Return what some tasks hold, `WholeTask` or less, by one request; none of deleted ones.

        Raises:
            TaskNotServed: one of them cannot be served.
            AnswerTooLarge: they hold too much.
        """
        which = {"project": project, "page_size": len(ids), "fields": "all", "resolve_uri": "false"}
        page, query = TaskPage[kind], TaskFilter(ids=tuple(ids)).query()  # type: ignore[valid-type]
        found = self._find_of_task("/api/tasks/", page, query=query, **which)
        return found.tasks if found else []

    def annotation_times(self, project: int, task: int) -> dict[int, float]:
        """Return the time of each annotation's last change, of a task that is not served whole.

        It is 0 for one that Label Studio cannot serve alone, either.
        """
        query = TaskFilter(annotation_ids=True, ids=(task,)).query()
        rows = self._list(project, 1, query=query).tasks
        ids = [int(id_) for row in rows for id_ in (row.annotations_ids or "").split(",") if id_]
        times = dict.fromkeys(ids, 0.0)
        for id_ in ids:
            with suppress(BadRequest):
                found = self.annotation(id_)
                times[id_] = found.updated if found else 0.0
        return times

    def newest_change(self, project: int) -> tuple[float, int, int]:
        """Return the time of a project's newest change, and how many tasks and predictions it has.

        Predictions that are imported change that number alone.
        """
        page = self._list(project, 1, query=TaskFilter(order="-tasks:updated_at").query())
        newest = max((row.updated for row in page.tasks), default=0.0)
        return newest, page.total, page.total_predictions

    def changed_tasks(self, project: int, since: float) -> Iterator[list[TaskRow]]:
        """List the tasks that were changed after a time, page by page, by ascending id.

        Label Studio sets the time of a task's last change also where an annotation of it is
        submitted, changed, deleted or turned into a draft. It tells nothing of a deleted task.

        `since` is in seconds on Label Studio's clock.
        """
        return self.pages(project, TaskFilter(changed_after=since))

    def annotated_tasks(self, project: int) -> Iterator[list[TaskRow]]:
        """List the tasks with an annotation page by page, the newest first, then those skipped."""
        for wanted in (TaskFilter(labeled=True), TaskFilter(labeled=False, skipped=True)):
            yield from self.pages(project, replace(wanted, descending=True))

    def rows(self, project: int, tasks: tuple[int, ...]) -> Iterator[TaskRow]:
        """Iterate over those of some tasks that are there still."""
        for some in filter(None, _split(tasks)):
            yield from self._list(project, len(some), query=TaskFilter(ids=some).query()).tasks

    def prediction(self, prediction: int) -> PredictionRegions | None:
        """Return the regions of one prediction; None where it is gone."""
        return self._find_of_task(f"/api/predictions/{prediction}/", PredictionRegions)

    def write_predictions(
        self, project: int, version: str, entries: Mapping[int, Mapping[str, Any]]
    ) -> dict[int, str]:
        """Store predictions of many tasks, but not of those that have one of that version.

        A request whose answer was lost may have been stored: before each try, Label Studio is asked
        for the tasks that lack a prediction. Return the tasks of refused predictions, with the
        reasons.
        """

        def missing() -> list[int]:
            has_it = self.versioned(project, version, tuple(entries))
            return [row.id for row in self.rows(project, tuple(entries)) if not has_it.get(row.id)]

        def attempt() -> bool:
            tasks = missing()
            return not tasks or self._import(project, entries, tasks) == len(tasks)

        with self._writing:
            if self._connection.repeat(attempt):
                return {}
            # A request that is refused stores nothing, and names one broken entry at most.
            refused = {task: self._create(task, entries[task]) for task in missing()}
        return {task: reason for task, reason in refused.items() if reason}

    def _import(
        self, project: int, entries: Mapping[int, Mapping[str, Any]], tasks: Sequence[int]
    ) -> int:
        """Send predictions, in halves where they are too large; return how many were stored."""
        body = [{"task": task, **entries[task]} for task in tasks]
        try:
            path = f"/api/projects/{project}/import/predictions"
            return self._connection.send("POST", path, ImportAnswer, body).created
        except RefusalError as error:
            if error.status == 413 and len(tasks) > 1:
                half = len(tasks) // 2
                return sum(self._import(project, entries, t) for t in (tasks[:half], tasks[half:]))
            if error.status in (400, 413):
                return 0
            raise

    def _create(self, task: int, entry: Mapping[str, Any]) -> str:
        """Store one prediction; return the reason where Label Studio refuses it, else nothing."""
        try:
            self._connection.call("POST", "/api/predictions/", IdRow, {"task": task, **entry})
        except StudioRefused as error:
            return str(error)
        return ""

    def write_annotation(self, task: int, version: str, result: Sequence[Any]) -> str:
        """Store an annotation of a task; return why Label Studio refuses it, else nothing.

        One that an import of that version has stored already is no error.
        """
        unique = str(uuid.uuid5(_NAMESPACE, f"{task}/{version}"))
        body = {"result": list(result), "unique_id": unique}
        try:
            self._connection.call("POST", f"/api/tasks/{task}/annotations/", IdRow, body)
        except StudioRefused as error:
            # A request whose answer was lost may have been stored.
            return "" if error.status == 409 else str(error)
        return ""

    def write_review(
        self,
        task: int,
        prediction: PredictionRegions,
        seconds: float,
        repaired: Sequence[Mapping[str, Any]] | None = None,
    ) -> int:
        """Store a prediction as the annotation of whose token this is, see `is_reviewed`.

        Args:
            task: number of the task.
            prediction: the prediction that was accepted.
            seconds: of work.
            repaired: its regions with their marks, where a repair has changed them; None: they are
                those of the prediction.

        Returns:
            The id of the annotation.

        Raises:
            StudioRefused: Label Studio refuses it; by HTTP 409 where it has it already.
        """
        mark = {"origin": "prediction", "source": "review"}
        as_predicted = [{**each, **mark} for each in prediction.regions if isinstance(each, dict)]
        result = as_predicted if repaired is None else [*repaired]
        body = {
            "result": result,
            "bulk_created": not result,
            "parent_prediction": prediction.id,
            "lead_time": seconds,
            "unique_id": str(uuid.uuid5(_NAMESPACE, f"review {task}/{prediction.id}")),
        }
        return self._connection.call("POST", f"/api/tasks/{task}/annotations/", IdRow, body).id

    def delete_annotation(self, annotation: int) -> None:
        """Delete an annotation; one that is gone already is no error."""
        self._connection.find(f"/api/annotations/{annotation}/", IdRow, method="DELETE")

    def delete(self, prediction: int) -> None:
        """Delete a prediction; one that is gone already is no error.

        Raises:
            TaskNotServed: Label Studio fails again, though it is there.
        """
        path = f"/api/predictions/{prediction}/"
        for _ in range(2):
            try:
                self._connection.find(path, IdRow, method="DELETE", most_tries=_TASK_TRIES)
            except StudioUnreachable as error:
                self.user()  # waits where Label Studio is away
                reason = str(error)
            else:
                return
        raise TaskNotServed(f"The prediction {prediction} cannot be deleted. {reason}")

    def _find_of_task(self, path: str, kind: type[_T], **more: Any) -> _T | None:
        """Return what Label Studio has of one task; None where it is gone.

        Raises:
            TaskNotServed: it fails again, though others can be read, as by half a letter.
        """
        for _ in range(2):
            try:
                return self._connection.find(path, kind, most_tries=_TASK_TRIES, **more)
            except (StudioRefused, StudioUnreachable) as error:
                self.user()  # waits where Label Studio is away
                reason = str(error)
        raise TaskNotServed(f"It cannot be read, though others can. {reason}")

    def _page(self, project: int, size: int, page: int = 1, **which: Any) -> tuple[list[Task], int]:
        """List one page of tasks, and count the tasks of all pages."""
        listed = self._list(project, size, page, **which)
        return [Task(row.id, project, row.data) for row in listed.tasks], listed.total

    def _list(self, project: int, size: int, page: int = 1, **which: Any) -> TaskPage[TaskRow]:
        """List one page of tasks, all or those of a ``query`` or a ``view``."""
        return self._list_as(TaskRow, project, size, page, **which)

    def _list_as(
        self, kind: type[_Row], project: int, size: int, page: int, **which: Any
    ) -> TaskPage[_Row]:
        which |= {"project": project, "page": page, "page_size": size}
        given = {"fields": "task_only" if kind is TaskRow else "all", "resolve_uri": "false"}
        return self._connection.get("/api/tasks/", TaskPage[kind], **which, **given)  # type: ignore[valid-type]


class TasksTogether(Generic[_Whole]):
    """Tasks that are asked for some at a time, by the thread that takes one of them first.

    That takes Label Studio a sixth of what the tasks one by one do. They are taken in their order.
    """

    def __init__(
        self, client: LabelStudioClient, project: int, ids: Sequence[int], kind: type[_Whole]
    ) -> None:
        self._ask: _Asking[_Whole] = partial(client.whole_tasks, project, kind=kind)
        self._left = list(dict.fromkeys(ids))
        self._found: dict[int, _Whole] = {}
        self._lock = threading.Lock()

    def take(self, task: int) -> _Whole | None:
        """Return what a task holds; None where it is gone, see `whole_tasks`."""
        with self._lock:
            while task in self._left:
                ids, self._left = self._left[:TOGETHER], self._left[TOGETHER:]
                with suppress(BadRequest):  # one is broken or too large: each is asked for then
                    self._found |= {each.id: each for each in self._ask(ids)}
            found = self._found.pop(task, None)
        return found or next(iter(self._ask((task,))), None)


def _split(ids: tuple[int, ...] | None) -> list[tuple[int, ...] | None]:
    """Split ids into tuples that the address of one request can hold; None stays."""
    if ids is None:
        return [None]
    return [ids[start : start + _IDS_AT_ONCE] for start in range(0, len(ids), _IDS_AT_ONCE)]


def token_sentence(use: str) -> str:
    """Return the sentence that asks for the address of Label Studio and a token for it.

    >>> token_sentence("Tasks are read from Label Studio")
    'Tasks are read from Label Studio: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY.'
    """
    return f"{use}: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY."


def required_client(client: LabelStudioClient | None, use: str) -> LabelStudioClient:
    """Return the client; a `BadRequest` where there is none, for lack of a token."""
    if client is None:
        raise BadRequest(token_sentence(use))
    return client
