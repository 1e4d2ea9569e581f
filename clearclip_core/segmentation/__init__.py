"""From dense features to label maps: sliding windows, upsampling, scores, argmax, guided filter
and masks; imports `images` and `vocabulary`."""
