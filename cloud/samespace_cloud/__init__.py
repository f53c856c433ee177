"""Training: cloud models, and edge models that live in their space. Needs torch."""
