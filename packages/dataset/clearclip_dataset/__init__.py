"""Label Studio's exports as training sets: the part of ClearCLIP's backend that needs no torch."""
