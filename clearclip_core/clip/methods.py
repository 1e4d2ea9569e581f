"""Methods to read out the last blocks: a frozen value, and the presets by name.

Another package adds methods and attentions without a change here, by entry points of the groups
``clearclip.methods`` and ``clearclip.attentions``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from clearclip_core.registry import Registry

if TYPE_CHECKING:
    import torch

    from clearclip_core.clip.projections import Projections

#: How position embeddings are resized, see `clearclip_core.clip.dense_encoder`.
Resize = Literal["factor", "size", "bilinear"]

RESIZES: Final[tuple[Resize, ...]] = get_args(Resize)

#: Name of each term -> the parts of `Projections` that it needs beside the value.
TERMS: dict[str, tuple[str, ...]] = {
    "qk": ("query", "key"),
    "qq": ("query", "query"),
    "kk": ("key", "key"),
    "vv": ("value", "value"),
    "identity": (),
    "ensemble": ("query", "key", "token_length"),
    "neighbour": ("key", "key", "grid_hw"),
    "procrustes": ("query", "key"),
    "proxy": ("proxy",),
    "affinity": ("affinity",),
    "earlier": ("earlier",),
}

#: Terms whose maps come from earlier blocks; see `clearclip_core.clip.readout`.
EARLIER_TERMS = frozenset({"affinity", "earlier"})

#: Short side of images, side of windows and their stride, in px, where authors chose others than
#: the paper: windows as large as the images that CLIP was trained on, or whole small images.
_SIZES_PX: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        **dict.fromkeys(("naclip", "pearl", "scclip", "sfp", "rfclip"), (336, 224, 112)),
        "proxyclip": (336, 336, 112),
    }
)

_PUBLISHED_DEPTH = 12  # blocks of the models that the layers are given for

#: Ways to find outlier tokens: by the local density of the last block's input (SC-CLIP), by the
#: attention of its CLS token (SFP), or by sink channels of the weights in every block (RF-CLIP).
REPAIRS = ("density", "attention", "sinks")


@dataclass(frozen=True)
class Affinity:
    """Which patches belong together, by cosines of an earlier layer's features.

    Cosines below 0.4 become 0 where they average features. RF-CLIP sums instead, which its layer
    norm undoes, but sums overflow fp16.
    """

    layer: int | None  # the layer; None for the mean of all layers
    smoothing: int | None  # the layer whose cosines smooth the result; None for no smoothing
    sparse: bool  # attend by cosines, those below 0.4 set to 0
    #: The CLS token is a key of the attention, but its value is not taken. Without it the attention
    #: is among patches alone, and 0.3 of the CLS token is added to its output.
    cls_key: bool


@dataclass(frozen=True)
class Layers:
    """Layers whose outputs are attended to in a second pass."""

    layers: tuple[int, ...] | None  # the layers; None for all
    mean: bool  # their mean is taken, and that of both passes. Otherwise they are added up
    affine: bool  # the second pass begins with the affinity as the first one does


#: Name -> affinity: of SC-CLIP, of SFP and of RF-CLIP.
AFFINITIES: Mapping[str, Affinity] = MappingProxyType(
    {
        "middle": Affinity(9, 4, sparse=False, cls_key=False),
        "sparse": Affinity(9, 4, sparse=True, cls_key=False),
        "mean": Affinity(None, None, sparse=False, cls_key=True),
    }
)

#: Name -> layers: of SC-CLIP and SFP, and of RF-CLIP.
LAYERS: Mapping[str, Layers] = MappingProxyType(
    {
        "middle": Layers((4, 5, 6, 7, 8, 9, 10), mean=False, affine=False),
        "mean": Layers(None, mean=True, affine=True),
    }
)


@dataclass(frozen=True)
class Attention:
    """An attention of another package, for the last blocks.

    Attributes:
        needs: names of the parts of `Projections` that it needs beside the value, such as
            ``("query", "key")``.
        attend: takes `Projections` and returns (B, heads, N, d), in the dtype of the value.
    """

    needs: tuple[str, ...]
    attend: Callable[[Projections], torch.Tensor]


def _expect_attention(name: str, found: object) -> Attention:
    if not isinstance(found, Attention):
        raise TypeError("is no Attention")
    if not re.fullmatch("[a-z]+", name):
        raise TypeError("has a name of other letters than a to z")
    return found


_ADDED_ATTENTIONS: Final = Registry[Attention](
    "clearclip.attentions", "attention", {}, _expect_attention
)


def find_attention(term: str) -> Attention | None:
    """Return an attention of another package; None for a term of `TERMS` and an unknown one.

    Raises:
        PluginError: the package cannot be used.
    """
    return None if term in TERMS else _ADDED_ATTENTIONS.find(term)


def needed_parts(term: str) -> tuple[str, ...] | None:
    """Return the parts of `Projections` that a term needs beside the value; None: it is unknown.

    >>> needed_parts("qk"), needed_parts("of nobody")
    (('query', 'key'), None)
    """
    if term in TERMS:
        return TERMS[term]
    added = find_attention(term)
    return None if added is None else added.needs


def parse_terms(attention: str) -> tuple[str, ...]:
    """Split an attention's name into its terms: ``"qq+kk"`` -> ``("qq", "kk")``.

    Args:
        attention: terms of `TERMS`, or attentions of other packages, joined by ``+``.

    Raises:
        ValueError: an unknown term, or one that occurs twice.

    >>> parse_terms("qq+kk")
    ('qq', 'kk')
    """
    terms = tuple(attention.split("+"))
    is_known = all(needed_parts(term) is not None for term in terms)
    if not is_known or len(set(terms)) != len(terms):
        known = ", ".join([*TERMS, *_ADDED_ATTENTIONS.names()])
        raise ValueError(
            f"Expected argument `attention` to be a sum of different terms of {known} (such as "
            f"'qq' or 'qq+kk'), but got {attention!r}."
        )
    return terms


def scaled_layer(layer: int, depth: int) -> int:
    """Return the layer at the same share of a model's depth: ``layer · depth / 12``, rounded.

    The authors published layers of 12 blocks only. To scale them is this project's proposal; it
    was not measured with trained weights of 24 blocks.

    Args:
        layer: a layer of 12.

    Returns:
        At least 1 and at most ``depth - 1``, the input of the last block.

    >>> [scaled_layer(layer, 24) for layer in (4, 9, 10)]
    [8, 18, 20]
    """
    return min(max(int(layer * depth / _PUBLISHED_DEPTH + 0.5), 1), depth - 1)


_NUMBER = r"[0-9.]+(?:e[+-]?[0-9]+)?"
_SPELLED_OUT = re.compile(
    rf"(?P<attention>[a-z+]+)(?P<residual>-res)?(?P<ffn>-ffn)?(?:-a(?P<alpha>{_NUMBER}))?"
    r"(?:-b(?P<blocks>[0-9]+))?(?:-(?P<positions>size|bilinear))?(?P<remove_redundancy>-surgery)?"
    rf"(?:-k(?P<key_weight>{_NUMBER}))?(?:-affinity\.(?P<affinity>[a-z]+))?"
    r"(?:-repair\.(?P<repair>[a-z]+))?(?:-layers\.(?P<layers>[a-z]+))?"
    r"(?:-second\.(?P<second>[a-z+]+))?"
)

#: Part that is there or not -> its text.
_SWITCHES = {"residual": "res", "ffn": "ffn", "remove_redundancy": "surgery"}
#: Part with a number -> the letter before it, and its type.
_NUMBERS: Mapping[str, tuple[str, type]] = MappingProxyType(
    {"alpha": ("a", float), "blocks": ("b", int), "key_weight": ("k", float)}
)


def parse(name: str) -> dict[str, Any] | None:
    """Parse a spelled-out name into unchecked values of attributes of `Method`; None: it is none.

    >>> parse("qq-res-a2")
    {'attention': 'qq', 'residual': True, 'alpha': 2.0}
    """
    match = _SPELLED_OUT.fullmatch(name)
    if match is None:
        return None
    parts: dict[str, Any] = {part: text for part, text in match.groupdict().items() if text}
    try:
        for part in parts.keys() & _NUMBERS.keys():
            parts[part] = _NUMBERS[part][1](parts[part])
    except ValueError:  # such as 1.2.3
        return None
    return parts | dict.fromkeys(parts.keys() & _SWITCHES.keys(), True)


def _spell(part: str, value: Any) -> str:
    """Spell out a part that follows the attention."""
    if part in _SWITCHES:
        return _SWITCHES[part]
    if part in _NUMBERS:
        short = f"{value:g}"  # or as many digits as read back as the same number
        return _NUMBERS[part][0] + (short if float(short) == value else repr(float(value)))
    return str(value) if part == "positions" else f"{part}.{value}"


@dataclass(frozen=True)
class Method:
    """A readout of CLIP's last block, or blocks (Sec. 3.3 and Tab. 1 of the paper).

    With ``X`` the input of the last block and ``X_attn`` its attention output, dense features
    are ``proj(ln_post(·))`` of

    ============ ======= ============================================
    ``residual`` ``ffn`` input to ``ln_post``
    ============ ======= ============================================
    True         True    ``S + FFN(LN2(S))`` with ``S = X + α·X_attn``
    True         False   ``X + α·X_attn``
    False        True    ``α·X_attn + FFN(LN2(α·X_attn))``
    False        False   ``α·X_attn`` (ClearCLIP)
    ============ ======= ============================================

    The first row is Eqs. 2-3, the last one ClearCLIP. The paper does not spell out the two
    mixed rows; they are Eqs. 2-3 with the other part left out.

    With more than one of ``blocks``, ``X`` is the input of the first of them, and ``X_attn`` the
    sum of their attention outputs. Each is computed from the block's input in the trained model,
    which is left unchanged: beside it a second path sums the attention outputs and has no FFN
    (CLIP Surgery, GEM).

    With an ``affinity`` the last block attends in one or two passes over features of earlier
    blocks; see `clearclip_core.clip.readout.TwoPasses` (SC-CLIP, SFP, RF-CLIP).

    Raises:
        ValueError: unknown attention, positions, affinity, repair or layers; alpha negative or
            not finite; alpha other than 1 where ``ln_post`` would cancel it; alpha 0 without a
            residual (nothing would be left); less than one block; an FFN with several blocks; a
            part that needs an affinity without one, or an affinity with a part of the table.

    >>> Method() == METHODS["clearclip"]
    True
    """

    attention: str = "qq"  #: terms of `TERMS` joined by ``+``, added up; averaged with an affinity
    residual: bool = False
    ffn: bool = False
    alpha: float = 1.0  #: weight of the attention output (Sec. 3.3, Fig. 6); no unit, >= 0
    blocks: int = 1  #: number of last blocks; all blocks of a model that has fewer
    #: how position embeddings are resized, by scale ``factor`` (the paper's released settings), by
    #: ``size`` (GEM) or ``bilinear`` (CLIP Surgery); see
    #: `clearclip_core.clip.dense_encoder.resize_position_embedding`.
    positions: Resize = "factor"
    #: subtract from the similarities what all classes have in common, with classes weighted by the
    #: CLS token (CLIP Surgery); see `clearclip_core.segmentation.scores.without_redundancy`.
    remove_redundancy: bool = False
    key_weight: float = 0.08  #: weight of keys among themselves in ``procrustes`` (PEARL), >= 0
    affinity: str = ""  #: similarity of patches in earlier blocks, one of `AFFINITIES`; "" for none
    repair: str = ""  #: repair of outlier tokens, one of `REPAIRS`; "" for none. Needs an affinity
    #: earlier blocks whose outputs are added up and attended to in a second pass, one of
    #: `clearclip_core.clip.methods.LAYERS`; "" for no second pass. It needs an affinity.
    layers: str = ""
    second: str = ""  #: attention of the second pass; "" for that of the first

    def __post_init__(self) -> None:
        terms = {*parse_terms(self.attention), *(parse_terms(self.second) if self.second else ())}
        known: dict[str, Iterable[str]] = {
            "positions": RESIZES,
            "affinity": AFFINITIES,
            "repair": REPAIRS,
            "layers": LAYERS,
        }
        for name, names in known.items():
            value = getattr(self, name)
            if value not in names and (value or name == "positions"):
                raise ValueError(
                    f"Expected argument `{name}` to be one of {', '.join(names)}, but got "
                    f"{value!r}."
                )
        for sentence, holds in self._rules(terms).items():
            if not holds:
                raise ValueError(f"Expected {sentence}, but got {self!r}.")

    def _rules(self, terms: set[str]) -> dict[str, bool]:
        """Return whether the parts fit together, by the sentence that says what is expected."""
        return self._rules_of_blocks() | self._rules_of_affinity(terms)

    def _rules_of_blocks(self) -> dict[str, bool]:
        return {
            "`alpha` to be a finite number >= 0": 0 <= self.alpha < math.inf,
            "`alpha` to be 1 without residual and FFN, where ln_post cancels it": (
                self.residual or self.ffn or self.alpha == 1
            ),
            "`alpha` to be above 0 without a residual": self.residual or self.alpha > 0,
            "`blocks` to be 1 or more": self.blocks >= 1,
            "`ffn` to be False with several `blocks`, whose second path has none": (
                not self.ffn or self.blocks == 1
            ),
            "`key_weight` to be a finite number >= 0": 0 <= self.key_weight < math.inf,
        }

    def _is_plain(self) -> bool:
        """Return whether the last block is read alone, without residual, FFN or class weights."""
        has_parts = self.residual or self.ffn or self.remove_redundancy
        return not has_parts and self.alpha == 1 and self.blocks <= 1

    def _rules_of_affinity(self, terms: set[str]) -> dict[str, bool]:
        plain_terms = {"qk", "qq", "kk", "vv"}
        needs_affinity = self.repair or self.layers or self.second or terms & EARLIER_TERMS
        return {
            "`affinity` to be named beside `repair`, `layers`, `second` or an attention of earlier "
            "blocks": bool(self.affinity or not needs_affinity),
            "`attention` to be a sum of qk, qq, kk, vv, affinity and earlier with an affinity": (
                not self.affinity or terms <= plain_terms | EARLIER_TERMS
            ),
            "`layers` to be named beside `second`": bool(self.layers or not self.second),
            "`residual`, `ffn`, `alpha`, `blocks` and `remove_redundancy` to be left out with an "
            "affinity": not self.affinity or self._is_plain(),
        }

    @property
    def sizes_px(self) -> tuple[int, int, int]:
        """Short side of images, side of windows and their stride, in px, as its authors chose them.

        Methods that are no preset have the paper's.

        >>> Method.of("clearclip").sizes_px, Method.of("scclip").sizes_px
        ((448, 448, 224), (336, 224, 112))
        """
        return _SIZES_PX.get(str(self), (448, 448, 224))

    @property
    def needs_second_encoder(self) -> bool:
        """Whether the attention looks at a second encoder's features.

        >>> Method.of("proxyclip").needs_second_encoder, Method.of("clearclip").needs_second_encoder
        (True, False)
        """
        terms = {term for each in self.all_terms for term in each}
        return any("proxy" in (needed_parts(term) or ()) for term in terms)

    def check_second_encoder(self, is_there: bool) -> None:
        """Refuse to go without a second encoder where the method needs one.

        Args:
            is_there: whether there is a second encoder.

        Raises:
            ValueError: the method needs one and there is none.
        """
        if self.needs_second_encoder and not is_there:
            raise ValueError(
                f"The method {self} looks at the features of a second encoder: name one "
                "(SECOND_MODEL, or `second`)."
            )

    @property
    def all_terms(self) -> tuple[tuple[str, ...], ...]:
        """Terms of the attention of each pass."""
        first = parse_terms(self.attention)
        if not self.layers:
            return (first,)
        return first, parse_terms(self.second) if self.second else first

    def blocks_read(self, depth: int) -> int:
        """Return how many of a model's last blocks the method reads out.

        Args:
            depth: number of blocks of the model.
        """
        if not self.affinity:
            return min(self.blocks, depth)

        affinity = AFFINITIES[self.affinity]
        if affinity.layer is None or self.repair == "sinks":
            return depth
        if any("earlier" in terms for terms in self.all_terms):
            return depth

        needed = [affinity.layer]
        if affinity.smoothing is not None:
            needed.append(affinity.smoothing)
        if self.layers:
            layers = LAYERS[self.layers].layers
            if not layers:  # all of them
                return depth
            needed += layers
        return depth - min(scaled_layer(layer, depth) for layer in needed)

    @property
    def key(self) -> str:
        """Key of this method, as version 0.2.0 has stored it with training examples."""
        return f"{repr(self)[:-1]}, stitched=False, tapered=False)"

    @classmethod
    def of(cls, method: str | Method) -> Method:
        """Look up a preset by name, or parse a method that is spelled out.

        A method is spelled out as its attention, followed by the parts that differ from `Method`'s
        defaults, joined by ``-`` in this order: ``res``, ``ffn``, ``a`` and alpha, ``b`` and the
        number of blocks, ``size`` or ``bilinear``, ``surgery``, ``k`` and the key weight, and
        ``affinity.``, ``repair.``, ``layers.`` and ``second.`` with a name each.

        Args:
            method: a name, also one that another package adds, or a `Method`, which is returned
                unchanged.

        Raises:
            ValueError: an unknown name, for which the message lists the known ones, or parts that
                `Method` refuses.

        >>> Method.of("sclip").attention
        'qq+kk'
        >>> Method.of("vv-res-a2") == Method("vv", residual=True, alpha=2)
        True
        """
        if isinstance(method, Method):
            return method
        found = _METHODS.find(method)
        if found is not None:
            return found

        parts = parse(method)
        terms = [] if parts is None else parts["attention"].split("+")
        if parts is None or any(needed_parts(term) is None for term in terms):
            raise ValueError(
                f"Expected argument `method` to be one of {', '.join(_METHODS.names())}, or one "
                f"that is spelled out such as qk-res-a2, but got {method!r}."
            )
        return cls(**parts)

    def __str__(self) -> str:
        """Return the preset's name, or every part spelled out; `Method.of` reads both."""
        for name, preset in METHODS.items():
            if preset == self:
                return name
        _, *parts = ((part.name, getattr(self, part.name), part.default) for part in fields(self))
        spelled = [_spell(name, value) for name, value, default in parts if value != default]
        return "-".join([self.attention, *spelled])


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "clip": Method(attention="qk", residual=True, ffn=True),
        "maskclip": Method(attention="identity", residual=True, ffn=True),
        "sclip": Method(attention="qq+kk", residual=True, ffn=True),
        "clearclip": Method(attention="qq", residual=False, ffn=False),
        "clipsurgery": Method(
            attention="vv", residual=True, blocks=6, positions="bilinear", remove_redundancy=True
        ),
        "gem": Method(attention="ensemble", residual=True, blocks=6, positions="size"),
        "naclip": Method(attention="neighbour"),
        "pearl": Method(attention="procrustes"),
        "proxyclip": Method(attention="proxy"),
        "scclip": Method(
            attention="kk+affinity", affinity="middle", repair="density", layers="middle"
        ),
        "sfp": Method(
            attention="kk+qq+affinity",
            affinity="sparse",
            repair="attention",
            layers="middle",
            second="affinity",
        ),
        "rfclip": Method(attention="kk+earlier", affinity="mean", repair="sinks", layers="mean"),
    }
)


def _expect_method(name: str, found: object) -> Method:
    if not isinstance(found, Method):
        raise TypeError("is no Method")
    return found


#: The presets, and the methods of other packages.
_METHODS: Final = Registry("clearclip.methods", "method", METHODS, _expect_method)

#: The three maps of the last block that Figs. 1 and 3 of the paper compare.
MAPS: Mapping[str, Method] = MappingProxyType(
    {
        "X_sum": Method(attention="qk", residual=True),
        "X_res": Method(attention="qk", residual=True, alpha=0),
        "X_attn": Method(attention="qk"),
    }
)
