"""The image, as far as it can be held without an engine: the Dockerfile and the lock file."""

from __future__ import annotations

import re

from packaging.requirements import Requirement

from tests.deploy.test_compose import DEPLOY, DOCKERFILE, EXAMPLE, ROOT, SERVICES

#: The last stage of the Dockerfile: what an image holds.
IMAGE = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]


def test_the_image_runs_as_nobody_special_and_keeps_weights_where_it_may_write() -> None:
    serve = 'CMD ["clearclip-backend", "serve", "--wait"]'
    assert IMAGE.index("USER 1000") < IMAGE.index(serve)
    assert "MODEL_DIR=/models" in IMAGE
    assert "--owner clearclip /models" in IMAGE
    assert all(mount.endswith(":/models") for mount in SERVICES["backend-cpu"]["volumes"])


def test_the_image_takes_label_studio_ml_from_a_commit_without_its_dependencies() -> None:
    assert re.search(r"LABEL_STUDIO_ML=[0-9a-f]{40}\n", DOCKERFILE)
    assert re.search(
        r"--no-deps --no-build-isolation \\\n\s*\"https://github.com/HumanSignal/label-stud",
        DOCKERFILE,
    )


def pinned(file: str) -> dict[str, Requirement]:
    """The requirements of a file by name, of those for Linux and the image's Python."""
    text = re.sub(r"\s*\\\n\s*--hash=\S+", "", (DEPLOY / file).read_text(encoding="utf-8"))
    (python,) = set(re.findall(r"^FROM python:(\d+\.\d+)-", DOCKERFILE, re.MULTILINE))
    there = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "implementation_name": "cpython",
    }
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = [Requirement(line) for line in lines]
    kept = [one for one in found if one.marker is None or one.marker.evaluate(there)]
    assert len({one.name for one in kept}) == len(kept)
    return {one.name: one for one in kept}


def requirements() -> list[Requirement]:
    """What the images need: the project's dependencies, two of its extras, and requirements.in."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (dependencies,) = re.findall(r"^dependencies = \[\n(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    extras = re.findall(r"^(?:postgres|dataset) = \[(.*?)\]  #", project, re.MULTILINE)
    assert len(extras) == 2
    named = re.findall(r'"([^"]+)"', re.sub(r"#.*", "", dependencies)) + re.findall(
        r'"([^"]+)"', " ".join(extras)
    )
    return [*map(Requirement, named), *pinned("requirements.in").values()]


def test_the_lock_file_and_torch_have_a_release_of_everything_that_is_asked_for() -> None:
    there = {name.lower().replace("_", "-"): one for name, one in locked().items()}
    for asked in requirements():
        if asked.marker is not None and not asked.marker.evaluate({"python_version": "3.12"}):
            continue
        (pin,) = there[asked.name.lower().replace("_", "-")].specifier
        assert pin.operator == "=="
        assert asked.specifier.contains(pin.version), f"make lock: {asked}"


def locked() -> dict[str, Requirement]:
    return pinned("requirements.lock") | pinned("torch.txt")


def test_the_image_installs_the_lock_file_by_its_hashes_and_the_torch_of_its_file() -> None:
    flat = re.sub(r"\\\n\s*", "", DOCKERFILE)
    assert "--no-deps --require-hashes --requirement requirements.lock" in flat
    assert '--torch-backend "${TORCH_BACKEND}" --requirement torch.txt' in flat
    assert SERVICES["backend-gpu"]["build"]["args"] == {"TORCH_BACKEND": "${TORCH_CUDA:-cu130}"}
    assert EXAMPLE["TORCH_CUDA"] == "cu130"


def test_the_build_context_holds_all_that_is_copied_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[1] == "*"
    copied = {
        word.removeprefix("./")
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for word in line.split()[:-1]
    }
    assert {line[1:] for line in lines if line.startswith("!")} == copied
