"""From a request to its predictions: predictor, masks, batches; imports `feedback`
and what that imports."""
