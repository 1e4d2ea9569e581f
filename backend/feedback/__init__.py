"""What annotators changed: comparison, report and learning; imports `inference` and what that
imports."""
