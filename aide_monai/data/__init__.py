"""Which cases there are, and which of them are trusted, doubtful or unlabelled."""
