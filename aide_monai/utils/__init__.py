"""Files, validation, processes and tensors: what every floor above may use."""
