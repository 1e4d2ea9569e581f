"""Methods to read out the last blocks: a frozen value, and the presets by name."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from clearclip_core.clip.attention import parse_terms
from clearclip_core.clip.position_embedding import RESIZES, Resize

_NUMBER = r"[0-9.]+(?:e[+-]?[0-9]+)?"
_SPELLED_OUT = re.compile(
    rf"(?P<attention>[a-z+]+)(?P<residual>-res)?(?P<ffn>-ffn)?(?:-a(?P<alpha>{_NUMBER}))?"
    r"(?:-b(?P<blocks>[0-9]+))?(?P<positions>-size|-bilinear)?(?P<remove_redundancy>-surgery)?"
)

#: Positions as `Method.key` writes them: the first two as when there were only these.
_POSITIONS_IN_KEYS: Mapping[Resize, str] = MappingProxyType(
    {"factor": "False", "size": "True", "bilinear": "'bilinear'"}
)


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

    Attributes:
        attention: terms of `clearclip_core.clip.attention.TERMS`, joined by ``+``.
        residual: keep the residual connection of the attention.
        ffn: keep the feed-forward network and its own residual.
        alpha: weight of the attention output (Sec. 3.3, Fig. 6); no unit, >= 0.
        blocks: number of last blocks; all blocks of a model that has fewer.
        positions: how position embeddings are resized: by scale ``factor`` (the paper's released
            settings), by ``size`` (GEM) or ``bilinear`` (CLIP Surgery); see
            `clearclip_core.clip.position_embedding.resize_position_embedding`.
        remove_redundancy: subtract from the similarities what all classes have in common, with
            classes weighted by the CLS token (CLIP Surgery); see
            `clearclip_core.segmentation.redundancy.without_redundancy`.

    Raises:
        ValueError: unknown attention or positions; alpha negative or not finite; alpha other than
            1 where ``ln_post`` would cancel it; alpha 0 without a residual (nothing would be
            left); less than one block; an FFN with several blocks.

    >>> Method() == METHODS["clearclip"]
    True
    """

    attention: str = "qq"
    residual: bool = False
    ffn: bool = False
    alpha: float = 1.0
    blocks: int = 1
    positions: Resize = "factor"
    remove_redundancy: bool = False

    def __post_init__(self) -> None:
        parse_terms(self.attention)
        if not math.isfinite(self.alpha) or self.alpha < 0:
            raise ValueError(
                f"Expected argument `alpha` to be a finite number >= 0, but got {self.alpha}."
            )
        if not self.residual and not self.ffn and self.alpha != 1:
            raise ValueError(
                "Expected argument `alpha` to be 1 without residual and FFN, where ln_post "
                f"cancels it, but got {self.alpha}."
            )
        if not self.residual and self.alpha == 0:
            raise ValueError(
                "Expected argument `alpha` to be above 0 without a residual, but got 0."
            )
        if self.blocks < 1:
            raise ValueError(f"Expected argument `blocks` to be 1 or more, but got {self.blocks}.")
        if self.positions not in RESIZES:
            raise ValueError(
                f"Expected argument `positions` to be one of {', '.join(RESIZES)}, but got "
                f"{self.positions!r}."
            )
        if self.ffn and self.blocks > 1:
            raise ValueError(
                "Expected argument `ffn` to be False with several `blocks`, whose second path has "
                "none, but got True."
            )

    @property
    def key(self) -> str:
        """Key of this method in feature caches; equal for equal methods only.

        It is part of keys on disk, so its text does not follow renamed attributes.
        """
        return (
            f"Method(attention={self.attention!r}, residual={self.residual!r}, ffn={self.ffn!r}, "
            f"alpha={self.alpha!r}, blocks={self.blocks!r}, "
            f"positions_by_size={_POSITIONS_IN_KEYS[self.positions]}, "
            f"remove_redundancy={self.remove_redundancy!r})"
        )

    def __str__(self) -> str:
        """Return the preset's name, or every part spelled out; `resolve_method` reads both."""
        for name, preset in METHODS.items():
            if preset == self:
                return name
        parts = (
            self.attention,
            "res" if self.residual else "",
            "ffn" if self.ffn else "",
            "" if self.alpha == 1 else f"a{_shortest(self.alpha)}",
            "" if self.blocks == 1 else f"b{self.blocks}",
            "" if self.positions == "factor" else self.positions,
            "surgery" if self.remove_redundancy else "",
        )
        return "-".join(filter(None, parts))


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
    }
)

#: The three maps of the last block that Figs. 1 and 3 of the paper compare.
MAPS: Mapping[str, Method] = MappingProxyType(
    {
        "X_sum": Method(attention="qk", residual=True),
        "X_res": Method(attention="qk", residual=True, alpha=0),
        "X_attn": Method(attention="qk"),
    }
)


def resolve_method(method: str | Method) -> Method:
    """Look up a preset by name, or parse a method that is spelled out.

    A method is spelled out as its attention, followed by the parts that differ from `Method`'s
    defaults, joined by ``-`` in this order: ``res``, ``ffn``, ``a`` and alpha, ``b`` and the
    number of blocks, ``size`` or ``bilinear``, ``surgery``.

    Args:
        method: a name, or a `Method`, which is returned unchanged.

    Raises:
        ValueError: an unknown name, for which the message lists the known ones, or parts that
            `Method` refuses.

    >>> resolve_method("sclip").attention
    'qq+kk'
    >>> resolve_method("vv-res-a2") == Method("vv", residual=True, alpha=2)
    True
    """
    if isinstance(method, Method):
        return method
    if method in METHODS:
        return METHODS[method]
    parts = _SPELLED_OUT.fullmatch(method)
    if parts is None:
        raise _unknown(method)
    try:
        terms = parse_terms(parts["attention"])
        alpha = float(parts["alpha"] or 1)
    except ValueError as error:
        raise _unknown(method) from error
    return Method(
        attention="+".join(terms),
        residual=parts["residual"] is not None,
        ffn=parts["ffn"] is not None,
        alpha=alpha,
        blocks=int(parts["blocks"] or 1),
        positions=_resize_of(parts["positions"]),
        remove_redundancy=parts["remove_redundancy"] is not None,
    )


def _resize_of(part: str | None) -> Resize:
    """Return the way to resize that a part of a spelled-out method names."""
    return next((how for how in RESIZES if part == f"-{how}"), "factor")


def _unknown(method: str) -> ValueError:
    return ValueError(
        f"Expected argument `method` to be one of {', '.join(METHODS)}, or one that is spelled "
        f"out such as qk-res-a2, but got {method!r}."
    )


def _shortest(number: float) -> str:
    """Format a number with the fewest digits that read back as the same number."""
    short = f"{number:g}"
    return short if float(short) == number else repr(float(number))
