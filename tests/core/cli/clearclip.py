"""The command `clearclip` in this process, and image files for it."""

from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result
from PIL import Image

from clearclip_core.cli.main import main


def clearclip(*arguments: str | Path) -> Result:
    """Run a command; only SystemExit may leave it, and no traceback is printed."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def draw(path: Path, size: tuple[int, int] = (60, 50), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def written(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
