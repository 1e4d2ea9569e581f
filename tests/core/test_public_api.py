import clearclip_core

PUBLIC = [
    "HELD_OUT_SEEDS",
    "MAPS",
    "METHODS",
    "QUICK_TEMPLATES",
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
    "LabelMasks",
    "LoadedModel",
    "Method",
    "Point",
    "PreparedImage",
    "Preprocessing",
    "PromptedMask",
    "RGBArray",
    "Refinement",
    "RunMask",
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
    "compare_features",
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
    "set_pool_threads",
    "to_rgb",
    "usable_cpus",
    "weights_id",
]


def kind_then_name(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, each in the order of the alphabet."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def test_the_public_names_are_these() -> None:
    assert sorted(clearclip_core.__all__) == sorted(PUBLIC)


def test_they_are_sorted_and_each_is_there() -> None:
    assert sorted(PUBLIC, key=kind_then_name) == PUBLIC
    assert [name for name in PUBLIC if not hasattr(clearclip_core, name)] == []
