"""What people say of predictions at a glance: a queue, verdicts, and the annotations of them."""
