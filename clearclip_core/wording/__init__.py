"""Choose the words of labels: check a vocabulary, and choose pictures to try wordings on."""
