"""Commands of `vqgan-clip`: options become a recipe, which is carried out."""
