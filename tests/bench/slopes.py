"""What a project costs at 20,000 tasks and at 50,000, on the real Label Studio, and how that grows.

Some pictures are imported and predicted; SQL copies them until the project is large. Then come a
predicting job, corrections, the review, the report, a data set and the pages, each of them measured
at both sizes in CPU seconds of all processes, PostgreSQL's included. It ends with an error where a
cost grows faster than its bound. It takes a quarter of an hour on two quiet cores:

    python -m tests.bench.slopes --folder EMPTY --label-studio PATH
"""

import contextlib
import math
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click

from tests.backend.fakes.local_server import LocalServer
from tests.bench.conftest import machine
from tests.bench.fifty_thousand import PAGES, Bench, bench, draw, wait_until
from tests.bench.timing import whole_cpu_s
from tests.e2e.reviewer import Reviewer, accepted

TEMPLATES: Final = 50  # tasks that are imported and predicted, and of which the others are copies
REVIEW_PAGES: Final = 3

JOB, READ, REVIEW, REPORT = "predicting job", "corrections read", "review", "report"
DATASET, PAGE, MEMORY = "data set", "pages", "memory of the backend"

#: The largest growth of what one thing of a part costs, as the power of the number of tasks: 0 is
#: the same in each project, 1 is in proportion to its size. For each page of the review, and each
#: page of the project, Label Studio counts and lists all tasks: so these may be in proportion.
MOST_GROWTH: Final = {
    JOB: 0.5,
    READ: 0.5,
    REVIEW: 1.0,
    REPORT: 0.5,
    DATASET: 0.5,
    PAGE: 1.0,
    MEMORY: 0.2,
}

COPY_TASKS: Final = """
INSERT INTO task SELECT (jsonb_populate_record(
    t, jsonb_build_object('id', %(first)s + n, 'inner_id', %(first)s + n,
                          'data', jsonb_build_object('image', %(pictures)s || '/' || n || '.png'))
)).* FROM generate_series(%(begin)s::bigint, %(end)s::bigint) n
JOIN task t ON t.id = %(template)s + n %% %(templates)s
"""
COPY_PREDICTIONS: Final = """
INSERT INTO prediction SELECT (jsonb_populate_record(
    p, jsonb_build_object('id', nextval(pg_get_serial_sequence('prediction', 'id')),
                          'task_id', %(first)s + n)
)).* FROM generate_series(%(begin)s::bigint, %(end)s::bigint) n
JOIN prediction p ON p.task_id = %(template)s + n %% %(templates)s
"""
COPY_SCORES: Final = """
INSERT INTO backend.scores SELECT (jsonb_populate_record(
    s, jsonb_build_object('task', %(first)s + n)
)).* FROM generate_series(%(begin)s::bigint, %(end)s::bigint) n
JOIN backend.scores s ON s.task = %(template)s + n %% %(templates)s
"""
AFTER_COPIES: Final = (
    "SELECT setval(pg_get_serial_sequence('task', 'id'), (SELECT max(id) FROM task))"
)


