"""Published results of the paper (Tabs. 1-3) and of later methods, in percent, with their sources.

"Unless explicitly mentioned, all reported results are directly cited from the respective papers"
(Sec. 4.1); the authors ran ClearCLIP, SCLIP* and all rows of ViT-L/14 themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from clearclip_core.clip.methods import Method

CITED = "paper, cited"
CITED_FROM_TCL = "paper, cited from TCL"
MEASURED = "paper, measured"
LATER = "its own paper, not measured by us"

#: Benchmarks without and with a background class, in the order of the columns of Tabs. 2 and 3.
WITHOUT_BACKGROUND = ("voc20", "context59", "coco_stuff", "cityscapes", "ade20k")
WITH_BACKGROUND = ("voc21", "context60", "coco_object")

_B, _L, _S = "ViT-B/16", "ViT-L/14", "ViT-S/16"


@dataclass(frozen=True)
class PaperRow:
    """A row of Tab. 2 or 3.

    Attributes:
        method: name of the method in the paper.
        encoder: the image tower.
        miou: mIoU in percent for each column of the table, and their mean; None where the paper
            has a dash.
        source: `CITED`, `CITED_FROM_TCL` or `MEASURED`; of later methods a text that begins with
            where the figures are from.
        preset: name of the preset that repeats the row, if there is one.
    """

    method: str
    encoder: str
    miou: tuple[float | None, ...]
    source: str = CITED
    preset: str | None = None


#: Tab. 2. SCLIP is cited with renamed classes, SCLIP* is measured without: the preset is SCLIP*.
TABLE_2 = (
    PaperRow("GroupViT", _S, (79.7, 23.4, 15.3, 11.1, 9.2, 27.7), CITED_FROM_TCL),
    PaperRow("CoCu", _S, (None, None, 13.6, 15.0, 11.1, None)),
    PaperRow("TCL", _B, (77.5, 30.3, 19.6, 23.1, 14.9, 33.1)),
    PaperRow("CLIP", _B, (41.8, 9.2, 4.4, 5.5, 2.1, 12.6), preset="clip"),
    PaperRow("MaskCLIP", _B, (74.9, 26.4, 16.4, 12.6, 9.8, 28.0), CITED_FROM_TCL, "maskclip"),
    PaperRow("ReCo", _B, (57.7, 22.3, 14.8, 21.1, 11.2, 25.4), CITED_FROM_TCL),
    PaperRow("CLIPsurgery", _B, (None, None, 21.9, 31.4, None, None), preset="clipsurgery"),
    PaperRow("SCLIP", _B, (80.4, 34.2, 22.4, 32.2, 16.1, 37.1)),
    PaperRow("SCLIP*", _B, (78.2, 33.0, 21.1, 29.1, 14.6, 35.2), MEASURED, "sclip"),
    PaperRow("ClearCLIP", _B, (80.9, 35.9, 23.9, 30.0, 16.7, 37.5), MEASURED, "clearclip"),
    PaperRow("CLIP", _L, (15.8, 4.5, 2.4, 2.9, 1.2, 5.4), MEASURED, "clip"),
    PaperRow("MaskCLIP", _L, (30.1, 12.6, 8.9, 10.1, 6.9, 13.7), MEASURED, "maskclip"),
    PaperRow("SCLIP", _L, (60.3, 20.5, 13.1, 17.0, 7.1, 23.6), MEASURED, "sclip"),
    PaperRow("ClearCLIP", _L, (80.0, 29.6, 19.9, 27.9, 15.0, 34.5), MEASURED, "clearclip"),
)

#: Tab. 3.
TABLE_3 = (
    PaperRow("GroupViT", _S, (50.4, 18.7, 27.5, 32.2), CITED_FROM_TCL),
    PaperRow("SegCLIP", _S, (52.6, 24.7, 26.5, 34.6)),
    PaperRow("OVSegmentor", _B, (53.8, 20.4, 25.1, 33.1)),
    PaperRow("PGSeg", _S, (53.2, 23.8, 28.7, 35.2)),
    PaperRow("ViewCo", _S, (52.4, 23.0, 23.5, 33.0)),
    PaperRow("CoCu", _S, (40.9, 21.2, 20.3, 27.5)),
    PaperRow("TCL", _B, (51.2, 24.3, 30.4, 35.3)),
    PaperRow("CLIP", _B, (16.2, 7.7, 5.5, 9.8), preset="clip"),
    PaperRow("MaskCLIP", _B, (38.8, 23.6, 20.6, 27.7), CITED_FROM_TCL, "maskclip"),
    PaperRow("ReCo", _B, (25.1, 19.9, 15.7, 20.2), CITED_FROM_TCL),
    PaperRow("CLIPsurgery", _B, (None, 29.3, None, None), preset="clipsurgery"),
    PaperRow("GEM", _B, (46.2, 32.6, None, None), preset="gem"),
    PaperRow("SCLIP", _B, (59.1, 30.4, 30.5, 40.0)),
    PaperRow("SCLIP*", _B, (51.4, 30.5, 30.0, 37.3), MEASURED, "sclip"),
    PaperRow("ClearCLIP", _B, (51.8, 32.6, 33.0, 39.1), MEASURED, "clearclip"),
)


@dataclass(frozen=True)
class LaterResult:
    """Published mIoU of a method that is younger than the paper, of OpenAI's weights alone.

    Attributes:
        method: name of the method.
        encoder: the image tower.
        miou: benchmark -> mIoU in percent.
        preset: name of the preset that repeats it.
        source: where the figures are from, and what they have that the preset has not.
    """

    method: str
    encoder: str
    miou: Mapping[str, float]
    preset: str
    source: str = LATER

    def row(self, benchmarks: Sequence[str]) -> PaperRow:
        """Return the row of a table with these columns; the mean is computed."""
        values = [self.miou[name] for name in benchmarks]
        mean = round(sum(values) / len(values), 1)
        return PaperRow(self.method, self.encoder, (*values, mean), self.source, self.preset)


_EIGHT = (*WITH_BACKGROUND, "voc20", "cityscapes", "context59", "ade20k", "coco_stuff")


def _eight(*miou: float) -> Mapping[str, float]:
    return MappingProxyType(dict(zip(_EIGHT, miou, strict=True)))


_NACLIP = _eight(58.9, 32.2, 33.2, 79.7, 35.5, 35.2, 17.4, 23.3)
_PEARL = _eight(64.1, 35.1, 37.3, 86.9, 37.6, 38.6, 19.4, 26.3)
_SCCLIP_B = _eight(64.6, 36.8, 37.7, 84.3, 41.0, 40.1, 20.1, 26.6)
_SCCLIP_L = _eight(65.0, 36.9, 40.5, 88.3, 41.3, 40.6, 21.7, 26.9)
_SFP = _eight(62.9, 37.2, 37.9, 84.5, 41.1, 39.9, 20.8, 26.4)
_RFCLIP = _eight(67.2, 37.9, 39.1, 87.0, 43.0, 41.4, 21.0, 27.5)

LATER_RESULTS = (
    LaterResult("NACLIP", _B, _NACLIP, "naclip"),
    LaterResult("PEARL", _B, _PEARL, "pearl", f"{LATER}; with its label propagation"),
    LaterResult("SC-CLIP", _B, _SCCLIP_B, "scclip"),
    LaterResult("SC-CLIP", _L, _SCCLIP_L, "scclip", f"{LATER}; its layers are not published"),
    LaterResult("SFP", _B, _SFP, "sfp", f"{LATER}; PEARL's authors measured a mean of 39.6"),
    LaterResult(
        *("RF-CLIP", _B, _RFCLIP, "rfclip"),
        "another paper, not measured by us; with its text side, tuned for each benchmark",
    ),
)

#: Tab. 1, for CLIP ViT-B/16: method -> mIoU in percent on `WITHOUT_BACKGROUND`, and their mean.
TABLE_1 = {
    Method("qq", residual=True, ffn=True): (68.4, 24.9, 14.7, 20.8, 7.6, 27.3),
    Method("qq", residual=True, ffn=False): (62.8, 25.5, 14.6, 19.5, 6.9, 25.9),
    Method("qq", residual=False, ffn=True): (77.6, 31.8, 21.0, 23.4, 14.7, 33.7),
    Method("qq", residual=False, ffn=False): (80.9, 35.9, 23.9, 30.0, 16.7, 37.5),
}

#: The model of Tab. 1.
TABLE_1_MODEL = "ViT-B-16/openai"

#: The attentions of Figs. 2 and 5, and the factors of Fig. 6 (its text has 0.5 beside the list).
ATTENTIONS = ("qk", "identity", "vv", "kk", "qq")
ALPHAS = (0.1, 0.5, 1.0, 2.0, 10.0, 100.0)
