# The names of the library and where they are from; `__init__.py` reads this file.
from .adaptation.adaptation import Adaptation
from .adaptation.example import Example
from .adaptation.fitting import Fit, HeldOutAdaptations, adapt
from .adaptation.unlabelled import (
    UnlabelledFit,
    adapt_unlabelled,
    judge_adaptation,
)
from .clip.dense_encoder import WindowFeatures
from .clip.methods import METHODS, Method
from .clip.text_encoder import BEST_TEMPLATES, TEMPLATES
from .clip.weights import (
    WeightsNotFoundError,
    check_weights,
    known_second_encoders,
    missing_weights,
    weights_id,
)
from .demo.render import HELD_OUT_SEEDS, SCENE_LABELS, render_scene
from .images.preprocessing import RGBArray
from .prompting.click_model import ClickFeatures, ClickModel, ClickModelPredictor
from .prompting.prompts import Point, PromptedMask, PromptPredictor
from .prompting.regions import RegionFilter, Regions, propose_regions, regions_of
from .segmentation.masks import LabelMasks, drop_islands
from .segmentation.runs import BoolMask, RunMask
from .segmentation.scores import Scores
from .segmentation.segmentation import Segmentation, Uncertainty
from .segmentation.windows import DenseFeatures
from .segmenter import PreparedImage, SegmentedImage, Segmenter
from .vocabulary import BACKGROUND_NAMES, Label, MapNames, Vocabulary

__all__ = [
    "BACKGROUND_NAMES",
    "BEST_TEMPLATES",
    "HELD_OUT_SEEDS",
    "METHODS",
    "SCENE_LABELS",
    "TEMPLATES",
    "Adaptation",
    "BoolMask",
    "ClickFeatures",
    "ClickModel",
    "ClickModelPredictor",
    "DenseFeatures",
    "Example",
    "Fit",
    "HeldOutAdaptations",
    "Label",
    "LabelMasks",
    "MapNames",
    "Method",
    "Point",
    "PreparedImage",
    "PromptPredictor",
    "PromptedMask",
    "RGBArray",
    "RegionFilter",
    "Regions",
    "RunMask",
    "Scores",
    "Segmentation",
    "SegmentedImage",
    "Segmenter",
    "Uncertainty",
    "UnlabelledFit",
    "Vocabulary",
    "WeightsNotFoundError",
    "WindowFeatures",
    "adapt",
    "adapt_unlabelled",
    "check_weights",
    "drop_islands",
    "judge_adaptation",
    "known_second_encoders",
    "missing_weights",
    "propose_regions",
    "regions_of",
    "render_scene",
    "weights_id",
]
