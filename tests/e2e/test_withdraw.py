"""A prelabel run on the real Label Studio is taken back, beside what people have begun."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner

from backend.cli.demo_servers import LabelStudioProcess
from backend.cli.main import main
from tests.e2e.conftest import MODEL


def test_a_run_is_taken_back_where_nobody_has_begun(
    studio: LabelStudioProcess, new_project: Callable[..., int], tmp_path: Path
) -> None:
    project = new_project(["sky", "tree"], seeds=[1, 2, 3, 4])
    tasks = sorted(task.id for task in studio.client.tasks.list(project=project))
    env = {"LABEL_STUDIO_URL": studio.url, "LABEL_STUDIO_API_KEY": studio.token}
    runner = CliRunner(env=env | {"DATABASE_URL": f"sqlite:///{tmp_path}/jobs.db"})
    model = ["--model", MODEL, "--short-side-px", "64"]
    made = runner.invoke(main, ["prelabel", "--project", str(project), *model])
    assert made.exit_code == 0, made.output

    def predicted() -> list[int]:
        return sorted(each.task for each in studio.client.predictions.list(project=project))

    assert predicted() == tasks
    annotated, drafted = tasks[0], tasks[2]
    studio.client.annotations.create(id=annotated, result=[])
    studio.post(f"/api/tasks/{drafted}/drafts", json={"result": []})
    done = runner.invoke(main, ["withdraw", "--job", "1"])
    assert done.exit_code == 0, done.output
    assert (
        f"2 predictions deleted, those of 2 tasks kept.\nKept: {annotated}, {drafted}"
        in done.stdout
    )
    assert predicted() == [annotated, drafted]
