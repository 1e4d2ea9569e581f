"""Devices, number formats and CPU threads, with and without a GPU."""

import os
from pathlib import Path

import pytest
import torch

from clearclip_core.devices import (
    choose_device,
    choose_precision,
    cpu_has_bf16,
    measure_peak_bytes,
    usable_cpus,
)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    for absent in ("cuda", "cuda:0", "mps"):
        with pytest.raises(ValueError, match=f"'{absent}' is not there"):
            choose_device(absent)
    for unknown in ("gpu", "", "meta", "xpu"):
        with pytest.raises(ValueError, match="`device` to be auto, cpu, cuda or mps"):
            choose_device(unknown)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("mps") == torch.device("mps")
    with pytest.raises(ValueError, match="'cuda:2' is not there: 2 CUDA devices found"):
        choose_device("cuda:2")


def test_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda, mps = (torch.device(name) for name in ("cpu", "cuda", "mps"))
    for has_bf16, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("clearclip_core.devices.cpu_has_bf16", lambda has=has_bf16: has)
        assert choose_precision("auto", cpu) == expected
        assert choose_precision("auto", cuda) == torch.float16
        assert choose_precision("auto", mps) == torch.float32
    assert choose_precision("fp32", cuda) == torch.float32
    assert choose_precision("bf16", cpu) == torch.bfloat16
    assert choose_precision("fp16", cuda) == torch.float16
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        choose_precision("fp16", cpu)
    with pytest.raises(ValueError, match="auto, fp32, fp16, bf16, but got 'int4'"):
        choose_precision("int4", cpu)
    capabilities = {0: (7, 5), 1: (8, 0)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda card: capabilities[card.index])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda card: "Tesla T4")
    with pytest.raises(ValueError, match="bf16 needs Ampere or later, but Tesla T4 is older"):
        choose_precision("bf16", torch.device("cuda:0"))
    assert choose_precision("bf16", torch.device("cuda:1")) == torch.bfloat16


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "6400000 100000\n"}, 8),
        ({"cpu.max": "nonsense"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
    ],
)
def test_usable_cpus_are_those_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cpus: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert usable_cpus(tmp_path) == cpus


@pytest.mark.parametrize(
    ("cpuinfo", "has_bf16"),
    [
        ("processor\t: 0\nflags\t\t: fpu sse2 avx512f amx_bf16 amx_tile\n", True),
        ("flags\t\t: fpu avx512_bf16\n", True),
        ("flags\t\t: fpu avx2 avx512f\nbugs\t\t: bf16\n", False),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("Features\t: fp asimd\n", False),
        ("", False),
    ],
)
def test_bf16_is_read_from_the_cpus_flags(tmp_path: Path, cpuinfo: str, has_bf16: bool) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(cpuinfo)
    assert cpu_has_bf16(path) is has_bf16
    assert cpu_has_bf16(tmp_path / "none") is False


def test_the_peak_of_memory_is_of_what_lives_at_the_same_time() -> None:
    """Of a chain of layers three outputs at a time; neither weights nor views of them."""
    layer, x = torch.nn.Linear(100, 100, bias=False), torch.ones(8, 100)

    @torch.inference_mode()
    def chained() -> torch.Tensor:
        y = layer(x)
        for _ in range(4):
            y = torch.relu(layer(y))
        return y.relu_()

    result, peak_bytes = measure_peak_bytes(chained)
    assert torch.equal(result, chained())
    assert peak_bytes == 3 * result.nbytes
