"""MMSA: multi-agent model-based reinforcement learning with state-action learned embeddings."""

__version__ = "0.1.0"
