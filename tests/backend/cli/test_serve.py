"""The command `clearclip-backend serve`."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from backend.cli.serve import serve
from backend.settings import Settings


def test_serve_has_a_flag_for_every_setting() -> None:
    flags = {flag for parameter in serve.params for flag in parameter.opts}
    assert flags == {"--" + name.replace("_", "-") for name in Settings.model_fields}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--port", "x"], "PORT"),
        (["--model", "nothing"], "arch/tag"),
        (["--model", "ViT-B-16/random"], "never served"),
        (["--method", "magic"], "clip, maskclip, sclip, clearclip"),
        (["--basic-auth-user", "ann"], "BASIC_AUTH_PASS"),
        (["--precision", "int8"], "--precision"),
        (["--precision", "fp16", "--device", "cpu", "--model", "demo"], "fp16 needs a GPU"),
        (["--device", "abacus", "--model", "demo"], "auto, cpu, cuda or mps"),
        (["--batch-windows", "0"], "BATCH_WINDOWS"),
        (["--feature-cache-mb", str(1 << 40)], "FEATURE_CACHE_MB"),
        (["--feature-cache-mb", "-1"], "FEATURE_CACHE_MB"),
        (["--queue-size", "0"], "QUEUE_SIZE"),
        (["--allowed-hosts", "http://minio"], "ALLOWED_HOSTS"),
        (["--request-timeout-s", "0"], "REQUEST_TIMEOUT_S"),
    ],
)
def test_serve_refuses_what_cannot_work(arguments: list[str], sentence: str) -> None:
    result = CliRunner().invoke(serve, arguments)
    assert result.exit_code != 0
    assert sentence in result.output
    assert "Traceback" not in result.output
