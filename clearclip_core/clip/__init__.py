"""CLIP models: names, weights, loading, devices, text encoder and dense encoder; imports
`images` and `vocabulary`."""
