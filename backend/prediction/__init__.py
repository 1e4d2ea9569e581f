"""From a request to its predictions: prompts, predictor, deadline and outbox; imports `feedback`
and what that imports."""
