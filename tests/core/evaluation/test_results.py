"""Results as files, and shards put together."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clearclip_core.evaluation.metrics import Confusion
from clearclip_core.evaluation.results import (
    Result,
    RunConfig,
    Shard,
    Tally,
    dump,
    merge,
    versions,
)
from tests.core.evaluation.factories import CONFIG


def result(seed: int, shard: Shard, config: RunConfig = CONFIG) -> Result:
    counts = np.random.default_rng(seed).integers(0, 10**12, (20, 20))
    counts[7] = counts[:, 7] = 0  # no cat anywhere
    return Result(
        config, shard, Tally(Confusion(counts), 3, 1.5 * seed), versions(), f"card {seed % 2}"
    )


def test_a_result_comes_back_from_its_file(tmp_path: Path) -> None:
    written = result(1, Shard())
    written.write(tmp_path / "a" / "r.json")
    read = Result.read(tmp_path / "a" / "r.json")
    assert read.config == written.config
    assert (read.tally.confusion.counts == written.tally.confusion.counts).all()
    assert (read.tally.pictures, read.tally.seconds) == (3, 1.5)
    assert (read.versions, read.hardware, read.shard) == (versions(), "card 1", Shard())


def test_a_file_holds_measures_settings_and_versions(tmp_path: Path) -> None:
    made = result(2, Shard(1, 4))
    made.write(tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    counts = np.array(content["confusion"])
    ship = counts[3, 3] / (counts[3].sum() + counts[:, 3].sum() - counts[3, 3])
    assert content["iou"]["ship"] == pytest.approx(ship)
    assert content["iou"]["cat"] is None
    assert content["pixel_accuracy"] == pytest.approx(np.trace(counts) / counts.sum())
    known = [value for value in content["iou"].values() if value is not None]
    assert content["miou"] == pytest.approx(sum(known) / 19)
    assert content["seconds_per_picture"] == 1.0
    assert content["shard"] == "1/4"
    assert content["settings"]["threshold"] == 0
    assert {"python", "torch", "open_clip_torch", "numpy"} <= set(content["versions"])


def test_shards_are_added_exactly(tmp_path: Path) -> None:
    parts = [result(seed, Shard(seed, 3)) for seed in range(3)]
    for part in parts:
        part.write(tmp_path / f"{part.shard.index}.json")
    whole = merge([Result.read(tmp_path / f"{index}.json") for index in (2, 0, 1)])
    total = sum(part.tally.confusion.counts.astype(object) for part in parts)
    assert whole.tally.confusion.counts.tolist() == total.tolist()
    assert (whole.tally.pictures, whole.tally.seconds) == (9, 4.5)
    assert whole.is_whole
    assert set(whole.hardware.split(", ")) == {"card 0", "card 1"}


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ([], "Expected the shards of a run, but got none"),
        ([result(0, Shard(0, 2))], "each of 2 shards once, but got 0/2"),
        ([result(0, Shard(0, 2)), result(1, Shard(0, 2))], "once, but got 0/2, 0/2"),
        ([result(0, Shard(0, 2)), result(1, Shard(1, 3))], "once, but got 0/2, 1/3"),
        (
            [result(0, Shard(0, 2)), result(1, Shard(1, 2), replace(CONFIG, method="clip"))],
            "differ in method 'clearclip' and 'clip'",
        ),
        (
            [result(0, Shard(0, 2)), replace(result(1, Shard(1, 2)), versions={"torch": "1"})],
            "of the same versions",
        ),
    ],
)
def test_what_is_not_one_run_is_not_merged(parts: list[Result], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        merge(parts)


def test_files_that_are_no_results_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    for text in ("", "[]", "{}", '{"confusion": [[1, 2]]}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="to be a result of `clearclip eval`, but it is not"):
            Result.read(path)
    content = result(1, Shard()).as_json()
    path.write_bytes(dump(content | {"confusion": [[1, 2], [3, 4]]}))
    with pytest.raises(ValueError, match="to hold all classes of voc20"):
        Result.read(path)


def test_shards_split_without_overlap() -> None:
    pictures = list(range(11))
    parts = [pictures[Shard(index, 3).slice] for index in range(3)]
    assert sorted(picture for part in parts for picture in part) == pictures
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
