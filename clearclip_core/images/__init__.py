"""Images: any picture to RGB and to model input, overlays, palettes and image files; imports no
other folder."""
