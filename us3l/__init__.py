"""Universally slimmable self-supervised networks: one training without labels, any width from 0.25x to 1.0x."""
