"""Commands that are imported when they run."""

from click.testing import CliRunner

from clearclip_core.cli import main as core_cli


def test_a_command_that_is_not_listed_is_refused_by_its_name() -> None:
    result = CliRunner().invoke(core_cli.main, ["segmnt"])
    assert result.exit_code == 2
    assert "No such command 'segmnt'" in result.output