@dataclass
class Slopes:
    """The servers, and what each part cost at each size."""

    run: Bench
    pictures: str
    template: int = 0  # the first task that others are copies of
    filled: int = TEMPLATES  # tasks of the project
    corrected: int = 0
    #: part -> size of the project -> number of things, and what all of them cost
    costs: dict[str, dict[int, tuple[int, float]]] = field(default_factory=dict)

    @contextlib.contextmanager
    def cost(self, part: str, size: int, count: int) -> Iterator[None]:
        """Note the CPU seconds of a part, of all processes."""
        before = self._cpu_s()
        started = time.monotonic()
        yield
        spent = self._cpu_s() - before
        self.costs.setdefault(part, {})[size] = count, spent
        took = f"{spent:.1f} CPU s, {time.monotonic() - started:.0f} s"
        self.run.say(f"{part} of {count} at {size}", took)

    def _cpu_s(self) -> float:
        """CPU seconds of the servers, and of the commands that have ended."""
        own = self.run.backend.process
        assert own is not None
        postmaster = (self.run.postgres.folder / "data/postmaster.pid").read_text().split()[0]
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        servers = [own.pid, self.run.studio_pid, int(postmaster)]
        return sum(map(whole_cpu_s, servers)) + ended.ru_utime + ended.ru_stime

    def _read(self) -> int:
        """Return how many annotations the backend has read; asking the page would cost more."""
        query = "SELECT count(*) FROM backend.annotations WHERE project = %s AND open = 0"
        return int(self.run.query(query, self.run.project)[0][0])

    # ---- a project of a size ---------------------------------------------------------------------

    def begin(self) -> None:
        """Import and predict the tasks that others are copies of."""
        self.run.import_tasks(self.pictures)
        self.run.command("connect", 1, "connect", "--yes")
        self.predict()
        rows = self.run.query(
            "SELECT min(id), count(*) FROM task WHERE project_id = %s", self.run.project
        )
        self.template, count = rows[0]
        assert count == TEMPLATES

    def fill(self, size: int) -> None:
        """Copy predicted tasks until the project has so many."""
        newest = self.run.query("SELECT max(id) FROM task")[0][0]
        values = {
            "first": newest - self.filled,
            "begin": self.filled + 1,
            "end": size,
            "pictures": self.pictures,
            "template": self.template,
            "templates": TEMPLATES,
        }
        with self.run.connected() as connection:
            for statement in (COPY_TASKS, COPY_PREDICTIONS, COPY_SCORES, AFTER_COPIES):
                connection.execute(statement, values)
            connection.execute("ANALYZE task, prediction, backend.scores")
        self.filled = size

    def predict(self) -> None:
        """Prelabel what has no prediction yet."""
        self.run.prelabel(kills=0)

    def live(self, size: int, predicted: int, corrected: int) -> None:
        """Fill the project, and let a team work in it."""
        self.fill(size - predicted)
        self.run.import_more(self.pictures, range(self.filled + 1, size + 1))
        self.filled = size
        with self.cost(JOB, size, predicted):
            self.predict()

        self.run.annotate(corrected, seed=size)
        self.corrected += corrected
        with self.cost(READ, size, corrected):
            wait_until(lambda: self._read() >= self.corrected, 3600)

        self.review(size)
        all_read = self.corrected = self._read()
        with self.cost(REPORT, size, all_read):
            self.run.command("report", all_read, "report")
        with self.cost(DATASET, size, all_read):
            to = ["--to", str(self.run.folder / f"set{size}"), "--format", "coco"]
            self.run.command("dataset", all_read, "dataset", *to)

        with self.cost(PAGE, size, len(PAGES) + 1):
            self.run.open_pages()
        self.costs.setdefault(MEMORY, {})[size] = 1, self.run.backend.look()

    def review(self, size: int) -> None:
        """Say of some pages of predictions that they are good, and wait for their annotations."""
        reviewer = Reviewer(f"{self.run.backend.url}/projects/{self.run.project}", "Anna")
        wanted, seen = self._read(), 0
        with self.cost(REVIEW, size, 40 * REVIEW_PAGES):
            for _ in range(REVIEW_PAGES):
                reviewer.opens()
                cards = reviewer.cards
                seen += len(cards)
                wanted += len(accepted(cards))
                for card in cards:
                    src = f"{reviewer.url}/{card['task']}/{card['prediction']}"
                    assert reviewer.browser.get(src, timeout=600).ok
                reviewer.says("good", cards)
            wait_until(lambda: self._read() >= wanted, 3600)
        assert seen == 40 * REVIEW_PAGES, f"The review has shown {seen} pictures."

    # ---- how it grows ----------------------------------------------------------------------------

    def growths(self) -> dict[str, float]:
        """Return, for each part, the power of the number of tasks with which it grows."""
        found = {}
        for part, by_size in self.costs.items():
            small, large = sorted(by_size)
            before, after = (cost / count for count, cost in (by_size[small], by_size[large]))
            found[part] = math.log(after / before) / math.log(large / small)
        return found

    def table(self) -> str:
        """Return the costs as a table of Markdown."""
        growths = self.growths()
        sizes = sorted(self.costs[JOB])
        heads = " | ".join(f"{size:,} tasks" for size in sizes)
        lines = [f"| part | {heads} | growth | at most |", "|---|---|---|---|---|"]
        for part, by_size in self.costs.items():
            cells = " | ".join(_cell(part, *by_size[size]) for size in sizes)
            lines.append(f"| {part} | {cells} | {growths[part]:.2f} | {MOST_GROWTH[part]} |")
        return "\n".join(lines)


def _cell(part: str, count: int, cost: float) -> str:
    if part == MEMORY:
        return f"{cost:.0f} MB"
    return f"{count:,} × {1000 * cost / count:.0f} ms"


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), required=True)
@click.option("--label-studio", default=None, help="Its command; else that of the PATH.")
@click.option("--sizes", nargs=2, type=int, default=(20_000, 50_000), show_default=True)
@click.option("--predicted", default=1000, show_default=True, help="Tasks of each job.")
@click.option("--share", default=100, show_default=True, help="One task in so many is corrected.")
def main(
    folder: Path, label_studio: str, sizes: tuple[int, int], predicted: int, share: int
) -> None:
    """Measure a project at two sizes, and fail where a part grows faster than it may."""
    folder.mkdir(parents=True, exist_ok=True)
    with LocalServer(draw) as pictures, bench(folder.absolute(), label_studio, TEMPLATES) as run:
        slopes = Slopes(run, pictures.url)
        slopes.begin()
        for size in sizes:
            slopes.live(size, predicted, size // share)

    print(f"{machine()}\n\n{slopes.table()}")
    faster = [part for part, growth in slopes.growths().items() if growth > MOST_GROWTH[part]]
    if faster:
        raise click.ClickException(f"These grow faster than they may: {', '.join(faster)}.")


if __name__ == "__main__":
    main()
