"""A report of each kind of run, and what it was asked."""

from dataclasses import fields
from typing import Any, Final

import msgspec

from backend.label_studio.download import LabelStudioFiles
from backend.label_studio.image_loader import ImageReader
from backend.runs.agreement import (
    Agreement,
    AgreementOnLabel,
    AnnotatorFigures,
    Confusion,
    Dispute,
    DisputedLabel,
)
from backend.runs.checks import AskedChecks, CheckResult, Checks
from backend.runs.dataset import AskedDataset, DatasetFile
from backend.runs.label_errors import LabelErrors, Suspicion
from backend.runs.models import ComparedModel, ModelsReport
from backend.runs.run_store import AskedNothing, RunParts
from backend.runs.words import Advice, AskedWords, TriedWords, WordsOnImage, WordsReport
from backend.settings import Settings
from tests.backend.runs.scene_project import CONFIG

EVIL: Final = "<script>alert(1)</script>"
PICTURE: Final = "data:image/jpeg;base64,AA"

SUSPICION: Final = Suspicion(
    3, 12, 5.25, None, "label", EVIL, "tree", f"Painted “{EVIL}”.", PICTURE, "data:b"
)
LABEL_ERRORS: Final = LabelErrors(
    *(13, 9, 30),
    (SUSPICION, msgspec.structs.replace(SUSPICION, task=4, annotation=13)),
    {9: EVIL},
    7,
)

AGREEMENT: Final = Agreement(
    *(40, 41, 85, 0.0312),
    labels=(AgreementOnLabel(EVIL, 9, 0.75, 0.01), AgreementOnLabel("tree", 10, 0.25, 0.02)),
    confusions=(Confusion(EVIL, "tree", 0.125), Confusion("tree", "", 0.0625)),
    annotators=(AnnotatorFigures(5, EVIL, 40, 0.8125), AnnotatorFigures(6, "", 2, 0.5)),
    disputes=(
        Dispute(3, None, 2, 0.125, (DisputedLabel(EVIL, 0.5, 0.125),), PICTURE),
        Dispute(4, 1, 3, 0.0625, ()),
    ),
    dispute_count=400,
    left_out={9: EVIL},
    left_out_count=7,
)

LINE: Final = '<Label value="tree" predicted_values="fir"/>'


def tried(row: int, words: str, line: str = LINE) -> TriedWords:
    return TriedWords(row, (words,), line, 0.8, 0.8, 0.25, (WordsOnImage(3, 0.75, PICTURE),))


WORDS: Final = WordsReport(
    *("tree", ("sky", "tree"), CONFIG, True, 1),
    trials=(
        tried(1, "fir"),
        tried(0, "tree", '<Label value="tree"/>'),
        tried(2, EVIL, f'<Label value="tree" hint="{EVIL}"/>'),
    ),
    left_out={4: EVIL},
    left_out_count=1,
)
CHECKED_WORDS: Final = WordsReport(
    *("", ("sky", "tree"), CONFIG, False, 2),
    advice=(Advice("tree", f"“{EVIL}” means little.", "Try a more common word."),),
    shares={"sky": 0.25, "tree": 0.5},
)

DATASET: Final = DatasetFile(2, {"train": 2, "val": 0}, 5, 1, [], {41: EVIL}, 7, 3 << 20)

CHECKS: Final = Checks([CheckResult("project", "ok", EVIL), CheckResult("backend", "FAIL", EVIL)])

MODELS: Final = ModelsReport(
    *(12, 2),
    models=(
        ComparedModel("as it is now", (), 0.3, 0.5, 0.4, 1.25, 345.0, 20.7),
        ComparedModel(
            *(f"second encoder {EVIL}", (f"SECOND_MODEL={EVIL}",), 0.3, 0.6, 0.5, 2.0, 360.0, 31),
            gain=0.1,
            low=0.05,
            high=0.15,
        ),
    ),
    refused={"method rfclip": EVIL},
    left_out={4: EVIL},
    left_out_count=1,
)

#: Name of a kind -> what is asked for, and a report.
SAMPLES: Final[dict[str, tuple[Any, Any]]] = {
    "label-errors": (AskedNothing(), LABEL_ERRORS),
    "agreement": (AskedNothing(), AGREEMENT),
    "words": (AskedWords("tree", ("fir", "oak, pine")), WORDS),
    "models": (AskedNothing(), MODELS),
    "checks": (AskedChecks(EVIL), CHECKS),
    "datasets": (AskedDataset(formats=("coco",), split="80/20"), DATASET),
}


def run_parts(**parts: Any) -> Any:
    """Parts of a run, those alone that a test gives."""
    settings = Settings()
    images = ImageReader(LabelStudioFiles.from_settings(settings), settings)
    given = dict.fromkeys(field.name for field in fields(RunParts))
    return RunParts(**given | {"settings": settings, "images": images} | parts)
