"""ClearCLIP as a library: images and words in, masks out.

The names are listed in ``__init__.pyi``, and each is imported on first use: torch and open_clip
take seconds, which a command that only prints its help does not need.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
