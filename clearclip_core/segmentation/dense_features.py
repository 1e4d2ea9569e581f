"""Patch features of one image, with the geometry of its windows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F

from clearclip_core.segmentation.sliding_windows import WindowPlan


@dataclass(frozen=True, eq=False)
class DenseFeatures:
    """Patch features of one image, window by window, with the geometry of the windows.

    An immutable value: it may be kept, shared by threads and scored against any words.

    Attributes:
        patches: (windows, h, w, D), each feature of length 1.
        plan: positions of the windows; ``plan.image_hw`` is the size of the original image.
        cls: (windows, D), the windows' CLS features of length 1, where the method weights classes
            by them or the caller asked for them; None otherwise.
        remove_redundancy: whether the method weights classes by `cls`, see `without_redundancy`.

    Raises:
        ValueError: `patches` or `cls` does not fit `plan`, or `remove_redundancy` without `cls`.
    """

    patches: torch.Tensor
    plan: WindowPlan
    cls: torch.Tensor | None = None
    remove_redundancy: bool = False

    def __post_init__(self) -> None:
        wanted = (self.plan.count, *self.plan.grid_hw)
        if self.patches.ndim != 4 or tuple(self.patches.shape[:3]) != wanted:
            raise ValueError(
                f"Expected argument `patches` to be of shape {wanted} + (D,), but got "
                f"{tuple(self.patches.shape)}."
            )
        one_each = (self.plan.count, self.patches.shape[3])
        if self.cls is not None and tuple(self.cls.shape) != one_each:
            raise ValueError(
                f"Expected argument `cls` to be of shape {one_each}, but got "
                f"{tuple(self.cls.shape)}."
            )
        if self.remove_redundancy and self.cls is None:
            raise ValueError(
                "Expected argument `cls` to be given with `remove_redundancy`, got None."
            )

    @cached_property
    def image_cls(self) -> torch.Tensor:
        """(D,) unit CLS feature of the whole image: the mean of its windows', of length 1.

        It is float32, or float64 where the features are.

        Raises:
            ValueError: the windows' CLS features were not computed.
        """
        if self.cls is None:
            raise ValueError(
                "Expected features with CLS features, but got None: encode with `with_cls=True`."
            )
        precise = self.cls.to(torch.promote_types(self.cls.dtype, torch.float32))
        return F.normalize(precise.mean(dim=0), dim=0)
