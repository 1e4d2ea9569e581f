"""From a request to its predictions: prompts, predictor, batches; imports `feedback`
and what that imports."""
