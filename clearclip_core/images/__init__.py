"""Images: any image to RGB and to model input, overlays, palettes and image files; imports no
other folder."""
