"""The one owner of the model: queue, batches and feature cache; knows nothing of Label Studio."""
