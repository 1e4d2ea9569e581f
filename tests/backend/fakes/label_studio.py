"""A stand-in for Label Studio's API, as the real one was seen to answer; see tests/e2e for that."""

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import count
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.backend.fakes.local_server import Answer, Asked, LocalServer

TOKEN = "ab" * 20


@dataclass
class FakeStudio:
    """One project, its tasks (id -> data), their predictions and annotations (id -> annotation)."""

    label_config: str
    tasks: dict[int, dict[str, Any]]
    project: int = 7
    #: ids of tasks with an annotation; those of `annotations` have one too.
    annotated: set[int] = field(default_factory=set)
    overlap: int = 1  # people whose annotations finish a task
    overlap_percent: float = 100.0  # of the tasks, those that need so many; others need one
    refused: set[int] = field(default_factory=set)  # ids of tasks whose predictions are not taken
    views: dict[int, list[int]] = field(default_factory=dict)
    #: id -> what a view of the data manager was made of.
    tabs: dict[int, dict[str, Any]] = field(default_factory=dict)
    token: str = TOKEN
    #: called with each request; what it returns is the answer.
    fault: Callable[[Asked], Answer | None] = lambda _: None
    late: int = 0  # predictions are stored, and then the answer is an error, so many times
    predictions: list[dict[str, Any]] = field(default_factory=list)
    imports: list[int] = field(default_factory=list)
    annotations: dict[int, dict[str, Any]] = field(default_factory=dict)
    backends: list[dict[str, Any]] = field(default_factory=list)
    drafted: set[int] = field(default_factory=set)
    #: project -> its title, for lists of projects; its own is listed without one as well.
    titles: dict[int, str] = field(default_factory=dict)
    #: path -> content of the files that it hands out.
    files: dict[str, bytes] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.RLock)
    now: float = 1e9  # its clock: the time of the last change, in seconds since the epoch
    #: what it tells of its users; None refuses to.
    users: list[dict[str, Any]] | None = field(default_factory=list)
    #: task -> when it was created; 0 where it is not here.
    made: dict[int, float] = field(default_factory=dict)
    #: task -> when it, or an annotation of it, was changed last; else when it was made.
    changed: dict[int, float] = field(default_factory=dict)
    shows: str = ""  # whose predictions the project shows; empty until somebody chooses
    sampling: str = "Sequential sampling"  # the order of its tasks
    _ids: Iterator[int] = field(default_factory=lambda: count(1))

    def served(self) -> LocalServer:
        return LocalServer(self.answer)

    def stored(self, version: str | None = None) -> Counter[int]:
        """Task -> how many predictions it has, of one version or of all."""
        return Counter(
            each["task"] for each in self.predictions if version in (None, each["model_version"])
        )

    def add(self, task: int, version: str, created: float = 0.0, result: Sequence[Any] = ()) -> int:
        at, id_ = _at(created), next(self._ids)
        prediction = {"id": id_, "task": task, "model_version": version, "result": list(result)}
        self.predictions.append(prediction | {"created_at": at, "updated_at": at, "score": 0.5})
        return id_

    def annotate(
        self, task: int, result: Sequence[Any], created: float = 0.0, **more: Any
    ) -> dict[str, Any]:
        id_ = next(self._ids)
        made = {"id": id_, "task": task, "project": self.project, "result": list(result)}
        made |= {"parent_prediction": None, "parent_annotation": None, "was_cancelled": False}
        made |= {"lead_time": 10.0, "completed_by": 1, "created_at": _at(created)}
        self.annotations[id_] = made | {"updated_at": made["created_at"]} | more
        self.touch(task)
        return self.annotations[id_]

    def touch(self, task: int, after_s: float = 1.0) -> float:
        """Let its clock go on, and a task have been changed now; the value is the time."""
        self.now += after_s
        self.changed[task] = self.now
        return self.now

    def create(self, data: dict[str, Any]) -> int:
        """Let the project have a new task; the value is its id."""
        task = max(self.tasks, default=0) + 1
        self.tasks[task] = data
        self.made[task] = self.touch(task)
        return task

    def update(self, annotation: int, **more: Any) -> None:
        found = self.annotations[annotation]
        found |= more | {"updated_at": _at(self.touch(found["task"]))}

    def remove(self, annotation: int) -> None:
        """Let an annotation be deleted, or turned into a draft: the API shows no difference."""
        self.touch(self.annotations.pop(annotation)["task"])

    def answer(self, asked: Asked) -> Answer:
        faulty = self.fault(asked)
        if faulty is not None:
            return faulty
        if asked.authorization != f"Token {self.token}":
            return _json({"detail": "Invalid token."}, 401)
        url = urlsplit(asked.path)
        given = {key: values[0] for key, values in parse_qs(url.query).items()}
        with self.lock:
            return self._route(asked, url.path.rstrip("/"), given)

    def _route(self, asked: Asked, path: str, given: dict[str, str]) -> Answer:
        if path == "/api/current-user/whoami":
            return _json({"id": 1, "email": "ann@example.com"})
        if path == f"/api/projects/{self.project}" and asked.method == "PATCH":
            return self._change(json.loads(asked.body))
        if path == f"/api/projects/{self.project}":
            row = {"id": self.project, "title": self.titles.get(self.project, "")}
            row |= {"task_number": len(self.tasks), "label_config": self.label_config}
            row |= {"maximum_annotations": self.overlap}
            row |= {"overlap_cohort_percentage": self.overlap_percent}
            return _json(row | {"model_version": self.shows})
        if path == f"/api/projects/{self.project}/summary":
            return _json(self._summary())
        if path == "/api/projects" and given["include"] == "id,title":
            titles = {self.project: ""} | self.titles
            found = [{"id": each, "title": title} for each, title in titles.items()]
            size = min(int(given["page_size"]), 100)  # and no more, as the real one
            begin = (int(given.get("page", 1)) - 1) * size
            shown = found[begin : begin + size]
            return _json({"count": len(found), "next": None, "previous": None, "results": shown})
        if path == f"/api/projects/{self.project}/import/predictions":
            return self._import(json.loads(asked.body))
        if path == "/api/users":
            if self.users is None:
                return _json({"detail": "You do not have permission."}, 403)
            return _json(self.users)
        if asked.method == "PATCH" and asked.path == f"{path}/" and path.startswith("/api/ml/"):
            return Answer(404, body=b"<html>Not Found</html>")  # as seen: with a slash it is none
        if path.startswith("/api/ml") and asked.method in ("POST", "PATCH"):
            return self._save_backend(path, json.loads(asked.body))
        if path == "/api/ml" and given["project"] == str(self.project):
            return _json(self.backends)
        if path == "/api/tasks" and given["project"] == str(self.project):
            return self._tasks(given)
        if path == "/api/predictions" and asked.method == "GET":
            if int(given["task"]) not in self.tasks:  # as seen: a filter that names no object
                return _json({"detail": {"task": ["Select a valid choice."]}}, 400)
            return _json([p for p in self.predictions if str(p["task"]) == given["task"]])
        if path == "/api/predictions" and asked.method == "POST":
            body = json.loads(asked.body)
            if body["task"] in self.refused:
                return _json({"detail": "Validation error", "validation_errors": "no label"}, 400)
            self.add(body["task"], body["model_version"])
            return _json(self.predictions[-1], 201)
        if path.startswith("/api/dm/views"):
            return self._view(asked, path)
        if path in self.files:
            return Answer(body=self.files[path])
        found = re.fullmatch(r"/api/annotations/(\d+)", path)
        if found and asked.method == "DELETE":
            self.remove(int(found[1]))
            return Answer(204)
        if found:
            return _found(self.annotations.get(int(found[1])))
        found = re.fullmatch(r"/api/tasks/(\d+)/annotations", path)
        if found and int(found[1]) in self.tasks:
            task = int(found[1])
            if asked.method == "POST":
                return self._annotate(task, json.loads(asked.body))
            own = self._annotations_of(task)
            return _json([each for each in own if not each["was_cancelled"]])  # as seen
        found = re.fullmatch(r"/api/tasks/(\d+)", path)
        if found and int(found[1]) in self.tasks:
            task = int(found[1])
            return _json(self._row(task, "") | self._held(task))
        found = re.fullmatch(r"/api/predictions/(\d+)", path)
        if found and asked.method == "GET":
            return _found(next((p for p in self.predictions if p["id"] == int(found[1])), None))
        if found and asked.method == "DELETE":
            there = len(self.predictions)
            self.predictions = [p for p in self.predictions if p["id"] != int(found[1])]
            return Answer(204) if len(self.predictions) < there else _found(None)
        return _json({"detail": "Not found."}, 404)

    def _held(self, task: int) -> dict[str, Any]:
        own = [each for each in self.predictions if each["task"] == task]
        drafts = [{"id": 1}] if task in self.drafted else []
        return {"annotations": self._annotations_of(task), "predictions": own, "drafts": drafts}

    def _annotations_of(self, task: int) -> list[dict[str, Any]]:
        return [each for each in self.annotations.values() if each["task"] == task]

    def _summary(self) -> dict[str, dict[str, Any]]:
        """As seen: regions of all annotations, by control and label, and by control and kind."""
        labels: dict[str, Counter[str]] = {}
        kinds: Counter[str] = Counter()
        for region in (each for some in self.annotations.values() for each in some["result"]):
            own = region["value"].get(region["type"]) or ()
            labels.setdefault(region["from_name"], Counter()).update(own)
            kinds[f"{region['from_name']}|image|{region['type']}"] += 1
        return {"created_labels": labels, "created_annotations": kinds}

    def _view(self, asked: Asked, path: str) -> Answer:
        """As seen: an update takes the place of all that the view was made of."""
        if asked.method == "GET":
            return _json([{"id": id_, "data": data} for id_, data in self.tabs.items()])
        last = path.rpartition("/")[2]
        id_ = int(last) if last.isdigit() else next(self._ids)
        self.tabs[id_] = json.loads(asked.body)["data"]
        return _json({"id": id_, "data": self.tabs[id_]}, 200 if last.isdigit() else 201)

    def _change(self, fields: dict[str, Any]) -> Answer:
        self.shows = fields.get("model_version", self.shows)
        self.sampling = fields.get("sampling", self.sampling)
        return self._change_config(fields.get("label_config", self.label_config))

    def _save_backend(self, path: str, body: dict[str, Any]) -> Answer:
        """As seen: it is made, and the answer is 403 where it may not call a webhook there."""
        number = path.rpartition("/")[2]
        if number.isdigit():
            (row,) = (each for each in self.backends if each["id"] == int(number))
        else:
            row = {"id": next(self._ids), "state": "CO"}
            self.backends.append(row)
        row |= body
        is_new = not number.isdigit()
        return _json({"detail": "reserved address"}, 403) if is_new else _json(row)

    def _change_config(self, config: str) -> Answer:
        """As seen: a config without a label that an annotation has is refused."""
        used = {
            label
            for annotation in self.annotations.values()
            for region in annotation["result"]
            for label in region["value"].get("brushlabels", ())
        }
        if missing := [label for label in used if f'"{label}"' not in config]:
            return _json({"validation_errors": {"label_config": missing}}, 400)
        self.label_config = config
        return _json({"id": self.project, "label_config": config})

    def _import(self, body: list[dict[str, Any]]) -> Answer:
        if not all(each["task"] in self.tasks for each in body):
            return _json({"detail": "invalid task"}, 400)
        taken = [each for each in body if each["task"] not in self.refused]
        if len(taken) < len(body):  # as seen: one that is invalid costs all of them
            return _json({"created": 0}, 201)
        self.imports.append(len(taken))
        for each in taken:
            self.add(each["task"], each["model_version"], result=each["result"])
        if self.late:
            self.late -= 1
            return Answer(504)
        return _json({"created": len(taken)}, 201)

    def _annotate(self, task: int, body: dict[str, Any]) -> Answer:
        """As seen: one of a unique id that is there is refused; no working time is made up."""
        unique = body.get("unique_id")
        if unique in {each.get("unique_id", "") for each in self.annotations.values()}:
            return _json({"detail": "Annotation with this unique id already exists"}, 409)
        made = self.annotate(task, body.pop("result"), self.now, **({"lead_time": None} | body))
        if self.late:
            self.late -= 1
            return Answer(504)
        return _json(made, 201)

    def _tasks(self, given: dict[str, str]) -> Answer:
        if "view" in given:
            if int(given["view"]) not in self.views:
                return _json({"detail": "Not found."}, 404)
            found = self.views[int(given["view"])]
        else:
            found = [task for task in sorted(self.tasks) if self._fits(task, given["query"])]
        if "-tasks:id" in given.get("query", ""):
            found = found[::-1]
        if "-tasks:updated_at" in given.get("query", ""):
            found = sorted(found, key=self._changed_at, reverse=True)
        size, page = int(given["page_size"]), int(given.get("page", 1))
        some = found[size * (page - 1) : size * page]
        if page > 1 and not some:
            return _json({"detail": "Invalid page."}, 404)
        rows = [self._row(task, given.get("query", "")) for task in some]
        if given["fields"] == "all":
            rows = [row | self._held(row["id"]) for row in rows]
        predictions = sum(map(self.stored().__getitem__, found))
        return _json({"tasks": rows, "total": len(found), "total_predictions": predictions})

    def _row(self, task: int, query: str) -> dict[str, Any]:
        """As seen: versions are told where they are asked for, each once, in any order."""
        versions = [p["model_version"] for p in self.predictions if p["task"] == task]
        row = {"id": task, "data": self.tasks[task], "project": self.project}
        row["total_predictions"] = len(versions)
        skips = [each["was_cancelled"] for each in self._annotations_of(task)]
        row |= {"total_annotations": skips.count(False), "cancelled_annotations": skips.count(True)}
        row["created_at"] = _at(self.made.get(task, 0.0))
        row["updated_at"] = _at(self._changed_at(task))
        if "annotations_ids" in query:
            row["annotations_ids"] = ",".join(str(e["id"]) for e in self._annotations_of(task))
        if "predictions_score" in query:
            row["predictions_score"] = None  # as seen, without a feature flag
        if "predictions_model_versions" in query:
            row["predictions_model_versions"] = ", ".join(set(versions))
        return row

    def _changed_at(self, task: int) -> float:
        return self.changed.get(task, self.made.get(task, 0.0))

    def _is_annotated(self, task: int) -> bool:
        """As seen: skips do not count."""
        return task in self.annotated or self._count(task) > 0

    def _is_done(self, task: int) -> bool:
        """As seen: annotations of one person count once; the first tasks are those of several."""
        own = (each for each in self._annotations_of(task) if not each["was_cancelled"])
        people = {each["completed_by"] for each in own}
        return task in self.annotated or len(people) >= self._needed(task)

    def _needed(self, task: int) -> int:
        if self.overlap_percent == 100:
            return self.overlap
        chosen = sorted(self.tasks)[: int(len(self.tasks) * self.overlap_percent / 100 + 0.5)]
        return self.overlap if task in chosen else 1

    def _is_skipped(self, task: int) -> bool:
        return any(each["was_cancelled"] for each in self._annotations_of(task))

    def _count(self, task: int) -> int:
        """As seen: skips do not count."""
        return sum(not each["was_cancelled"] for each in self._annotations_of(task))

    def _fits(self, task: int, query: str) -> bool:
        asked = json.loads(query)
        included = asked.get("selectedItems", {}).get("included")
        if included and task not in included:  # an empty list is no filter there
            return False
        versions = [p["model_version"] for p in self.predictions if p["task"] == task]
        for each in asked.get("filters", {}).get("items", ()):
            column, value = each["filter"].removeprefix("filter:tasks:"), each["value"]
            fits = {
                ("id", "greater"): lambda v: task > v,
                ("id", "less"): lambda v: task < v,
                ("predictions_model_versions", "contains"): lambda v: v[0] in str(versions),
                ("predictions_model_versions", "not_contains"): lambda v: v[0] not in str(versions),
                ("total_annotations", "equal"): lambda v: self._is_annotated(task) == bool(v),
                ("total_annotations", "greater"): lambda v: self._is_annotated(task),
                ("total_annotations", "greater_or_equal"): lambda v: self._count(task) >= v,
                ("completed_at", "empty"): lambda v: self._is_done(task) != v,
                ("cancelled_annotations", "equal"): lambda v: self._is_skipped(task) == bool(v),
                ("cancelled_annotations", "greater"): lambda v: self._is_skipped(task),
                ("annotations_ids", "empty"): lambda v: bool(self._annotations_of(task)) != v,
                ("draft_exists", "equal"): lambda v: (task in self.drafted) == v,
                ("updated_at", "greater"): lambda v: self._changed_at(task) > _read(v),
                ("total_predictions", "greater_or_equal"): lambda v: len(versions) >= v,
                ("total_predictions", "greater"): lambda v: len(versions) > v,
                ("total_predictions", "equal"): lambda v: len(versions) == v,
            }[column, each["operator"]]
            if not fits(value):
                return False
        return True


def asks_for_whole(asked: Asked, task: int) -> bool:
    """Return whether a request asks for all that a task holds, alone or with others."""
    given = parse_qs(urlsplit(asked.path).query)
    query = json.loads(given.get("query", ["{}"])[0])
    return given.get("fields") == ["all"] and task in query["selectedItems"]["included"]


def _found(value: dict[str, Any] | None) -> Answer:
    return _json({"detail": "Not found."}, 404) if value is None else _json(value)


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()


def _read(time: str) -> float:
    """The seconds since the epoch of a time in a filter of the data manager, which is in UTC."""
    read = datetime.strptime(time, "%Y-%m-%dT%H:%M:%S.%fZ")
    return read.replace(tzinfo=timezone.utc).timestamp()


def _json(value: Any, status: int = 200) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})
