"""How the last block is read out: one frozen value, and the known presets by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from clearclip_core.attention import parse_terms


@dataclass(frozen=True)
class Method:
    """A readout of CLIP's last block (Sec. 3.3 and Tab. 1 of the paper).

    With ``X`` the input of the last block and ``X_attn`` its attention output, dense features
    are ``proj(ln_post(·))`` of

    ============ ===== ==============================================
    ``residual`` ``ffn``  input to ``ln_post``
    ============ ===== ==============================================
    True         True  ``S + FFN(LN2(S))`` with ``S = X + α·X_attn``
    True         False ``X + α·X_attn``
    False        True  ``α·X_attn + FFN(LN2(α·X_attn))``
    False        False ``α·X_attn`` (ClearCLIP)
    ============ ===== ==============================================

    The first row is Eqs. 2-3, the last one ClearCLIP. The paper does not spell out the two
    mixed rows; they are Eqs. 2-3 with the other part left out.

    Attributes:
        attention: terms of `clearclip_core.attention.TERMS`, joined by ``+``.
        residual: keep the residual connection of the attention.
        ffn: keep the feed-forward network and its own residual.
        alpha: weight of the attention output (Sec. 3.3, Fig. 6); no unit, >= 0.

    Raises:
        ValueError: unknown attention; alpha negative or not finite; alpha other than 1 where
            ``ln_post`` would cancel it; alpha 0 without a residual (nothing would be left).

    >>> Method() == METHODS["clearclip"]
    True
    """

    attention: str = "qq"
    residual: bool = False
    ffn: bool = False
    alpha: float = 1.0

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

    def __str__(self) -> str:
        """The preset's name, or every part spelled out."""
        for name, preset in METHODS.items():
            if preset == self:
                return name
        parts = [self.attention, "res" if self.residual else "", "ffn" if self.ffn else ""]
        alpha = "" if self.alpha == 1 else f"a{self.alpha:g}"
        return "-".join(part for part in [*parts, alpha] if part)


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "clip": Method(attention="qk", residual=True, ffn=True),
        "maskclip": Method(attention="identity", residual=True, ffn=True),
        "sclip": Method(attention="qq+kk", residual=True, ffn=True),
        "clearclip": Method(attention="qq", residual=False, ffn=False),
    }
)


def resolve_method(method: str | Method) -> Method:
    """Look a preset up by name; a `Method` passes through.

    Raises:
        ValueError: unknown name; the message lists the known ones.

    >>> resolve_method("sclip").attention
    'qq+kk'
    """
    if isinstance(method, Method):
        return method
    if method not in METHODS:
        raise ValueError(
            f"Expected argument `method` to be one of {', '.join(METHODS)}, but got {method!r}."
        )
    return METHODS[method]
