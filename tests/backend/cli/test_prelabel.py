"""The command `clearclip-backend prelabel`; its runs: `tests.backend.jobs.test_prelabeler`."""

from __future__ import annotations

from backend.cli.prelabel import prelabel


def test_a_bulk_run_can_be_told_all_that_tells_its_predictions_from_a_backends() -> None:
    flags = {flag for parameter in prelabel.params for flag in parameter.opts}
    assert flags >= {"--model", "--method", "--precision", "--short-side-px", "--refine", "--score"}
    assert flags >= {"--min-island-share", "--adapt", "--database-url", "--allowed-hosts"}
    assert flags >= {"--max-image-mb", "--max-image-megapixels"}
