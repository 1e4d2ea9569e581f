"""The demo and its servers, which run as child processes; with Label Studio: `tests/e2e`."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from backend.cli.demo import demo, upload
from backend.cli.demo_servers import DemoError, LabelStudioProcess
from tests.backend.fakes.local_server import Answer, LocalServer


def test_what_label_studio_refuses_is_said() -> None:
    with (
        LocalServer(lambda _: Answer(403, b"no")) as server,
        pytest.raises(DemoError, match="Label Studio answered 403: no"),
    ):
        upload(LabelStudioProcess(server.url), 1, [("a.png", b"")])


def test_pictures_without_labels_or_a_folder_without_pictures_start_nothing(tmp_path: Path) -> None:
    (tmp_path / "._hidden.jpg").touch()  # macOS's, beside a photo
    (tmp_path / "notes.txt").write_text("no picture")
    for given, sentence in (
        (["--labels", "sky"], "give both, or none"),
        (["--images", str(tmp_path)], "give both, or none"),
        (["--images", str(tmp_path), "--labels", "sky"], "There is no picture (.bmp, "),
    ):
        result = CliRunner().invoke(demo, [*given, "--label-studio", "nowhere"])
        assert result.exit_code == 1
        assert sentence in result.output
