"""Memory for what is computed block by block: fresh memory for each block costs as much time."""

from __future__ import annotations

from math import prod

import torch


class Scratch:
    """Float32 tensors on the CPU that are overwritten by the next of the same name."""

    def __init__(self) -> None:
        self._memory: dict[str, torch.Tensor] = {}
        self._shaped: dict[tuple[str, tuple[int, ...]], torch.Tensor] = {}

    def get(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """Return a tensor of a shape, its numbers undefined.

        >>> scratch = Scratch()
        >>> scratch.get("values", (2, 3)).fill_(1.0).shape, scratch.get("values", (4,)).tolist()
        (torch.Size([2, 3]), [1.0, 1.0, 1.0, 1.0])
        """
        if (name, shape) not in self._shaped:
            count = prod(shape)
            if name not in self._memory or len(self._memory[name]) < count:
                self._memory[name] = torch.empty(count)
                # Those of the memory before would keep it alive.
                self._shaped = {key: each for key, each in self._shaped.items() if key[0] != name}
            self._shaped[name, shape] = self._memory[name][:count].view(shape)
        return self._shaped[name, shape]
