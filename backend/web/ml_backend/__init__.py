"""The routes that Label Studio calls."""
