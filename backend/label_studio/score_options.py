"""Work out what counts in a project's scores beside its words."""

from __future__ import annotations

from backend.label_studio.label_config import LabelConfig
from backend.settings import Settings
from clearclip_core import ScoreOptions, resolve_method


def score_options(settings: Settings, config: LabelConfig) -> ScoreOptions:
    """Return the options of a project's scores: of its label config, else of the settings.

    A method that weighs classes by CLS features itself has no presence prior.

    >>> from backend.label_studio.label_config_parser import parse_label_config
    >>> config = parse_label_config('''<View><Image name="img" value="$image"/>
    ...   <BrushLabels name="b" toName="img" presence="0.2"><Label value="sky"/></BrushLabels>
    ... </View>''')
    >>> score_options(Settings(presence=0.1), config).presence
    0.2
    >>> score_options(Settings(method="clipsurgery"), config).presence
    0.0
    """
    presence = settings.presence if config.presence is None else config.presence
    weighs_classes = resolve_method(settings.method).remove_redundancy
    if weighs_classes:
        presence = 0.0
    synonyms = config.synonyms or settings.synonyms
    return ScoreOptions(
        presence,
        join_synonyms=synonyms == "joined",
        with_cls=settings.adapt_presence and not weighs_classes,
    )
