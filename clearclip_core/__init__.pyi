# The names of the library and where they are from; `__init__.py` reads this file.
from .adaptation.adaptation import Adaptation
from .adaptation.example import Example
from .adaptation.fitting import Fit, adapt
from .clip.dense_encoder import DenseEncoder, WindowFeatures
from .clip.devices import usable_cpus
from .clip.loading import LoadedModel, load_model
from .clip.methods import MAPS, METHODS, Method, resolve_method
from .clip.second_encoder import SecondEncoder, load_second_encoder
from .clip.text_encoder import BEST_TEMPLATES, TEMPLATES, TextEncoder
from .clip.weights import (
    KnownModel,
    WeightsNotFoundError,
    download_weights,
    known_models,
    weights_id,
)
from .demo.scenes.canvas import Scene
from .demo.scenes.render import HELD_OUT_SEEDS, SCENE_LABELS, SYNONYMS, render_scene
from .images.label_maps import label_map_image, overlay, palette
from .images.preprocessing import Preprocessing, RGBArray, to_rgb
from .prompting.prompts import Point, PromptedMask, PromptPredictor
from .segmentation.guided_filter import Refinement, guided
from .segmentation.masks import (
    LabelMasks,
    boundary_band,
    drop_islands,
    fill_holes,
)
from .segmentation.runs import BoolMask, RunMask
from .segmentation.scores import Scores
from .segmentation.segmentation import Segmentation, Uncertainty
from .segmentation.windows import DenseFeatures, WindowPlan
from .segmenter import PreparedImage, Segmenter
from .thread_pools import set_pool_threads
from .vocabulary import Label, Vocabulary

__all__ = [
    "BEST_TEMPLATES",
    "HELD_OUT_SEEDS",
    "MAPS",
    "METHODS",
    "SCENE_LABELS",
    "SYNONYMS",
    "TEMPLATES",
    "Adaptation",
    "BoolMask",
    "DenseEncoder",
    "DenseFeatures",
    "Example",
    "Fit",
    "KnownModel",
    "Label",
    "LabelMasks",
    "LoadedModel",
    "Method",
    "Point",
    "PreparedImage",
    "Preprocessing",
    "PromptPredictor",
    "PromptedMask",
    "RGBArray",
    "Refinement",
    "RunMask",
    "Scene",
    "Scores",
    "SecondEncoder",
    "Segmentation",
    "Segmenter",
    "TextEncoder",
    "Uncertainty",
    "Vocabulary",
    "WeightsNotFoundError",
    "WindowFeatures",
    "WindowPlan",
    "adapt",
    "boundary_band",
    "download_weights",
    "drop_islands",
    "fill_holes",
    "guided",
    "known_models",
    "label_map_image",
    "load_model",
    "load_second_encoder",
    "overlay",
    "palette",
    "render_scene",
    "resolve_method",
    "set_pool_threads",
    "to_rgb",
    "usable_cpus",
    "weights_id",
]
