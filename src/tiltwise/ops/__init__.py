"""How: batched functions on tensors, on any device."""
