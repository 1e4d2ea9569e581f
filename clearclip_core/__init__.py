"""ClearCLIP as a library: images and words in, masks out."""

from clearclip_core.adaptation.adaptation import Adaptation
from clearclip_core.adaptation.contradictions import SetAside
from clearclip_core.adaptation.examples import Example
from clearclip_core.adaptation.fitting import Fit, adapt
from clearclip_core.adaptation.sufficient_statistics import SufficientStatistics
from clearclip_core.clip.dense_encoder import DenseEncoder, WindowFeatures
from clearclip_core.clip.devices import usable_cpus
from clearclip_core.clip.embedding_cache import EmbeddingStore
from clearclip_core.clip.loading import LoadedModel, load_model
from clearclip_core.clip.methods import MAPS, METHODS, Method, resolve_method
from clearclip_core.clip.text_encoder import TEMPLATES, TextEncoder
from clearclip_core.clip.weights import (
    KnownModel,
    WeightsNotFoundError,
    download_weights,
    known_models,
    weights_id,
)
from clearclip_core.demo.scenes.render import render_scene
from clearclip_core.demo.scenes.scene import HELD_OUT_SEEDS, SCENE_LABELS, SYNONYMS, Scene
from clearclip_core.images.preprocessing import Preprocessing, RGBArray, to_rgb
from clearclip_core.images.visualization import label_map_image, overlay, palette
from clearclip_core.prompting.prompts import Point, PromptedMask, segment_box, segment_points
from clearclip_core.segmentation.dense_features import DenseFeatures
from clearclip_core.segmentation.guided_filter import Refinement, guided
from clearclip_core.segmentation.masks import (
    BoolMask,
    boundary_band,
    drop_islands,
    fill_holes,
    label_masks,
)
from clearclip_core.segmentation.score_options import ScoreOptions
from clearclip_core.segmentation.scores import Scores
from clearclip_core.segmentation.sliding_windows import WindowPlan
from clearclip_core.segmentation.uncertainty import Uncertainty
from clearclip_core.segmenter import PreparedImage, Segmentation, Segmenter
from clearclip_core.vocabulary import Label, Vocabulary

__all__ = [
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
    "EmbeddingStore",
    "Example",
    "Fit",
    "KnownModel",
    "Label",
    "LoadedModel",
    "Method",
    "Point",
    "PreparedImage",
    "Preprocessing",
    "PromptedMask",
    "RGBArray",
    "Refinement",
    "Scene",
    "ScoreOptions",
    "Scores",
    "Segmentation",
    "Segmenter",
    "SetAside",
    "SufficientStatistics",
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
    "label_masks",
    "load_model",
    "overlay",
    "palette",
    "render_scene",
    "resolve_method",
    "segment_box",
    "segment_points",
    "to_rgb",
    "usable_cpus",
    "weights_id",
]
