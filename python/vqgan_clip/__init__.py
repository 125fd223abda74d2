"""VQGAN-CLIP: images from a prompt, and edits of an image, with no training."""
